"""The card of a trained prompter: how it was trained and is asked, in the folder of its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import BundleError, ExportError
from alignpro_lite.prompter.bundle import (
    PROMPTER_BUNDLE,
    Graph,
    Parity,
    Provenance,
    Sidecar,
    Tokens,
)
from alignpro_lite.prompter.profile import DOUBT, PrompterProfile
from alignpro_lite.prompter.targets import NO_TARGET, TargetClaim
from alignpro_lite.prompter.template import TEMPLATES, RewriteTemplate
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.entries import RewriteMode
from alignpro_lite.registry.record import (
    Count,
    Origin,
    Record,
    UnitInterval,
    parse_written,
    read_json,
)

PROMPTER_CARD = "prompter_card.json"
DEFAULT_MODE: RewriteMode = "augment"
SAMPLING = Sampling(temperature=0.5, top_p=0.9)
"""How an untrained prompter is sampled: small base models ramble at temperature 1."""
MAX_TOKENS: dict[RewriteMode, int] = {"augment": 64, "rewrite": 256}


class PrompterCard(Record):
    """What an export has to know about a prompter in addition to its weights.

    Attributes:
        base: Name of the base model.
        template: How it is asked; holds the mode.
        reference_rank: Leading ranks of the adapter that make ρ_sft of the base: what
            `train reference` taught. The others make ρ_θ of ρ_sft. 0 where ρ_sft is the base.
        strength: The prompter tuning parameter λ, None without a reward.
        reward: Name of the reward it was trained on, None if there was none.
        sampling: How rewrites are drawn unless the caller says otherwise.
        max_tokens: The most tokens of a rewrite, the stop token included.
        targets: For which targets it was trained or measured.
        metrics: Held-out figures.
        doubt: The probability of the empty hint from which the prompter adds nothing.
    """

    base: str
    template: RewriteTemplate
    reference_rank: Annotated[int, Meta(ge=0)]
    strength: float | None
    reward: str | None
    sampling: Sampling
    max_tokens: Count
    targets: TargetClaim
    metrics: Mapping[str, Any]
    doubt: UnitInterval = DOUBT

    @property
    def is_reference(self) -> bool:
        """Whether the prompter is ρ_sft itself: supervised, and not trained by a reward."""
        return self.reference_rank > 0 and self.reward is None

    def profile(self, name: str, *, is_trained: bool) -> PrompterProfile:
        """How a prompter with this card is asked.

        Args:
            name: What people call it.
            is_trained: Whether it has an adapter.
        """
        return PrompterProfile(
            name=name,
            template=self.template,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            is_trained=is_trained,
            strength=self.strength,
            doubt=self.doubt,
        )


def read_prompter_card(adapter: Path) -> PrompterCard | None:
    """Read the card in an adapter's folder; None if it has none, as adapters made elsewhere.

    Raises:
        BundleError: It is damaged.
    """
    file = adapter / PROMPTER_CARD
    if not file.exists():
        return None
    origin = Origin(file, BundleError, "Restore the file, or train the prompter again.")
    return parse_written(PrompterCard, read_json(origin, "trained prompter"), origin)


def card_of(base: str, adapter: Path | None, mode: RewriteMode | None) -> PrompterCard:
    """How a prompter was trained to be asked; the package's defaults for an untrained one.

    Args:
        base: Name of the base model.
        adapter: Its adapter's folder, or None.
        mode: How its output becomes x'; None takes the card's, else augment.

    Raises:
        BundleError: The adapter's card is damaged.
        ExportError: The adapter was trained in another mode.
    """
    card = read_prompter_card(adapter) if adapter else None
    if card is None:
        mode = mode or DEFAULT_MODE
        return PrompterCard(
            base=base,
            template=TEMPLATES[mode],
            reference_rank=0,
            strength=None,
            reward=None,
            sampling=SAMPLING,
            max_tokens=MAX_TOKENS[mode],
            targets=NO_TARGET,
            metrics={},
        )
    if mode not in (None, card.template.mode):
        raise ExportError(
            f"The adapter {adapter} was trained to {card.template.mode}, found the mode {mode}.",
            f"Use the mode {card.template.mode}, or an adapter that was trained to {mode}.",
        )
    return card


@dataclass(frozen=True)
class MadeDecoder:
    """A decoder graph in a folder, with everything that the runtime must know about it.

    Attributes:
        graph: The graph and the sizes of its buffers.
        tokens: The tokenizer and the special ids.
        parity: How far the graph is from torch.
    """

    graph: Graph
    tokens: Tokens
    parity: Parity


def write_sidecar(
    folder: Path, made: MadeDecoder, card: PrompterCard, base: str, adapter: str | None
) -> None:
    """Describe the bundle that is complete but for its sidecar.

    Args:
        folder: Holds the graph, its data and the tokenizer.
        made: What is in it.
        card: How the prompter is asked.
        base: Name of the base model.
        adapter: Name of the adapter, None for the base itself.
    """
    provenance = Provenance(
        base_model=base,
        adapter=None if card.is_reference else adapter,
        strength=card.strength,
        reward=card.reward,
        reference=adapter if card.reference_rank else None,
    )
    sidecar = Sidecar(
        format=PROMPTER_BUNDLE.version,
        graph=made.graph,
        tokens=made.tokens,
        template=card.template,
        sampling=card.sampling,
        max_tokens=card.max_tokens,
        parity=made.parity,
        provenance=provenance,
        targets=card.targets,
        files=digests_of(folder),
        eval_card=card.metrics,
        doubt=card.doubt,
    )
    PROMPTER_BUNDLE.write(folder, sidecar)

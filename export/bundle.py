"""Assemble a prompter bundle: decoder, tokenizer and sidecar, in a folder that appears complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import ExportError
from alignpro_lite.export.decoder import export_decoder
from alignpro_lite.export.folder import refuse_loss, whole_folder
from alignpro_lite.hardware.device import Device
from alignpro_lite.prompter.bundle import (
    PROMPTER_BUNDLE,
    Bundle,
    Provenance,
    Sidecar,
    open_bundle,
)
from alignpro_lite.prompter.card import PrompterCard, read_prompter_card
from alignpro_lite.prompter.template import TEMPLATES
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.models_toml import Precision, RewriteMode

DEFAULT_MODE: RewriteMode = "augment"
SAMPLING = Sampling(temperature=0.5, top_p=0.9)
"""How an untrained prompter is sampled: small base models ramble at temperature 1."""
MAX_TOKENS: dict[RewriteMode, int] = {"augment": 64, "rewrite": 256}


@dataclass(frozen=True)
class BundleRequest:
    """What to make a bundle from.

    Attributes:
        source: A Hugging Face folder or a GGUF file.
        base_model: What to call it in the bundle.
        adapter: A peft LoRA folder to merge, or None. Its card, if it has one, sets how the
            prompter is asked and sampled.
        mode: How the prompter's output becomes x'; None takes the card's, else augment.
        precision: Of the weights.
        device: What the graph is for.
        allow_mismatch: Keep a graph that disagrees with torch; the bundle records it.
    """

    source: Path
    base_model: str
    adapter: Path | None
    mode: RewriteMode | None
    precision: Precision
    device: Device
    allow_mismatch: bool


def export_bundle(
    request: BundleRequest,
    destination: Path,
    note: Callable[[str], None] = lambda stage: None,
) -> Bundle:
    """Make a bundle at `destination`, replacing a bundle that is already there.

    Args:
        request: What to make it from.
        destination: The folder; it appears only when it is complete and checked.
        note: Called with each progress message.

    Returns:
        The bundle; its sidecar has the comparison with torch.

    Raises:
        ExportError: The source or the graph cannot be used, the adapter was trained in another
            mode, or `destination` is not a bundle.
        InputError: `destination` is or holds what the bundle is made from.
        BundleError: The adapter's card is not understood.
        RegistryError: The disk is full or read-only.
    """
    refuse_loss(destination, request.source, *([request.adapter] if request.adapter else []))
    card = _card_for(request)
    with whole_folder(destination, PROMPTER_BUNDLE.name) as folder:
        made = export_decoder(
            request.source,
            request.adapter,
            request.precision,
            request.device,
            folder,
            request.allow_mismatch,
            note,
        )
        sidecar = Sidecar(
            format=PROMPTER_BUNDLE.version,
            graph=made.graph,
            tokens=made.tokens,
            template=card.template,
            sampling=card.sampling,
            max_tokens=card.max_tokens,
            parity=made.parity,
            provenance=Provenance(
                base_model=request.base_model,
                adapter=request.adapter.name if request.adapter else None,
                strength=card.strength,
                reward=card.reward,
            ),
            files=digests_of(folder),
            eval_card=card.metrics,
        )
        PROMPTER_BUNDLE.write(folder, sidecar)
    return open_bundle(destination)


def _card_for(request: BundleRequest) -> PrompterCard:
    """How the prompter was trained to be asked; the package's defaults for an untrained one."""
    card = read_prompter_card(request.adapter) if request.adapter else None
    if card is None:
        mode = request.mode or DEFAULT_MODE
        return PrompterCard(
            base=request.base_model,
            template=TEMPLATES[mode],
            strength=None,
            reward=None,
            sampling=SAMPLING,
            max_tokens=MAX_TOKENS[mode],
            metrics={},
        )
    if request.mode not in (None, card.template.mode):
        raise ExportError(
            f"The adapter {request.adapter} was trained to {card.template.mode}, found the mode "
            f"{request.mode}.",
            f"Use the mode {card.template.mode}, or an adapter that was trained to {request.mode}.",
        )
    return card

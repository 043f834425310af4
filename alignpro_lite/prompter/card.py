"""The card of a trained prompter: beside its adapter, how it was trained and is to be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.record import parse_record, read_table, write_record

PROMPTER_CARD = "prompter_card.json"
_RESTORE = "Restore the file, or train the prompter again."


@dataclass(frozen=True)
class PrompterCard:
    """What an export has to know about a prompter besides its weights.

    Attributes:
        base: Name of the base model.
        template: How it is asked; holds the mode.
        strength: The prompter tuning parameter λ, None if untrained.
        reward: Name of the reward it was trained on, None if untrained.
        sampling: How rewrites are drawn unless the caller says otherwise.
        max_tokens: The most tokens of a rewrite, the stop token included.
        metrics: Held-out figures.
    """

    base: str
    template: RewriteTemplate
    strength: float | None
    reward: str | None
    sampling: Sampling
    max_tokens: int
    metrics: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what no bundle could hold.

        Raises:
            InputError: Names the key, the value and what is allowed.
        """
        if self.max_tokens < 1:
            raise InputError(
                f"max_tokens must be at least 1, found {self.max_tokens}.", "Correct max_tokens."
            )
        if "{prompt}" not in self.template.request:
            raise InputError(
                "The template's request must hold {prompt}, found none.", "Put {prompt} into it."
            )


def read_prompter_card(adapter: Path) -> PrompterCard | None:
    """Read the card in an adapter's folder; None if it has none, as adapters made elsewhere.

    Raises:
        BundleError: It is damaged.
    """
    file = adapter / PROMPTER_CARD
    if not file.exists():
        return None
    return parse_record(
        PrompterCard, read_table(file, "trained prompter", _RESTORE), file, _RESTORE
    )


def write_prompter_card(adapter: Path, card: PrompterCard) -> None:
    """Write the card into an adapter's folder."""
    write_record(adapter / PROMPTER_CARD, card)

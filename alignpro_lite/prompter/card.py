"""The card of a trained prompter: how it was trained and is asked, in the folder of its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import BundleError
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.record import Count, Origin, Record, parse_written, read_json

PROMPTER_CARD = "prompter_card.json"


class PrompterCard(Record):
    """What an export has to know about a prompter in addition to its weights.

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
    max_tokens: Count
    metrics: Mapping[str, Any]


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

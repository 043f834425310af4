"""Adapters with random weights and the cards of ρ_sft alone, or of ρ_θ on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.prompter.card import PROMPTER_CARD, PrompterCard
from alignpro_lite.prompter.targets import NO_TARGET
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.record import write_record
from alignpro_lite.train.stacking import stack_on
from tests.support.tiny_models import write_adapter

WORDS = RewriteTemplate("augment", "Help.", "{prompt} Hint:", ())
RANK = 4
"""Of every adapter that `write_adapter` writes."""


def write_reference(folder: Path, base: Path, modules: Sequence[str]) -> Path:
    """Write what `train reference` writes: an adapter that is ρ_sft."""
    write_adapter(folder, base, modules=modules)
    _write_card(folder, reward=None)
    return folder


def write_stacked(folder: Path, base: Path, reference: Path, modules: Sequence[str]) -> Path:
    """Write what `train prompter` writes when it starts from a reference."""
    write_adapter(folder, base, seed=2, modules=modules)
    assert stack_on(reference, folder) == RANK
    _write_card(folder, reward="length")
    return folder


def _write_card(folder: Path, reward: str | None) -> None:
    card = PrompterCard(
        base="base",
        template=WORDS,
        reference_rank=RANK,
        strength=0.1 if reward else None,
        reward=reward,
        sampling=Sampling(),
        max_tokens=8,
        targets=NO_TARGET,
        metrics={},
    )
    write_record(folder / PROMPTER_CARD, card)

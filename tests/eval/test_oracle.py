"""The page says how its oracle was trained, and whether that is how it is judged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from alignpro_lite.errors import ModelFileError
from alignpro_lite.eval.oracle import ORACLE_CARD, OracleCard, oracle_note, read_oracle_card
from alignpro_lite.registry.record import write_record
from alignpro_lite.target.rollout import AnswerPlan

PLAN = AnswerPlan(count=4, max_tokens=64)
CARD = OracleCard(
    answers=AnswerPlan(count=2, max_tokens=64),
    strength=0.02,
    steps=96,
    best_step=64,
    prompts=48,
    first_reward=0.07,
    best_reward=0.21,
    is_plateau=True,
)


def test_matched_sampling_is_said():
    """How many answers are drawn is no matter of how they are drawn."""
    note = oracle_note("oracle", CARD, PLAN)
    assert note == (
        "oracle was trained for 96 steps, until the reward had stopped rising: from 0.070 to 0.210 "
        "at step 64, on 48 prompts set apart, on answers drawn as they are judged."
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_tokens", 80, "max_tokens 80 in training, 64 here"),
        ("temperature", 1.0, "temperature 1.0 in training, 0.8 here"),
        ("top_k", 0, "top_k 0 in training, 40 here"),
        ("top_p", 1.0, "top_p 1.0 in training, 0.95 here"),
        ("min_p", 0.0, "min_p 0.0 in training, 0.05 here"),
    ],
)
def test_an_oracle_that_is_judged_otherwise_is_named(key, value, said):
    """Holds down: trained at temperature 1 on 80 tokens, judged at 0.8 and top-k 40 on 64."""
    card = replace(CARD, answers=replace(CARD.answers, **{key: value}))
    assert said in oracle_note("oracle", card, PLAN)


def test_a_run_that_was_cut_off_is_named():
    note = oracle_note("oracle", replace(CARD, is_plateau=False), PLAN)
    assert "may still have been rising" in note


def test_a_card_is_found_beside_its_oracle(tmp_path):
    gguf = tmp_path / "oracle.gguf"
    assert read_oracle_card(gguf) is None
    assert "not known" in oracle_note("oracle", None, PLAN)
    write_record(tmp_path / ORACLE_CARD, CARD)
    assert read_oracle_card(gguf) == CARD
    (tmp_path / ORACLE_CARD).write_text('{"steps": 3}')
    with pytest.raises(ModelFileError, match="train the oracle again"):
        read_oracle_card(gguf)

"""What several test files share: tiny models, misbehaving servers, problems with known answers."""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.target.rollout import AnswerPlan

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
TINY_TARGET = DATA / "tiny.gguf"
TINY_BUNDLE = DATA / "tiny-bundle"


def answers_of(target, conversations, count, max_tokens, sampling):
    """Ask a target; the sampling brings the seed."""
    return target.answers(conversations, AnswerPlan(count, max_tokens, sampling), sampling.seed)

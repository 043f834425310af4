"""What several test files share: tiny models, misbehaving servers, problems with known answers."""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.decoding.sampling import stream_seeds
from alignpro_lite.target.rollout import AnswerPlan

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
TINY_TARGET = DATA / "tiny.gguf"
TINY_BUNDLE = DATA / "tiny-bundle"


def answers_of(target, conversations, count, max_tokens, sampling):
    """Ask a target; the sampling brings the seed."""
    temperature, top_p = sampling.temperature, sampling.top_p
    plan = AnswerPlan(count, max_tokens, temperature, sampling.top_k, top_p, sampling.min_p)
    return target.answers(conversations, plan, stream_seeds(sampling.seed, len(conversations)))

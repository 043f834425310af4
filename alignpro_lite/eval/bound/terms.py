"""Measures the terms of theorem 6.1 on real models; `measure.bound` has the estimators.

Rewrites and answers are drawn at temperature 1 without filters, whatever users set: that is the
distribution whose log-probabilities are known. An answer is its first `max_tokens` tokens, for the
reward and for the distances alike; rewrites are used as ρ_sft writes them, and none is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.config import BoundSection
from alignpro_lite.measure.bound import (
    Bound,
    OracleTerms,
    PromptTerms,
    estimate_optimum,
    theorem_bound,
    total_variation,
)
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.prompter.prompter import OnnxPrompter, require_reference
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward
from alignpro_lite.target.target import AnswerStream, LlamaTarget, Question

_REWRITES, _ANSWERS, _ORACLE = range(3)
"""Numbers of the random streams of a prompt."""


@dataclass(frozen=True)
class BoundModels:
    """What takes part.

    Attributes:
        target: π_F.
        reference: ρ_sft, a bundle loaded with its adapter multiplied by 0.
        reward: r*.
        oracle: Stands in for π*; None leaves its term out.
    """

    target: LlamaTarget
    reference: OnnxPrompter
    reward: Reward
    oracle: LlamaTarget | None = None


@dataclass(frozen=True)
class BoundPlan:
    """How much is drawn, and with which λ.

    Attributes:
        draws: Rewrites of each prompt, of which more than exp(KL) are needed, and answers to each
            prompt and rewrite, at most the sequences of the target.
        strength: λ > 0.
        max_tokens: Most tokens of an answer.
        seed: Seed of rewrites, answers and the bootstrap.
    """

    draws: BoundSection
    strength: float
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a plan that measures nothing.

        Raises:
            InputError: Names the numbers.
        """
        rewrites, answers = self.draws.rewrites, self.draws.answers
        if self.strength <= 0 or rewrites < 1 or answers < 2 or self.max_tokens < 1:
            raise InputError(
                "The bound needs λ above 0, a rewrite, 2 answers and a token, found "
                f"{self.strength:g}, {rewrites}, {answers} and {self.max_tokens}.",
                "Raise the number that is too small.",
            )


@dataclass(frozen=True)
class _Answer:
    """An answer with its tokens and their log-probability under the model that wrote it."""

    text: str
    tokens: tuple[int, ...]
    log_prob: float


def measure_bound(
    models: BoundModels,
    prompts: Sequence[str],
    plan: BoundPlan,
    known: Sequence[PromptTerms],
    on_terms: Callable[[PromptTerms], None],
) -> Bound:
    """Measure every term of Theorem 6.1 that can be measured.

    Args:
        models: What takes part.
        prompts: x, at least two.
        plan: How much is drawn.
        known: Terms of the first prompts, where an earlier run measured them.
        on_terms: Told the terms of every other prompt as they are measured.

    Raises:
        BundleError: ρ_sft cannot be had from this bundle.
        ContextOverflowError: A prompt or one of its rewrites does not fit.
        InputError: There are fewer than two prompts, or the oracle has other tokens than the
            target.
        RewardError: The reward failed, or an answer has no score.
    """
    require_reference(models.reference.bundle)
    if len(prompts) < 2:
        raise InputError(
            f"The bound needs at least 2 prompts, found {len(prompts)}.", "Give more prompts."
        )
    if models.oracle is not None and not models.target.is_like(models.oracle):
        raise InputError(
            f"The oracle {models.oracle.path} has other tokens than the target "
            f"{models.target.path}, which therefore cannot score its answers.",
            "Pass an oracle that was trained from the target; see `alignpro-lite train oracle`.",
        )
    terms = list(known)
    for number, prompt in enumerate(prompts[len(known) :], start=len(known)):
        terms.append(_PromptRun(models, plan, prompt, stream_seed(plan.seed, number)).terms())
        on_terms(terms[-1])
    return theorem_bound(terms, plan.strength, None, plan.seed)


class _PromptRun:
    """Measures the terms of one prompt."""

    def __init__(self, models: BoundModels, plan: BoundPlan, prompt: str, seed: int) -> None:
        self._models = models
        self._plan = plan
        self._prompt = prompt
        self._seed = seed

    def terms(self) -> PromptTerms:
        target, oracle = self._models.target, self._models.oracle
        rewrites = self._rewrites()
        plain, *rewritten = self._answers(target, [self._prompt, *rewrites], _ANSWERS)
        judged = [] if oracle is None else self._answers(oracle, [self._prompt], _ORACLE)
        rewards = self._rewards([plain, *rewritten, *judged])
        end = 1 + len(rewrites)
        return PromptTerms(
            rewrite_variation=self._variation(plain, rewrites),
            optimum=estimate_optimum(rewards[1:end], self._plan.strength),
            oracle=self._oracle_terms(judged[0], rewards[end]) if judged else None,
            lowest=float(rewards.min()),
            highest=float(rewards.max()),
        )

    def _oracle_terms(self, answers: Sequence[_Answer], rewards: FloatArray) -> OracleTerms:
        return OracleTerms(self._variation(answers, [self._prompt]), float(rewards.mean()))

    def _rewrites(self) -> list[str]:
        """Draw x' ~ ρ_sft."""
        reference, count = self._models.reference, self._plan.draws.rewrites
        sampling = Sampling(seed=stream_seed(self._seed, _REWRITES))
        texts: list[str] = []
        for first in range(0, count, reference.sequences):
            some = min(reference.sequences, count - first)
            streams = reference.start(self._prompt, some, sampling, first)
            texts.extend(stream.result().text for stream in streams)
        return texts

    def _answers(self, model: LlamaTarget, sent: Sequence[str], stream: int) -> list[list[_Answer]]:
        """Draw answers to each of several texts, all decoded together."""
        plan, seed = self._plan, stream_seed(self._seed, stream)
        questions = [
            Question(
                [Message("user", text)],
                plan.max_tokens,
                Sampling(seed=stream_seed(seed, place)),
                count=plan.draws.answers,
            )
            for place, text in enumerate(sent)
        ]
        started = model.answer_together(questions, fresh=True)
        try:
            return [[_answer(stream) for stream in streams] for streams in started]
        finally:
            for streams in started:
                for unread in streams:
                    unread.cancel()

    def _rewards(self, answers: Sequence[Sequence[_Answer]]) -> FloatArray:
        """Score answers, all against x; shape (texts, answers)."""
        exchanges = [Exchange(self._prompt, answer.text) for row in answers for answer in row]
        scores = self._models.reward.score(exchanges)
        if scores.failed.any():
            raise RewardError(
                f"{scores.failed.sum()} of {len(exchanges)} answers have no score.",
                "Fix the reward; the bound needs every score.",
            )
        return scores.total.reshape(len(answers), -1)

    def _variation(self, answers: Sequence[_Answer], sent: Sequence[str]) -> float:
        """Mean distance from what wrote the answers to π_F given each of several texts."""
        different = list(dict.fromkeys(sent))
        scores = self._models.target.score_each(
            [[Message("user", text)] for text in different], [answer.tokens for answer in answers]
        )
        known = dict(zip(different, scores, strict=True))
        log_p = np.array([answer.log_prob for answer in answers])
        return total_variation(log_p, np.array([known[text] for text in sent]))


def _answer(stream: AnswerStream) -> _Answer:
    text = "".join(stream)
    return _Answer(text, tuple(stream.tokens), stream.log_prob)

"""`eval bound`: the terms of theorem 6.1 on your own models; `measure.bound` has the estimators.

Rewrites and answers are drawn at temperature 1 without filters, whatever users set: that is the
distribution whose log-probabilities are known. An answer is its first `max_tokens` tokens, for the
reward and for the distances alike; rewrites are used as ρ_sft writes them, and none is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.decoding.thinking import Thinking
from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.config import BoundSection, EvalConfig
from alignpro_lite.eval.evaluation import open_evaluation
from alignpro_lite.eval.journal import CURE
from alignpro_lite.eval.judges import judge_accuracies
from alignpro_lite.eval.loaded import Loaded
from alignpro_lite.eval.report.verdicts import judge_verdicts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.measure.bound import (
    Bound,
    OracleTerms,
    PromptTerms,
    bound_table,
    estimate_optimum,
    theorem_bound,
    total_variation,
)
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.registry.record import Origin, parse_written
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward
from alignpro_lite.reward.rivals import RivalSource, no_rivals
from alignpro_lite.target.answer_stream import AnswerStream
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget

BOUND = "bound.json"
TERMS = "bound.jsonl"
"""The terms of every prompt, written as they are measured."""
_REWRITES, _ANSWERS, _ORACLE = range(3)
"""Numbers of the random streams of a prompt."""


@dataclass(frozen=True)
class _Answer:
    """An answer with its tokens and their log-probability under the model that wrote it."""

    text: str
    tokens: tuple[int, ...]
    log_prob: float


@dataclass(frozen=True)
class BoundRun:
    """What takes part, how much is drawn, and with which λ.

    Attributes:
        target: π_F.
        reference: ρ_sft, a bundle loaded with its adapter multiplied by 0.
        reward: r*.
        oracle: Stands in for π*; None leaves its term out.
        draws: Rewrites of each prompt, of which more than exp(KL) are needed, and answers to each
            prompt and rewrite, at most the sequences of the target.
        strength: λ > 0.
        max_tokens: Most tokens of an answer.
        seed: Seed of rewrites, answers and the bootstrap.
        thinking: Whether the target thinks before it answers; its thought is part of what is
            measured, and the reward sees the answer alone.
        rivals: What a judge of pairs compares answers with.
    """

    target: LlamaTarget
    reference: Prompter
    reward: Reward
    oracle: LlamaTarget | None
    draws: BoundSection
    strength: float
    max_tokens: int
    seed: int
    thinking: Thinking = "auto"
    rivals: RivalSource = no_rivals

    def __post_init__(self) -> None:
        """Refuse a run that measures nothing.

        Raises:
            InputError: Names the numbers, or the oracle has other tokens than the target.
            BundleError: ρ_sft cannot be had from this bundle.
        """
        rewrites, answers = self.draws.rewrites, self.draws.answers
        if self.strength <= 0 or rewrites < 1 or answers < 2 or self.max_tokens < 1:
            raise InputError(
                "The bound needs λ above 0, a rewrite, 2 answers and a token, found "
                f"{self.strength:g}, {rewrites}, {answers} and {self.max_tokens}.",
                "Raise the number that is too small.",
            )
        self.reference.require_reference()
        if self.oracle is not None and not self.target.is_like(self.oracle):
            raise InputError(
                f"The oracle {self.oracle.path} has other tokens than the target "
                f"{self.target.path}, which therefore cannot score its answers.",
                "Pass an oracle trained from the target; see `alignpro-lite train oracle`.",
            )

    def measure(
        self,
        prompts: Sequence[str],
        known: Sequence[PromptTerms],
        on_terms: Callable[[PromptTerms], None],
    ) -> Bound:
        """Measure every term of Theorem 6.1 that can be measured.

        Args:
            prompts: x, at least two.
            known: Terms of the first prompts, where an earlier run measured them.
            on_terms: Told the terms of every other prompt as they are measured.

        Raises:
            ContextOverflowError: A prompt or one of its rewrites does not fit.
            InputError: There are fewer than two prompts.
            RewardError: The reward failed, or an answer has no score.
        """
        if len(prompts) < 2:
            raise InputError(
                f"The bound needs at least 2 prompts, found {len(prompts)}.", "Give more prompts."
            )
        terms = list(known)
        for number, prompt in enumerate(prompts[len(known) :], start=len(known)):
            terms.append(self._terms(prompt, stream_seed(self.seed, number)))
            on_terms(terms[-1])
        return theorem_bound(terms, self.strength, None, self.seed)

    def _terms(self, prompt: str, seed: int) -> PromptTerms:
        rewrites = self._rewrites(prompt, stream_seed(seed, _REWRITES))
        sent = [prompt, *rewrites]
        plain, *rewritten = self._answers(self.target, sent, stream_seed(seed, _ANSWERS))
        judged = (
            self._answers(self.oracle, [prompt], stream_seed(seed, _ORACLE)) if self.oracle else []
        )
        rewards = self._rewards(prompt, [plain, *rewritten, *judged])
        end = 1 + len(rewrites)
        return PromptTerms(
            rewrite_variation=self._variation(plain, rewrites),
            optimum=estimate_optimum(rewards[1:end], self.strength),
            oracle=OracleTerms(self._variation(judged[0], [prompt]), float(rewards[end].mean()))
            if judged
            else None,
            lowest=float(rewards.min()),
            highest=float(rewards.max()),
        )

    def _rewrites(self, prompt: str, seed: int) -> list[str]:
        """Draw x' ~ ρ_sft."""
        reference, count = self.reference, self.draws.rewrites
        texts: list[str] = []
        for first in range(0, count, reference.sequences):
            some = min(reference.sequences, count - first)
            streams = reference.start(prompt, some, Sampling(seed=seed), first)
            texts.extend(stream.result().text for stream in streams)
        return texts

    def _answers(self, model: LlamaTarget, sent: Sequence[str], seed: int) -> list[list[_Answer]]:
        """Draw answers to each of several texts, all decoded together."""
        questions = [
            Question(
                [Message("user", text)],
                self.max_tokens,
                Sampling(seed=stream_seed(seed, place)),
                count=self.draws.answers,
                thinking=self.thinking,
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

    def _rewards(self, prompt: str, answers: Sequence[Sequence[_Answer]]) -> FloatArray:
        """Score answers, all against x; shape (texts, answers)."""
        (rivals,) = self.rivals([prompt])
        exchanges = [Exchange(prompt, answer.text, rivals) for row in answers for answer in row]
        scores = self.reward.score(exchanges)
        if scores.failed.any():
            raise RewardError(
                f"{scores.failed.sum()} of {len(exchanges)} answers have no score.",
                "Fix the reward; the bound needs every score.",
            )
        return scores.total.reshape(len(answers), -1)

    def _variation(self, answers: Sequence[_Answer], sent: Sequence[str]) -> float:
        """Mean distance from what wrote the answers to π_F given each of several texts."""
        different = list(dict.fromkeys(sent))
        scores = self.target.score_each(
            [[Message("user", text)] for text in different],
            [answer.tokens for answer in answers],
            self.thinking,
        )
        known = dict(zip(different, scores, strict=True))
        log_p = np.array([answer.log_prob for answer in answers])
        return total_variation(log_p, np.array([known[text] for text in sent]))


def _answer(stream: AnswerStream) -> _Answer:
    text = "".join(stream)
    if stream.thought_only:
        raise RewardError(
            f"The target was still thinking after {stream.token_count} tokens, and an answer is "
            "needed.",
            'Raise answers.max_tokens, or set answers.thinking = "off".',
        )
    return _Answer(text, tuple(stream.tokens), stream.log_prob)


def evaluate_bound(config: EvalConfig, places: Places, note: Callable[[str], None]) -> str:
    """Measure the terms, write them to bound.json, and return them as text.

    Args:
        config: Its table [bound] says how much is drawn; a system of kind oracle stands for π*.
        places: Where things are.
        note: Called with each progress message.

    Raises:
        InputError: There is no [bound], or λ is not known.
        AlignProError: A model is missing or failed; what was computed is kept.
    """
    section = config.bound
    if section is None:
        raise InputError(
            "The bound needs a table [bound], found none in the configuration.",
            "Add a line [bound], which may stay empty, and choose another --output.",
        )
    with open_evaluation(config, places, note) as evaluation:
        loaded, journal = evaluation.loaded, evaluation.journal(TERMS)
        run = BoundRun(
            target=loaded.require_llama("The bound"),
            reference=loaded.prompter(section.bundle, adapter=0.0),
            reward=loaded.reward,
            oracle=loaded.oracle(config.oracle) if config.oracle else None,
            draws=section,
            strength=_strength(section, loaded),
            max_tokens=config.answers.max_tokens,
            seed=config.seed,
            thinking=config.answers.switch,
            rivals=loaded.rivals,
        )
        origin = Origin(journal.file, InputError, CURE)
        known = [parse_written(PromptTerms, row, origin) for row in journal.read()]
        with tqdm(total=section.prompts, initial=len(known), unit="prompt") as bar:

            def on_terms(terms: PromptTerms) -> None:
                journal.append([asdict(terms)])
                bar.update()

            found = run.measure(evaluation.mixed(section.prompts), known, on_terms)
        write_text(places.run / BOUND, json.dumps(asdict(found), indent=2) + "\n")
    judge = config.judge[0]
    accuracies = judge_accuracies({judge.name: judge.reward}, places.store)
    verdicts = judge_verdicts(judge.name, accuracies)
    return "\n".join([bound_table(found), *(verdict.text for verdict in verdicts)])


def _strength(section: BoundSection, loaded: Loaded) -> float:
    strength = section.strength or loaded.profile(section.bundle).strength
    if strength is None:
        raise InputError(
            "The bound needs λ, and this prompter was trained with none.",
            "Set bound.strength.",
        )
    return strength

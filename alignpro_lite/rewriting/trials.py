"""Trial answers: the target's answers to several prompts, all decoded together and scored.

An answer is judged by its beginning. One that was cut there can be continued, so that nothing that
was decoded to choose a prompt is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.cancellation import Cancellation, deadline
from alignpro_lite.decoding.engine import FinishReason
from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.decoding.sampling import Consumer, Draw, stream_seed
from alignpro_lite.decoding.thinking import Thinking
from alignpro_lite.errors import ContextOverflowError
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward, Scores, joined, score_warnings
from alignpro_lite.rewriting.request import Budget, Request
from alignpro_lite.target.answer_stream import AnswerStream
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget

_JUDGED_TOGETHER = 4
"""Answers that a judge reads before the time left is looked at: each takes it seconds."""


@dataclass(frozen=True)
class Trial:
    """An answer, or the beginning of one.

    Attributes:
        draws: Its tokens, the stop token included.
        text: Its text, without what was thought.
        finish_reason: `length` if it can be continued.
        reward: r*(x, y); NaN if it could not be scored.
        reasoning: What was thought before it.
        thought_only: Whether the thought did not come to an answer; it then has no reward.
        log_probs: Of the tokens of `text`, if they were asked for.
    """

    draws: tuple[Draw, ...]
    text: str
    finish_reason: FinishReason
    reward: float
    reasoning: str = ""
    thought_only: bool = False
    log_probs: tuple[TokenLogProb, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A prompt to try.

    Attributes:
        sent: x or x'.
        owner: Selects its random streams; the same number gives the same answers.
        count: How many answers.
        purpose: Selects them too: what judges shares nothing with what chose.
        first: The number of the first answer, for an owner that was asked before.
    """

    sent: str
    owner: int
    count: int
    purpose: Literal[Consumer.TRIALS, Consumer.JUDGING, Consumer.RIVALS] = Consumer.TRIALS
    first: int = 0


class Trials:
    """Asks the target and the reward, within a budget, for one request."""

    def __init__(
        self,
        target: LlamaTarget,
        reward: Reward,
        prompt: str,
        request: Request,
        cancellation: Cancellation,
    ) -> None:
        """Start the clock of the budget.

        Args:
            target: π_F.
            reward: r*; it scores the original prompt.
            prompt: x.
            request: How answers are drawn, and the budget.
            cancellation: Stops running answers, and a judge that reads them.
        """
        self._target = target
        self._reward = reward.stopped_by(cancellation)
        self._prompt = prompt
        self._request = request
        self._cancellation = cancellation
        self._begun = time.monotonic()
        self.tokens_spent = 0
        self.scoring_seconds = 0.0
        self._rivals: tuple[str, ...] = ()
        self._tried = self._thought_only = 0
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        """What is suspicious about the answers and their rewards, each sentence once."""
        thoughts = (
            f"{self._thought_only} of {self._tried} trial answers were still a thought after "
            f"{self.trial_tokens} tokens, which says nothing about the answer."
        )
        return [*self._notes, *([thoughts] if self._thought_only else [])]

    @property
    def continuable(self) -> bool:
        """Whether a trial is the beginning of an answer as it was asked for."""
        switch = self._target.thinking
        return switch.position(self._thinking) == switch.position(self._request.thinking)

    @property
    def _thinking(self) -> Thinking:
        """A trial that is no whole answer is too short for a thought, and asked without one."""
        wanted = self._request.thinking
        is_whole = self.trial_tokens == self._request.max_tokens
        return wanted if is_whole else self._target.thinking.briefly(wanted)

    @property
    def trial_tokens(self) -> int:
        """The most tokens of a trial."""
        return min(self._request.rho_star.trial_tokens, self._request.max_tokens)

    @property
    def rivals(self) -> int:
        """How many answers to the prompt each answer was compared with."""
        return len(self._rivals)

    @property
    def rivals_wanted(self) -> int:
        """How many more answers to the prompt the reward needs, to compare others with."""
        return 0 if self._rivals else self._reward.rivals

    @property
    def _budget(self) -> Budget:
        return self._request.rho_star.budget

    def affordable(self, count: int) -> int:
        """How many of `count` answers the budget still covers."""
        if self._seconds_left == 0:
            return 0
        if self._budget.tokens is None:
            return count
        left = max(0, self._budget.tokens - self.tokens_spent)
        return max(0, min(count, left // self.trial_tokens - self.rivals_wanted))

    @property
    def _seconds_left(self) -> float | None:
        if self._budget.seconds is None:
            return None
        return max(0.0, self._begun + self._budget.seconds - time.monotonic())

    def fits(self, ask: Ask) -> bool:
        """Whether a prompt and a whole answer to it fit into the context."""
        return fits(self._target, self._request, ask.sent)

    def answers(self, asks: Sequence[Ask]) -> list[list[Trial]]:
        """Answer prompts together, and score the answers together.

        Returns:
            For each prompt, the answers that were finished before the budget's time ran out or the
            request was cancelled.

        Raises:
            ContextOverflowError: A prompt does not fit, see `fits`.
            RewardError: The reward failed.
        """
        # Fresh: the same seed must give the same answers, whatever was asked before.
        wanted = self.rivals_wanted
        rivals = [Ask(self._prompt, 0, wanted, Consumer.RIVALS)] if wanted else []
        questions = [self._question(ask) for ask in (*asks, *rivals)]
        started = self._target.answer_together(questions, fresh=True)
        flat = [stream for streams in started for stream in streams]
        self._cancellation.enter(flat)
        with ExitStack() as stack:
            for stream in flat:
                stack.callback(stream.cancel)
            stack.enter_context(deadline(self._seconds_left, flat))
            texts = ["".join(stream) for stream in flat]
        self.tokens_spent += sum(stream.token_count for stream in flat)
        written = iter([_trial(*said) for said in zip(flat, texts, strict=True)])
        answered = [_finished([next(written) for _ in streams]) for streams in started]
        for tried in answered[len(asks) :]:
            self._rivals = tuple(trial.text for trial in tried if not trial.thought_only)
        scored = iter(self._scored([trial for tried in answered[: len(asks)] for trial in tried]))
        return [[next(scored) for _ in tried] for tried in answered[: len(asks)]]

    def _scored(self, trials: Sequence[Trial]) -> list[Trial]:
        """The same trials with their rewards; a thought is no answer, and has none.

        What there was no time for has none either.
        """
        self._tried += len(trials)
        self._thought_only += sum(trial.thought_only for trial in trials)
        answered = [place for place, trial in enumerate(trials) if not trial.thought_only]
        if self._cancellation.asked or not answered:
            return [*trials]
        started = time.monotonic()
        scores = self._scores([trials[place].text for place in answered])
        self.scoring_seconds += time.monotonic() - started
        self._notes |= dict.fromkeys(score_warnings(scores))
        rewards = dict(zip(answered, scores.total, strict=False))
        return [
            replace(trial, reward=float(rewards.get(place, math.nan)))
            for place, trial in enumerate(trials)
        ]

    def _scores(self, answers: Sequence[str]) -> Scores:
        """Scores of the first answers, or of all: a judge reads some at a time, as time allows."""
        together = _JUDGED_TOGETHER if self._reward.rivals else len(answers)
        portions: list[Scores] = []
        for start in range(0, len(answers), together):
            if portions and (self._cancellation.asked or self._seconds_left == 0):
                break
            exchanges = [
                Exchange(self._prompt, answer, self._rivals)
                for answer in answers[start : start + together]
            ]
            portions.append(self._reward.score(exchanges))
        return joined(portions)

    def _question(self, ask: Ask) -> Question:
        sampling = self._request.sampling
        seed = stream_seed(stream_seed(sampling.seed, ask.purpose), ask.owner)
        return replace(
            self._request.question(ask.sent),
            max_tokens=self.trial_tokens,
            thinking=self._thinking,
            sampling=replace(sampling, seed=seed),
            count=ask.count,
            first=ask.first,
        )


def fits(target: LlamaTarget, request: Request, sent: str) -> bool:
    """Whether a prompt and a whole answer to it fit into the context of the target."""
    try:
        target.require_room(request.question(sent))
    except ContextOverflowError:
        return False
    return True


def _finished(trials: Sequence[Trial]) -> list[Trial]:
    """Those that neither the budget nor the user has stopped."""
    return [trial for trial in trials if trial.finish_reason != "cancelled"]


def _trial(stream: AnswerStream, text: str) -> Trial:
    """A trial that is not scored yet."""
    return Trial(
        draws=tuple(stream.draws),
        text=text,
        finish_reason=stream.finish_reason or "cancelled",
        reward=math.nan,
        reasoning=stream.reasoning,
        thought_only=stream.thought_only,
        log_probs=tuple(stream.log_probs),
    )


def rewards_of(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """The rewards that are numbers, shape (scored trials,)."""
    rewards = np.array([trial.reward for trial in trials], np.float64)
    known: NDArray[np.float64] = rewards[~np.isnan(rewards)]
    return known

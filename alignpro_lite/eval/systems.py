"""Systems of an evaluation: ways to get answers to the same prompts.

Each one turns prompts into what is sent to the target, a prompt for every answer, and lets the
bench answer and score it. All use the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.errors import RewardError
from alignpro_lite.eval.arms import Arm, Bench
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.draw import DrawModels, DrawnPrompt, draw
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.rollout import Target


@dataclass(frozen=True)
class Response:
    """What a system did with some prompts.

    Attributes:
        arm: What was sent, answered and scored.
        log_ratios: For each prompt, log q(x'|x) - log ρ_sft(x'|x) of rewrites whose q is known.
        reasons: For each prompt, why that was sent; empty where nothing was chosen.
    """

    arm: Arm
    log_ratios: tuple[tuple[float, ...], ...]
    reasons: tuple[str, ...]


class System(Protocol):
    """A way to get answers."""

    def respond(self, bench: Bench) -> Response:
        """Answer the prompts of a bench."""


@dataclass(frozen=True)
class Fixed:
    """Sends the prompt as it is, or what somebody made of it.

    Attributes:
        name: Of the system.
        rewrites: x' by x; a prompt that is not among them goes out as it is.
        before: Stands before every prompt.
        target: Who answers; None for the target of the bench.
    """

    name: str
    rewrites: Mapping[str, str]
    before: str = ""
    target: Target | None = None

    def respond(self, bench: Bench) -> Response:
        """Answer the prompts of a bench."""
        bench = replace(bench, target=self.target or bench.target)
        rows = [
            [self.before + self.rewrites.get(prompt, prompt)] * bench.plan.count
            for prompt in bench.prompts
        ]
        return _response(bench.arm(self.name, rows, bench.seed))


@dataclass(frozen=True)
class BestOf:
    """Sends the prompt as it is and keeps the best answers.

    Attributes:
        name: Of the system.
        samples: Answers of which each best one is kept.
        judge: Whose score decides.
    """

    name: str
    samples: int
    judge: str

    def respond(self, bench: Bench) -> Response:
        """Answer the prompts of a bench."""
        count = bench.plan.count
        sent = [[prompt] * (count * self.samples) for prompt in bench.prompts]
        asked = bench.arm(self.name, sent, bench.seed)
        groups = asked.rewards[self.judge].reshape(len(sent), count, self.samples)
        kept = groups.argmax(axis=2) + np.arange(count) * self.samples
        answers = [
            tuple(row[place] for place in places)
            for row, places in zip(asked.answers, kept, strict=True)
        ]
        rewards = {
            name: np.take_along_axis(values, kept, axis=1) for name, values in asked.rewards.items()
        }
        sent_kept = tuple(tuple(row[:count]) for row in sent)
        return _response(Arm(self.name, sent_kept, tuple(answers), rewards))


@dataclass(frozen=True)
class Prompted:
    """A prompter as users run it: a rewrite that may not be used leaves the prompt as it is.

    Attributes:
        name: Of the system.
        prompter: ρ_θ, or ρ_sft.
        sampling: How rewrites are drawn.
        is_reference: Whether it is ρ_sft itself, whose log-ratio is 0.
    """

    name: str
    prompter: OnnxPrompter
    sampling: Sampling
    is_reference: bool

    def respond(self, bench: Bench) -> Response:
        """Answer the prompts of a bench."""
        rows, ratios = [], []
        for number, prompt in enumerate(bench.prompts):
            request = Request().with_seed(stream_seed(bench.seed, number))
            source = CandidateSource(
                self.prompter, protect(prompt), request, self.sampling, Cancellation()
            )
            found = source.candidates(bench.plan.count, weighed=not self.is_reference)
            texts = {one.number: one.rewrite.text for one in found}
            rows.append([texts.get(place, source.prompt) for place in range(bench.plan.count)])
            ratios.append(
                tuple(
                    0.0 if self.is_reference else one.rewrite.log_proposal - one.log_reference
                    for one in found
                )
            )
        return _response(bench.arm(self.name, rows, bench.seed), tuple(ratios))


@dataclass(frozen=True)
class Drawn:
    """Draws from ρ*: one a prompt and fresh answers to it, or one an answer, as `run` answers.

    Attributes:
        name: Of the system.
        models: What takes part in a draw.
        settings: N, M, λ, the guard, and which answer is returned.
    """

    name: str
    models: DrawModels
    settings: RhoStar

    def respond(self, bench: Bench) -> Response:
        """Answer the prompts of a bench."""
        is_fresh, count = self.settings.returns == "fresh", bench.plan.count
        rows = [
            [self._draw(bench, number, turn) for turn in range(1 if is_fresh else count)]
            for number in range(len(bench.prompts))
        ]
        sent = [[one.choice.sent for one in row] * (count // len(row)) for row in rows]
        if is_fresh:
            arm = bench.arm(self.name, sent, bench.seed)
        else:
            arm = bench.scored(self.name, sent, [[_scored_answer(o) for o in row] for row in rows])
        # No log-ratios: a draw is known only by noisy weights, and their KL is mostly the noise.
        nothing = ((),) * len(rows)
        return Response(arm, nothing, tuple("; ".join(_reasons(row)) for row in rows))

    def _draw(self, bench: Bench, number: int, turn: int) -> DrawnPrompt:
        seed = stream_seed(stream_seed(bench.seed, number), turn)
        request = Request(
            max_tokens=bench.plan.max_tokens,
            sampling=bench.plan.seeded(seed),
            rho_star=self.settings,
        )
        return draw(self.models, protect(bench.prompts[number]), request, Cancellation())


def _reasons(row: Sequence[DrawnPrompt]) -> dict[str, None]:
    """Why those prompts were sent, each reason once."""
    return dict.fromkeys(one.choice.reason for one in row)


def _scored_answer(outcome: DrawnPrompt) -> str:
    """The best answer that the prompt in use has.

    Raises:
        RewardError: None of its answers has a score.
    """
    if outcome.answer is None:
        raise RewardError(
            f"No answer to {outcome.choice.sent!r:.60} has a score.",
            "Mend the reward; a comparison needs every score.",
        )
    return outcome.answer.text


def _response(arm: Arm, ratios: Sequence[tuple[float, ...]] = ()) -> Response:
    return Response(arm, tuple(ratios) or ((),) * len(arm.sent), ("",) * len(arm.sent))

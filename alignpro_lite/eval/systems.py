"""Systems of an evaluation: ways to get answers to the same prompts.

Each one turns prompts into what is sent to the target, one text for every answer, and lets the
bench answer and score it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.errors import RewardError
from alignpro_lite.eval.bench import Bench, Response
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.rollout import Target


@dataclass(frozen=True)
class Fixed:
    """Sends the prompt as it is, or a text that was made from it elsewhere.

    Attributes:
        rewrites: x' by x; a prompt that is not among them is sent as it is.
        prefix: Put before every prompt.
        target: Who answers; None for the target of the bench.
    """

    rewrites: Mapping[str, str]
    prefix: str = ""
    target: Target | None = None

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`."""
        bench = replace(bench, target=self.target or bench.target)
        sent = [
            [self.prefix + self.rewrites.get(prompt, prompt)] * bench.plan.count
            for prompt in prompts
        ]
        return bench.answer(prompts, sent, seed)


@dataclass(frozen=True)
class BestOf:
    """Sends the prompt as it is and keeps the best answers.

    Attributes:
        samples: Answers from which each kept one is chosen.
        judge: Whose score decides.
    """

    samples: int
    judge: str

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`."""
        count = bench.plan.count
        sent = [[prompt] * (count * self.samples) for prompt in prompts]
        asked = bench.answer(prompts, sent, seed)
        groups = asked.rewards[self.judge].reshape(len(prompts), count, self.samples)
        kept = groups.argmax(axis=2) + np.arange(count) * self.samples
        return Response(
            sent=[row[:count] for row in sent],
            answers=[
                [row[place] for place in places]
                for row, places in zip(asked.answers, kept, strict=True)
            ],
            rewards={
                name: np.take_along_axis(values, kept, axis=1)
                for name, values in asked.rewards.items()
            },
        )


@dataclass(frozen=True)
class Prompted:
    """A prompter as users run it: where a rewrite may not be used, the prompt is sent as it is.

    Attributes:
        prompter: ρ_θ, or ρ_sft.
        sampling: How rewrites are drawn.
        is_reference: Whether it is ρ_sft itself, whose log-ratio is 0.
    """

    prompter: OnnxPrompter
    sampling: Sampling
    is_reference: bool

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`."""
        sent, ratios = [], []
        for number, prompt in enumerate(prompts):
            request = Request().with_seed(stream_seed(seed, number))
            source = CandidateSource(
                self.prompter, protect(prompt), request, self.sampling, Cancellation()
            )
            found = source.candidates(bench.plan.count, weighed=not self.is_reference)
            texts = {candidate.number: candidate.rewrite.text for candidate in found}
            sent.append([texts.get(place, source.prompt) for place in range(bench.plan.count)])
            ratios.append(
                [
                    0.0
                    if self.is_reference
                    else candidate.rewrite.log_proposal - candidate.log_reference
                    for candidate in found
                ]
            )
        return replace(bench.answer(prompts, sent, seed), log_ratios=ratios)


@dataclass(frozen=True)
class Drawn:
    """Draws from ρ*: one a prompt with fresh answers to it, or one an answer, as `run` answers.

    It reports no log-ratios: a draw is known only by noisy weights, and their KL would be mostly
    that noise.

    Attributes:
        models: What takes part in a draw.
        settings: N, M, λ, the guard, and which answer is returned.
    """

    models: DrawModels
    settings: RhoStar

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`."""
        is_fresh, count = self.settings.returns == "fresh", bench.plan.count
        draws = [
            [
                self._draw(bench, prompt, stream_seed(stream_seed(seed, number), turn))
                for turn in range(1 if is_fresh else count)
            ]
            for number, prompt in enumerate(prompts)
        ]
        sent = [[choice.sent for choice in row] * (count // len(row)) for row in draws]
        if is_fresh:
            response = bench.answer(prompts, sent, seed)
        else:
            answers = [[_scored_answer(choice) for choice in row] for row in draws]
            response = bench.score(prompts, sent, answers)
        reasons = ["; ".join(dict.fromkeys(choice.reason for choice in row)) for row in draws]
        return replace(response, reasons=reasons)

    def _draw(self, bench: Bench, prompt: str, seed: int) -> Choice:
        request = Request(
            max_tokens=bench.plan.max_tokens,
            sampling=bench.plan.seeded(seed),
            rho_star=self.settings,
        )
        return draw(self.models, protect(prompt), request, Cancellation())


def _scored_answer(choice: Choice) -> str:
    """The best answer to the prompt in use.

    Raises:
        RewardError: None of its answers has a score.
    """
    if choice.answer is None:
        raise RewardError(
            f"No answer to {choice.sent!r:.60} has a score.",
            "Fix the reward; a comparison needs every score.",
        )
    return choice.answer.text

"""Systems of an evaluation: ways to get answers to the same prompts.

Each one turns prompts into what is sent to the target, one text for every answer, and lets the
bench answer and score it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import Sampling, stream_seed, stream_seeds
from alignpro_lite.eval.bench import Bench, Response, needed_answer
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.result import Result
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.stream import AlignedStream
from alignpro_lite.target.rollout import AnswerOrFailure, AnswerPlan, Target, answer_of


def send_fixed(
    bench: Bench,
    prompts: Sequence[str],
    seed: int,
    rewrite: Callable[[str], str] = str,
    target: Target | None = None,
) -> Response:
    """Send what `rewrite` makes of each prompt, by default the prompt itself; see `System`.

    `target` answers in the place of the bench's, if it is given.
    """
    bench = replace(bench, target=target or bench.target)
    sent = [[rewrite(prompt)] * bench.plan.count for prompt in prompts]
    return bench.answer(prompts, sent, seed)


def read_twice(prompt: str) -> str:
    """The prompt twice, in the form of RE2 (Xu et al., EMNLP 2024).

    Whoever reads from left to right has seen all of it when the second time begins.
    """
    asked = prompt.strip()
    return f"{asked}\nRead the question again: {asked}"


def keep_best(
    bench: Bench, prompts: Sequence[str], seed: int, samples: int, judge: str
) -> Response:
    """Send each prompt as it is, and keep the best of `samples` answers; see `System`.

    The scores of `judge` decide; an answer without one is kept only where there is no other.
    """
    count = bench.plan.count
    asked = bench.answer(prompts, [[prompt] * (count * samples) for prompt in prompts], seed)
    groups = asked.rewards[judge].reshape(len(prompts), count, samples)
    kept = best_places(groups) + np.arange(count) * samples
    return Response(
        sent=[row[:count] for row in asked.sent],
        answers=[
            [row[place] for place in places]
            for row, places in zip(asked.answers, kept, strict=True)
        ],
        rewards={
            name: np.take_along_axis(values, kept, axis=1) for name, values in asked.rewards.items()
        },
        cut=np.take_along_axis(np.array(asked.cut), kept, axis=1).tolist(),
    )


def best_places(scores: FloatArray) -> NDArray[np.intp]:
    """The place of the best score along the last axis; one of NaN only where there is no other."""
    found: NDArray[np.intp] = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=-1)
    return found


def send_rewrites(
    bench: Bench,
    prompts: Sequence[str],
    seed: int,
    prompter: Prompter,
    sampling: Sampling,
) -> Response:
    """Rewrite as users do; see `System`. A prompt whose rewrite may not be used is sent as it is.

    ρ_sft goes the same way, as a prompter whose adapter is off: two prompters that are compared may
    differ in nothing else.
    """
    sent, ratios = [], []
    for number, prompt in enumerate(prompts):
        request = Request().with_seed(stream_seed(seed, number))
        source = CandidateSource(prompter, protect(prompt), request, sampling, Cancellation())
        found = [] if source.is_in_doubt else source.candidates(bench.plan.count, weighed=True)
        texts = {candidate.number: candidate.rewrite.text for candidate in found}
        sent.append([texts.get(place, source.prompt) for place in range(bench.plan.count)])
        ratios.append(
            [candidate.rewrite.log_proposal - candidate.log_reference for candidate in found]
        )
    return replace(bench.answer(prompts, sent, seed), log_ratios=ratios)


def draw_rewrites(
    bench: Bench, prompts: Sequence[str], seed: int, models: DrawModels, settings: RhoStar
) -> Response:
    """Draw one rewrite of each prompt from ρ*, and answer it afresh; see `System`.

    It reports no log-ratios: a draw is known only by noisy weights, and their KL would be mostly
    that noise.
    """
    plan = bench.plan
    seeds = [stream_seed(own, 0) for own in stream_seeds(seed, len(prompts))]
    choices = [
        draw(models, protect(prompt), _request(plan, settings, own), Cancellation())
        for prompt, own in zip(prompts, seeds, strict=True)
    ]
    response = bench.answer(prompts, [[c.sent] * plan.count for c in choices], seed)
    return replace(response, reasons=[choice.reason for choice in choices])


def run_prompts(
    bench: Bench, prompts: Sequence[str], seed: int, models: DrawModels, settings: RhoStar
) -> Response:
    """Do what `run` does, once for every answer; see `System`. It reports no log-ratios either."""
    plan = bench.plan
    results = [
        [
            AlignedStream(models, protect(prompt), _request(plan, settings, own)).result()
            for own in stream_seeds(stream_seed(seed, number), plan.count)
        ]
        for number, prompt in enumerate(prompts)
    ]
    answers = [[needed_answer(_outcome(result)) for result in row] for row in results]
    sent = [[result.choice.sent for result in row] for row in results]
    response = bench.score(prompts, sent, [[answer.text for answer in row] for row in answers])
    return replace(
        response,
        cut=[[answer.finish_reason == "length" for answer in row] for row in answers],
        reasons=["; ".join(dict.fromkeys(r.choice.reason for r in row)) for row in results],
    )


def _request(plan: AnswerPlan, settings: RhoStar, seed: int) -> Request:
    return Request(
        max_tokens=plan.max_tokens,
        sampling=plan.seeded(seed),
        rho_star=settings,
        thinking=plan.switch,
    )


def _outcome(result: Result) -> AnswerOrFailure:
    reply = Reply(result.reasoning, result.answer, result.thought_only)
    return answer_of(reply, result.answer_tokens, result.finish_reason)

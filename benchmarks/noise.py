"""What ways to spend noisy answers are worth, each alone and at the same number of answers.

    python benchmarks/noise.py [--requests 4000]

Everything is simulated at the variances that were measured on the default models: an answer has
a noise of 0.11 in units of the reward, rewrites are spread by 0.025 to 0.05 around their mean, and
λ is 0.02. That mean is the prompt's own R, or 0.067 ± 0.067 above it, as measured.

Three tables:
- At run time: 8 rewrites and 32 answers, of which all rewrites get two; what the others are best
  spent on. *Gain* is R of what is sent above R of the prompt, *harmed* how often it is below.
- In training: how well the gradient of the log-variance loss is known from 32 answers. A score
  function φ has correlation 1/2 with R; *slope* is the estimate of their covariance over the true
  one, 1 where it has no bias, and *noise* the standard deviation of one prompt's estimate over it.
- A learned R_φ(x, x') that correlates with R over the rewrites of a prompt: as the baseline of a
  rewrite in that gradient, and as the mean that R̂ is shrunk towards at run time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.guard import gain
from alignpro_lite.rewriting.posterior import posterior, tally
from alignpro_lite.rewriting.racing import allot, heats
from alignpro_lite.rewriting.rho_star import shares

NOISE, STRENGTH = 0.11, 0.02
REWRITES, ANSWERS, JUDGING = 8, 2, 8
SETTINGS = ((0.025, 0.0), (0.05, 0.0), (0.025, 0.067), (0.05, 0.067))
"""Spread of R over the rewrites of a prompt, and their mean gain, which has its own size as its
standard deviation between prompts."""
CORRELATION = 0.5
"""Of R with the score function of a parameter."""

FloatArray = NDArray[np.float64]
Chooser = Callable[["Request"], int | None]
"""Chooses one of the rewrites, or None for the prompt."""


class Request:
    """One prompt, its rewrites, and the answers so far."""

    def __init__(self, worth: FloatArray, random: np.random.Generator) -> None:
        self.worth = worth
        self.random = random
        self.raw = np.empty(0)
        self.answers = [np.empty(0) for _ in worth]

    def ask(self, raw: int, counts: NDArray[np.int64]) -> None:
        """More answers to the prompt and to each rewrite."""
        self.raw = np.concatenate([self.raw, self.random.normal(0, NOISE, raw)])
        for place, count in enumerate(counts):
            new = self.random.normal(self.worth[place], NOISE, count)
            self.answers[place] = np.concatenate([self.answers[place], new])

    def gains(self, prior: FloatArray | float = 0.0) -> FloatArray:
        """Posterior mean of R of each rewrite over that of the prompt.

        Args:
            prior: R_φ of each, which the mean of its answers is shrunk towards.
        """
        learned = np.broadcast_to(prior, self.worth.shape)
        less = [answers - guess for answers, guess in zip(self.answers, learned, strict=True)]
        found: FloatArray = posterior(tally(less, [self.raw])).mean + learned - self.raw.mean()
        return found

    def draw(self) -> int:
        """A draw from ρ* by the answers so far."""
        chances = shares(self.gains() / STRENGTH)
        return int(self.random.choice(len(chances), p=chances))


def equal_counts(count: int) -> NDArray[np.int64]:
    """As many answers for each rewrite."""
    return np.full(REWRITES, count)


def unjudged_draw(request: Request) -> int | None:
    """A draw from ρ*, by all answers."""
    request.ask(ANSWERS, equal_counts(ANSWERS + 2 * JUDGING // REWRITES))
    return request.draw()


def judged_draw(request: Request, *, strict: bool) -> int | None:
    """A draw from ρ*, and 8 answers each to it and to the prompt that judge it."""
    request.ask(JUDGING, equal_counts(ANSWERS))
    chosen = request.draw()
    request.ask(0, JUDGING * np.eye(REWRITES, dtype=np.int64)[chosen])
    found = gain(request.answers[chosen][ANSWERS:], request.raw, float(request.gains()[chosen]))
    return chosen if (found.is_certain if strict else found.is_expected) else None


def equal_share(request: Request) -> int | None:
    """All answers shared equally, the highest posterior mean wins."""
    request.ask(8, equal_counts(3))
    return winner(request.gains())


def race(request: Request, prior: FloatArray | float = 0.0) -> int | None:
    """What requests do under the guard `balanced`."""
    request.ask(ANSWERS, equal_counts(ANSWERS))
    for heat in heats(REWRITES, 2 * JUDGING - ANSWERS):
        request.ask(*allot(request.gains(prior), heat))
    return winner(request.gains(prior))


def winner(gains: FloatArray) -> int | None:
    """The best rewrite, if it is better than the prompt."""
    best = int(gains.argmax())
    return best if gains[best] > 0 else None


CHOOSERS: dict[str, Chooser] = {
    "a draw, judged: strict": lambda request: judged_draw(request, strict=True),
    "a draw: off": unjudged_draw,
    "a draw, judged by posterior": lambda request: judged_draw(request, strict=False),
    "equal shares": equal_share,
    "**race** (balanced)": race,
}


def drawn_worth(spread: float, mean: float, random: np.random.Generator) -> FloatArray:
    """R of the rewrites of a prompt, over that of the prompt."""
    return random.normal(random.normal(mean, mean), spread, REWRITES)


def kept(choose: Chooser, spread: float, mean: float, requests: int) -> tuple[float, float]:
    """Mean gain, and share of prompts that got worse."""
    gains = np.zeros(requests)
    for seed in range(requests):
        random = np.random.default_rng(seed)
        worth = drawn_worth(spread, mean, random)
        chosen = choose(Request(worth, random))
        gains[seed] = 0.0 if chosen is None else worth[chosen]
    return float(gains.mean()), float((gains < 0).mean())


def gradient(
    spread: float, rewrites: int, answers: int, requests: int, *, race_last: bool = False
) -> tuple[float, float]:
    """Slope and noise of the estimated covariance of R and φ over the rewrites of a prompt.

    Args:
        spread: Of R.
        rewrites: K.
        answers: M, to each; with `race_last`, on average.
        requests: Prompts.
        race_last: Whether each has one answer and the better half share the others.
    """
    random = np.random.default_rng(rewrites)
    score = random.normal(size=(requests, rewrites))
    rest = (1 - CORRELATION**2) ** 0.5 * random.normal(size=score.shape)
    worth = spread * (CORRELATION * score + rest)
    first = 1 if race_last else answers
    rewards = worth + random.normal(size=worth.shape) * NOISE / first**0.5
    if race_last:
        count = 2 * (answers - 1)
        better = rewards >= np.median(rewards, axis=1, keepdims=True)
        more = worth + random.normal(size=worth.shape) * NOISE / count**0.5
        rewards = np.where(better, (rewards + count * more) / (1 + count), rewards)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    slopes = (centred * score).sum(axis=1) / (rewrites - 1) / (CORRELATION * spread)
    return float(slopes.mean()), float(slopes.std())


def print_run_time(requests: int) -> None:
    """What 32 answers are best spent on."""
    print("| spread, mean gain | " + " | ".join(CHOOSERS) + " |")
    print("|---" * (1 + len(CHOOSERS)) + "|")
    for spread, mean in SETTINGS:
        found = [kept(choose, spread, mean, requests) for choose in CHOOSERS.values()]
        cells = " | ".join(f"{value:+.4f}, {harmed:.0%} harmed" for value, harmed in found)
        print(f"| {spread:g}, {mean:g} | {cells} |", flush=True)


def print_training(requests: int) -> None:
    """How well 32 answers tell the gradient of a prompt."""
    ways = {"K = 32, M = 1": (32, 1), "K = 16, M = 2": (16, 2), "K = 8, M = 4": (8, 4)}
    print("\n| spread | " + " | ".join([*ways, "K = 8, raced"]) + " |")
    print("|---" * (2 + len(ways)) + "|")
    for spread in (0.025, 0.05):
        found = [gradient(spread, *sizes, requests) for sizes in ways.values()]
        found.append(gradient(spread, 8, 4, requests, race_last=True))
        cells = " | ".join(f"slope {slope:.2f}, noise {noise:.1f}" for slope, noise in found)
        print(f"| {spread:g} | {cells} |", flush=True)


def print_learned(requests: int) -> None:
    """What an R_φ of a given correlation is worth, against as many answers."""
    print("\n| correlation | noise of the gradient left | gain of a race | the same as answers |")
    print("|---|---|---|---|")
    spread, mean = 0.05, 0.0
    for correlation in (0.0, 0.1, 0.2, 0.3, 0.5):
        share = correlation**2
        left = (1 - share * spread**2 / (spread**2 + NOISE**2)) ** 0.5
        gains = np.zeros(requests)
        for seed in range(requests):
            random = np.random.default_rng(seed)
            worth = drawn_worth(spread, mean, random)
            error = (share * (1 - share)) ** 0.5 * spread * random.normal(size=REWRITES)
            chosen = race(Request(worth, random), share * (worth - worth.mean()) + error)
            gains[seed] = 0.0 if chosen is None else worth[chosen]
        answers = NOISE**2 / spread**2 * share / (1 - share)
        print(f"| {correlation:g} | {left:.1%} | {gains.mean():+.4f} | {answers:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    requests = parser.parse_args().requests
    print_run_time(requests)
    print_training(10 * requests)
    print_learned(requests)


if __name__ == "__main__":
    main()

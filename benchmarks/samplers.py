"""How close draws come to a known ρ*: importance resampling and Metropolis-Hastings, by N.

    pip install "alignpro-lite[benchmarks]"
    python benchmarks/samplers.py [--draws 20000] [--requests 1000] [--plot docs/samplers.svg]

Twelve rewrites with a Gaussian reward whose ρ* is 1 nat from ρ_sft; candidates come from ρ_sft.
Every figure is the total variation between ρ* and the draws; the last line is that of exact draws.
The noisy columns ask for one answer to each candidate, with noise of 0.1 to 1.2 λ depending on the
rewrite: equal rewrites share one answer, or have one each and pool them as plain means, or as
requests do, by the posterior mean.

The second table is about the variances that were measured on the default models, at their λ: what
a draw is worth, and how often `auto` would stop. What the guards keep is in `noise.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.posterior import Posterior, Tally, posterior
from alignpro_lite.rewriting.rho_star import (
    WeighedCandidates,
    log_weights,
    metropolis_hastings,
    resample,
    shares,
)

SIZES = (1, 2, 4, 8, 16, 32, 64, 256)
REWRITES = 12
STRENGTH = 1.0
CHUNK = 2_000

FloatArray = NDArray[np.float64]
Indices = NDArray[np.int64]
Method = Callable[[Indices, np.random.Generator], Indices]


class Toy:
    """A prompt whose rewrites can be enumerated."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.sft = random.dirichlet(np.full(REWRITES, 3.0))
        shape = random.normal(size=REWRITES)
        scales = np.linspace(0.1, 5, 500)
        self.reward = min((scale * shape for scale in scales), key=self._distance_from_one_nat)
        self.star = self.optimum(self.reward)
        self.noise = STRENGTH * random.permutation(np.linspace(0.1, 1.2, REWRITES))

    def optimum(self, reward: FloatArray) -> FloatArray:
        """ρ* of Lemma 5.1."""
        tilted: FloatArray = self.sft * np.exp(reward / STRENGTH)
        star: FloatArray = tilted / tilted.sum()
        return star

    def _distance_from_one_nat(self, reward: FloatArray) -> float:
        star = self.optimum(reward)
        return abs(float(star @ np.log(star / self.sft)) - 1)

    def weights(self, drawn: Indices, rewards: FloatArray | None = None) -> FloatArray:
        """Log-weights of candidates drawn from ρ_sft, shape as `drawn`.

        Args:
            drawn: Rewrites, shape (chains, N).
            rewards: R̃ of each rewrite for each chain, shape (chains, REWRITES); None for R.
        """
        known = np.broadcast_to(self.reward, (len(drawn), REWRITES)) if rewards is None else rewards
        nothing = np.zeros(known.size)
        worth = Posterior(known.ravel(), nothing, nothing[:, None], nothing)
        log_probs = np.log(self.sft)[drawn].ravel()
        places = (np.arange(len(drawn))[:, None] * REWRITES + drawn).ravel()
        weights: FloatArray = log_weights(
            WeighedCandidates(log_probs, log_probs, places, worth), STRENGTH
        ).reshape(drawn.shape)
        return weights

    def answered(self, drawn: Indices, random: np.random.Generator) -> Tally:
        """An answer to every candidate; those to equal ones count together."""
        rewards = self.reward[drawn] + random.normal(size=drawn.shape) * self.noise[drawn]
        count, total = np.zeros((2, len(drawn), REWRITES))
        chains = np.broadcast_to(np.arange(len(drawn))[:, None], drawn.shape)
        np.add.at(count, (chains, drawn), 1.0)
        np.add.at(total, (chains, drawn), rewards)
        mean = total / np.maximum(count, 1)
        squares = ((rewards - np.take_along_axis(mean, drawn, axis=1)) ** 2).sum(axis=1)
        return Tally(count, mean, squares, np.maximum(count - 1, 0).sum(axis=1))


def methods(toy: Toy) -> dict[str, Method]:
    """The columns of the table: each picks a candidate from every row."""

    def chain(weights: FloatArray, random: np.random.Generator) -> Indices:
        states: Indices = metropolis_hastings(weights, random)[..., -1]
        return states

    def frozen(drawn: Indices, random: np.random.Generator) -> Indices:
        noise = random.normal(size=(len(drawn), REWRITES)) * toy.noise
        return chain(toy.weights(drawn, toy.reward + noise), random)

    def pooled(drawn: Indices, random: np.random.Generator) -> Indices:
        return chain(toy.weights(drawn, toy.answered(drawn, random).mean), random)

    def deployed(drawn: Indices, random: np.random.Generator) -> Indices:
        return chain(toy.weights(drawn, posterior(toy.answered(drawn, random)).mean), random)

    return {
        "resampling": lambda drawn, random: resample(toy.weights(drawn), random),
        "Metropolis-Hastings": lambda drawn, random: chain(toy.weights(drawn), random),
        "noisy, shared": frozen,
        "noisy, pooled": pooled,
        "noisy, posterior": deployed,
    }


def distance(toy: Toy, method: Method, size: int, draws: int) -> float:
    """Total variation between ρ* and draws that choose among `size` candidates."""
    counts = np.zeros(REWRITES)
    for seed in range(draws // CHUNK):
        random = np.random.default_rng([seed, size])
        drawn = random.choice(REWRITES, size=(CHUNK, size), p=toy.sft)
        counts += np.bincount(drawn[np.arange(CHUNK), method(drawn, random)], minlength=REWRITES)
    return float(np.abs(counts / counts.sum() - toy.star).sum() / 2)


def exact_distance(toy: Toy, draws: int) -> float:
    """The total variation of as many exact draws from ρ*."""
    counts = np.random.default_rng(0).multinomial(draws, toy.star)
    return float(np.abs(counts / draws - toy.star).sum() / 2)


BETWEEN, WITHIN, TRAINED_STRENGTH = 0.034, 0.11, 0.02
"""Measured: standard deviations of R between candidates and of a single answer, and λ."""
ANSWERS, JUDGING = 2, 8
TOGETHER = 250
"""Requests that are computed at a time."""


def measured_draws(size: int, seed: int) -> dict[str, float]:
    """What a draw among `size` different candidates is worth, at the measured variances.

    Returns:
        E[R] over a plain rewrite's and KL to ρ_sft by the posterior mean and by plain means, with
        the objective E[R] - λ KL of both, and the share of requests with 1 / ESS up to 0.1.
    """
    requests, random = TOGETHER, np.random.default_rng([seed, size])
    worth = random.normal(0, BETWEEN, (requests, size))
    rewards = worth[..., None] + random.normal(0, WITHIN, (requests, size, ANSWERS))
    plain = rewards.mean(axis=-1)
    squares = ((rewards - plain[..., None]) ** 2).sum(axis=(-2, -1))
    raw = random.normal(0, WITHIN, (requests, JUDGING))
    squares += ((raw - raw.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    degrees = np.full(requests, size * (ANSWERS - 1.0) + JUDGING - 1)
    count = np.full((requests, size), float(ANSWERS))
    learned = posterior(Tally(count, plain, squares, degrees)).mean
    found = {}
    for name, mean in (("posterior", learned), ("plain", plain)):
        share = shares(mean / TRAINED_STRENGTH)
        distance = (share * np.log(np.maximum(share * size, 1e-300))).sum(axis=-1).mean()
        found[f"{name} gain"] = float((share * worth).sum(axis=-1).mean())
        found[f"{name} value"] = float(found[f"{name} gain"] - TRAINED_STRENGTH * distance)
        found[f"{name} close"] = float(((share**2).sum(axis=-1) <= 0.1).mean())
    return found


def print_measured(requests: int) -> None:
    """The table at the measured variances."""
    print("\n| N | gain | value | 1/ESS ≤ 0.1 | gain, plain | value, plain | 1/ESS ≤ 0.1, plain |")
    print("|---" * 7 + "|")
    for size in (4, 8, 16, 32, 64):
        parts = [measured_draws(size, seed) for seed in range(requests // TOGETHER)]
        found = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
        cells = (
            f"{found[f'{name} gain']:+.4f} | {found[f'{name} value']:+.4f} | "
            f"{found[f'{name} close']:.0%}"
            for name in ("posterior", "plain")
        )
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


def draw_plot(distances: dict[str, list[float]], file: Path) -> None:
    """Distances by N on logarithmic axes, with a line that falls like 1/N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="candidates N", ylabel="total variation to ρ*"
    )
    for name, values in distances.items():
        axes.plot(SIZES, values, marker="o", label=name)
    start = distances["resampling"][2] * SIZES[2]
    axes.plot(SIZES, [start / size for size in SIZES], "k:", label="1/N")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    toy = Toy()
    columns = methods(toy)
    print("| N | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    distances: dict[str, list[float]] = {name: [] for name in columns}
    for size in SIZES:
        for name, method in columns.items():
            distances[name].append(distance(toy, method, size, options.draws))
        row = " | ".join(f"{values[-1]:.4f}" for values in distances.values())
        print(f"| {size} | {row} |", flush=True)
    exact = f"{exact_distance(toy, options.draws):.4f}"
    print("| exact | " + " | ".join([exact] * len(columns)) + " |")
    print_measured(options.requests)
    if options.plot:
        draw_plot(distances, options.plot)


if __name__ == "__main__":
    main()

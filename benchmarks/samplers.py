"""How close draws come to a known ρ*: importance resampling and Metropolis-Hastings, by N.

    pip install "alignpro-lite[benchmarks]"
    python benchmarks/samplers.py [--draws 1000000] [--plot docs/samplers.svg]

Twelve rewrites with a Gaussian reward whose ρ* is 1 nat from ρ_sft; candidates come from ρ_sft.
Every figure is the total variation between ρ* and the draws; the last line is that of exact draws.
The noisy columns add normal noise to R̂, from 0.1 to 1.2 λ depending on the rewrite.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.rho_star import (
    Candidates,
    log_weights,
    metropolis_hastings,
    resample,
)

SIZES = (1, 2, 4, 8, 16, 32, 64)
REWRITES = 12
STRENGTH = 1.0
CHUNK = 50_000

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

    def weights(
        self, drawn: Indices, noise: FloatArray | float, variance: FloatArray | float
    ) -> FloatArray:
        """Log-weights of candidates drawn from ρ_sft, shape as `drawn`."""
        log_probs = np.log(self.sft)[drawn].ravel()
        rewards = (self.reward[drawn] + noise).ravel()
        known = np.broadcast_to(np.asarray(variance, np.float64), drawn.shape).ravel()
        candidates = Candidates(log_probs, log_probs, rewards, known)
        weights: FloatArray = log_weights(candidates, STRENGTH).reshape(drawn.shape)
        return weights


def methods(toy: Toy) -> dict[str, Method]:
    """The columns of the table: each picks a candidate from every row."""

    def noise_of(drawn: Indices, random: np.random.Generator) -> FloatArray:
        noise: FloatArray = random.normal(size=drawn.shape) * toy.noise[drawn]
        return noise

    def noisy(drawn: Indices, random: np.random.Generator) -> Indices:
        weights = toy.weights(drawn, noise_of(drawn, random), 0.0)
        return metropolis_hastings(weights, random)[..., -1]

    def corrected(drawn: Indices, random: np.random.Generator) -> Indices:
        weights = toy.weights(drawn, noise_of(drawn, random), toy.noise[drawn] ** 2)
        return metropolis_hastings(weights, random)[..., -1]

    return {
        "resampling": lambda drawn, random: resample(toy.weights(drawn, 0.0, 0.0), random),
        "Metropolis-Hastings": lambda drawn, random: metropolis_hastings(
            toy.weights(drawn, 0.0, 0.0), random
        )[..., -1],
        "noisy": noisy,
        "noisy, corrected": corrected,
        "noisy, penalty": lambda drawn, random: _penalised(toy, drawn, random),
    }


def _penalised(toy: Toy, drawn: Indices, random: np.random.Generator) -> Indices:
    """The published penalty method: subtract half the sum of both variances from a difference."""
    noise = random.normal(size=drawn.shape) * toy.noise[drawn]
    weights = toy.weights(drawn, noise, 0.0)
    variance = (toy.noise[drawn] / STRENGTH) ** 2
    rows = np.arange(len(drawn))
    state = np.zeros(len(drawn), np.int64)
    for place in range(1, drawn.shape[1]):
        difference = weights[:, place] - weights[rows, state]
        penalty = (variance[:, place] + variance[rows, state]) / 2
        accepts = np.log(random.random(len(drawn))) < difference - penalty
        state = np.where(accepts, place, state)
    return state


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
    parser.add_argument("--draws", type=int, default=1_000_000)
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
    if options.plot:
        draw_plot(distances, options.plot)


if __name__ == "__main__":
    main()

"""What more samples cost: time and memory of `run --samples 8` compared with `--samples 1`.

    python benchmarks/candidates.py [--tokens 64] [--repeats 5]
        [--models PRESET] [--target TARGET] [--prompter PROMPTER] [--reward REWARD]

By default on the models of the preset small: the row without a reward needs a prompter that was
trained by one. In turns in one process, so the ratios hold on any machine. The prompt asks for an
answer longer than --tokens, so all answers have the same length.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

from alignpro_lite import AlignedModel, Request, RhoStar

PROMPT = "Explain in detail how a small town can prepare for a flood."
CASES = {
    "with the guard": RhoStar(),
    "no guard, 1 answer each": RhoStar(guard="off", answers=1),
    "no guard, 2 answers each": RhoStar(guard="off"),
}


def resident_megabytes() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def run_seconds(model: AlignedModel, request: Request) -> float:
    """How long a request takes."""
    begun = time.perf_counter()
    model.run(PROMPT, request)
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", default="small")
    for part in ("target", "prompter", "reward"):
        parser.add_argument(f"--{part}", default="default")
    parser.add_argument("--strength", type=float, help="λ, if the prompter was trained with none")
    options = parser.parse_args()
    parts = (options.target, options.prompter, options.reward)
    with AlignedModel.load(*parts, models=options.models) as model:
        plain = AlignedModel(model.target, model.prompter, model.plan)
        print(f"{'':28}{'1 sample':>10}{'8 samples':>11}{'ratio':>7}{'memory':>12}")
        rows = {"no reward": (plain, RhoStar())}
        rows |= {name: (model, settings) for name, settings in CASES.items()}
        for name, (used, settings) in rows.items():
            chosen = replace(settings, strength=options.strength)
            times_of: dict[int, list[float]] = {1: [], 8: []}
            before = resident_megabytes()
            for repeat in range(options.repeats + 1):
                for samples, times in times_of.items():
                    request = Request(
                        max_tokens=options.tokens, rho_star=replace(chosen, samples=samples)
                    ).with_seed(repeat)
                    times.append(run_seconds(used, request))
            alone, eight = (statistics.median(times[1:]) for times in times_of.values())
            print(
                f"{name:28}{alone:8.2f} s{eight:9.2f} s{eight / alone:7.2f}"
                f"{resident_megabytes() - before:+9.0f} MB"
            )


if __name__ == "__main__":
    main()

"""What more samples cost: wall time and memory of `run --samples N` against `--samples 1`.

    python benchmarks/candidates.py [--tokens 64] [--repeats 5]

All on the default models, with the default reward, in one process, in turn, so that the ratios hold
on any machine. The prompt takes a longer answer than --tokens, so that all are equally long.
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
    "no guard, 1 answer each": RhoStar(guard=False, answers=1),
    "no guard, 2 answers each": RhoStar(guard=False),
}


def resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def seconds(model: AlignedModel, request: Request) -> float:
    """How long a request takes."""
    begun = time.perf_counter()
    model.run(PROMPT, request)
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with AlignedModel.load(reward="default") as model:
        plain = AlignedModel(model.target, model.prompter, model.plan)
        print(f"{'':28}{'1 sample':>10}{'8 samples':>11}{'ratio':>7}{'memory':>12}")
        rows = {"no reward": (plain, RhoStar())}
        rows |= {name: (model, settings) for name, settings in CASES.items()}
        for name, (used, settings) in rows.items():
            found: dict[int, list[float]] = {1: [], 8: []}
            before = resident()
            for repeat in range(options.repeats + 1):
                for samples, times in found.items():
                    request = Request(
                        max_tokens=options.tokens, rho_star=replace(settings, samples=samples)
                    ).with_seed(repeat)
                    times.append(seconds(used, request))
            one, eight = (statistics.median(times[1:]) for times in found.values())
            print(
                f"{name:28}{one:8.2f} s{eight:9.2f} s{eight / one:7.2f}"
                f"{resident() - before:+9.0f} MB"
            )


if __name__ == "__main__":
    main()

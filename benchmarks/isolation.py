"""What `AlignedModel.load(isolated=True)` costs over the same model in this process.

    python benchmarks/isolation.py [--rounds 50] [--tokens 100] [--target small]

The same greedy stream is read from both, in turns. One token gives the cost of a request, many give
that of a token; the bars are 1 ms and 20 µs. The faster the target, the surer the figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from alignpro_lite import AlignedModel, DeviceRequest, Request, Sampling
from alignpro_lite.answering import AnsweringModel

PROMPT = "Say something about the sky."


def greedy(tokens: int) -> Request:
    """At most so many tokens, the same each time."""
    return Request(max_tokens=tokens, sampling=Sampling(temperature=0), rewrite="off")


def seconds(model: AnsweringModel, tokens: int) -> float:
    """Read a stream of at most so many tokens."""
    begun = time.perf_counter()
    for _ in model.stream(PROMPT, greedy(tokens)):
        pass
    return time.perf_counter() - begun


def added(one: Callable[[], float], other: Callable[[], float], rounds: int) -> Sequence[float]:
    """How much longer the other takes each time: lower quartile, median and upper quartile."""
    pairs = [(one(), other()) for _ in range(rounds)]
    quartiles: Sequence[float] = np.quantile([b - a for a, b in pairs], [0.25, 0.5, 0.75]).tolist()
    return quartiles


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--target", default="small")
    options = parser.parse_args()
    devices = DeviceRequest("cpu")
    with (
        AlignedModel.load(options.target, None, devices=devices) as here,
        AlignedModel.load(options.target, None, devices=devices, isolated=True) as apart,
    ):
        many = here.run(PROMPT, greedy(options.tokens)).answer_tokens
        for tokens in (1, many):
            seconds(here, tokens), seconds(apart, tokens)  # warms up
        request = added(lambda: seconds(here, 1), lambda: seconds(apart, 1), options.rounds)
        whole = added(lambda: seconds(here, many), lambda: seconds(apart, many), options.rounds)
    each = [(cost - request[1]) / max(1, many - 1) for cost in whole]
    print(_line("request", [cost * 1000 for cost in request], "ms", "1"))
    print(_line("token", [cost * 1e6 for cost in each], "µs", "20"), f"of {many}")


def _line(what: str, quartiles: Sequence[float], unit: str, bar: str) -> str:
    low, median, high = quartiles
    return f"a {what} takes {median:.2f} {unit} more ({low:.2f} to {high:.2f}; bar: {bar})"


if __name__ == "__main__":
    main()

"""How soon both engines stop a long prompt that is cancelled, and what that costs its computation.

    python benchmarks/cancelling.py [--rounds 5] [--tokens 500] [--threads N]
        [--target TARGET] [--prompter PROMPTER]

- Let go: from `cancel` to the moment at which the engine is free for others, at a random place of
  the prompt. The bar is 200 ms. The reader of a cancelled answer does not wait even that long.
- Prefill: tokens per second with the switch that stops it and without one, in turns on one model;
  the ratio must be 1.00, up to the noise.

A round computes the prompt two and a half times; what one takes is said first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from alignpro_lite.decoding.engine import Engine
from alignpro_lite.decoding.rows import Stepper, chunk_end
from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings, OnnxDecoder, open_graph
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.llama import LlamaStepper, TargetSettings, open_model

VOCABULARY = 300
"""Tokens are drawn below this."""


def let_go_seconds(engine: Engine[Any], prompt: Sequence[int], whole: float) -> float:
    """Cancel a prompt whose computation takes `whole` seconds, somewhere in the middle."""
    (stream,) = engine.submit(prompt, [GivenTokens([0])], 1, fresh=True)
    time.sleep(random.uniform(0.1, 0.9) * whole)
    begun = time.perf_counter()
    stream.cancel()
    while not stream.ended:
        time.sleep(0.0005)
    return time.perf_counter() - begun


def prefill_seconds(stepper: Stepper[Any], prompt: Sequence[int]) -> float:
    """Compute a prompt as the engine does."""
    stepper.trim(0, 0)
    begun, done = time.perf_counter(), 0
    while done < len(prompt):
        end = chunk_end(done, len(prompt), stepper.micro_batch)
        stepper.prefill(0, prompt[done:end], done)
        done = end
    return time.perf_counter() - begun


def report(
    name: str,
    open_stepper: Callable[[], Any],
    without_switch: Callable[[Any], None],
    prompt: Sequence[int],
    rounds: int,
) -> None:
    """Measure a model and print a line for it."""
    ours, peer = open_stepper(), open_stepper()
    without_switch(peer)
    seconds = prefill_seconds(ours, prompt) + 1.5 * prefill_seconds(peer, prompt)  # warms up
    print(f"{name}: {rounds} rounds of about {seconds:.1f} s", file=sys.stderr, flush=True)
    pairs = [(prefill_seconds(ours, prompt), prefill_seconds(peer, prompt)) for _ in range(rounds)]
    speeds = [len(prompt) / statistics.median(side) for side in zip(*pairs, strict=True)]
    ratio = statistics.median(without / with_ for with_, without in pairs)
    whole = len(prompt) / speeds[0]
    peer.close()
    engine = Engine(ours, name, "")
    waits = sorted(let_go_seconds(engine, prompt, whole) for _ in range(rounds))
    engine.close()
    print(
        f"{name:9} lets go after {statistics.median(waits) * 1000:.0f} ms, at most "
        f"{waits[-1] * 1000:.0f} ms (bar: 200); prefill {speeds[0]:.0f} tok/s, without a switch "
        f"{speeds[1]:.0f} tok/s, ratio {ratio:.2f}",
        flush=True,
    )


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--threads", type=int, default=usable_cores())
    for part in ("target", "prompter"):
        parser.add_argument(f"--{part}", default="default")
    options = parser.parse_args()
    store = ModelStore.open()
    prompt = random.Random(0).choices(range(VOCABULARY), k=options.tokens)

    settings = TargetSettings(options.tokens + 256, 2, 0, None, options.threads)
    model = open_model(store.path("target", options.target), settings)

    def without_callback(stepper: Any) -> None:
        model.lib.llama_set_abort_callback(
            stepper._context.pointer, model.lib.ggml_abort_callback(), None
        )

    report(
        "target", lambda: LlamaStepper(model, settings), without_callback, prompt, options.rounds
    )
    bundle = open_bundle(store.path("bundle", options.prompter))
    placed = DecoderSettings("cpu", 0, 2, options.threads)
    session = open_graph(bundle, placed)

    def without_options(decoder: Any) -> None:
        decoder._runner.options = None

    report(
        "prompter",
        lambda: OnnxDecoder(bundle, placed, session),
        without_options,
        prompt,
        options.rounds,
    )


if __name__ == "__main__":
    main()

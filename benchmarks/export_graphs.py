"""Measure decoder graphs side by side: load time, size, memory, decode speed.

    python benchmarks/export_graphs.py GRAPH[:shared|:growing] ... [--threads 2]

Each graph runs in its own process. All graphs are measured ROUNDS times and the best figure counts,
because other work on the machine can only slow a run down.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

PROMPT, STEPS, BATCHES, ROUNDS = 64, 64, (1, 8), 3
GATE = "adapter_gate"
"""The input that multiplies what an adapter adds."""


def measure(path: Path, layout: str, threads: int) -> dict[str, float]:
    """Measure one graph in this process."""
    before = resident_mb()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    start = time.perf_counter()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    figures = {
        "load s": time.perf_counter() - start,
        "size MB": sum(file.stat().st_size for file in path.parent.glob("model.onnx*")) / 1e6,
        "memory MB": resident_mb() - before,
    }
    for batch in BATCHES:
        figures[f"tok/s at {batch}"] = decode_speed(session, layout, batch)
    return figures


def decode_speed(session: ort.InferenceSession, layout: str, batch: int) -> float:
    """Tokens per second over `STEPS` decode steps after a prompt of `PROMPT` tokens."""
    inputs = {entry.name: entry for entry in session.get_inputs()}
    heads, width = cache_shape(session)
    length = PROMPT + STEPS if layout == "shared" else 0
    names = [name for name in inputs if name.startswith("past")]
    zeros = np.zeros((batch, heads, length, width), np.float32)
    cache = {name: ort.OrtValue.ortvalue_from_numpy(zeros.copy()) for name in names}

    def step(count: int, done: int) -> None:
        nonlocal cache
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", np.full((batch, count), 100, np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((batch, done + count), np.int64))
        if "position_ids" in inputs:
            positions = np.arange(done, done + count, dtype=np.int64)
            binding.bind_cpu_input("position_ids", np.tile(positions, (batch, 1)))
        if GATE in inputs:
            binding.bind_cpu_input(GATE, np.ones(1, np.float32))
        binding.bind_output("logits", "cpu")
        for name, value in cache.items():
            binding.bind_ortvalue_input(name, value)
            present = name.replace("past_key_values", "present")
            if layout == "shared":
                binding.bind_ortvalue_output(present, value)
            else:
                binding.bind_output(present, "cpu")
        session.run_with_iobinding(binding)
        if layout == "growing":
            cache = dict(zip(cache, binding.get_outputs()[1:], strict=True))

    step(PROMPT, 0)
    start = time.perf_counter()
    for index in range(STEPS):
        step(1, PROMPT + index)
    return batch * STEPS / (time.perf_counter() - start)


def cache_shape(session: ort.InferenceSession) -> tuple[int, int]:
    """Heads and width of the cache; --head-dim is the width if the graph does not state it."""
    entry = next(entry for entry in session.get_inputs() if entry.name.startswith("past"))
    heads, width = entry.shape[1], entry.shape[3]
    return heads, width if isinstance(width, int) else int(os.environ["HEAD_DIM"])


def resident_mb() -> float:
    """Resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure every graph named on the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "graphs", nargs="+", help="path of a model.onnx; append :growing if its cache grows"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument(
        "--once", action="store_true", help="measure the graph in this process and print JSON"
    )
    arguments = parser.parse_args()
    os.environ["HEAD_DIM"] = str(arguments.head_dim)
    if arguments.once:
        path, _, layout = arguments.graphs[0].partition(":")
        print(json.dumps(measure(Path(path), layout or "shared", arguments.threads)))
        return
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for graph in arguments.graphs:
            command = [sys.executable, __file__, graph, "--once"]
            command += ["--threads", str(arguments.threads)]
            command += ["--head-dim", str(arguments.head_dim)]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            kept = best.setdefault(graph, figures)
            for key, value in figures.items():
                kept[key] = max(kept[key], value) if "tok/s" in key else min(kept[key], value)
    print(" | ".join(["graph", *next(iter(best.values()))]))
    for graph, figures in best.items():
        print(" | ".join([graph, *(f"{value:.4g}" for value in figures.values())]))


if __name__ == "__main__":
    main()

"""Two ways to compute log ρ_sft at run time: a gate in the trained graph, or the base as a graph.

    python benchmarks/reference.py

Each way runs in a process of its own on the small prompter. The table shows memory, the time to
load, and the time to sample 8 rewrites and score them with ρ_sft.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.registry import ModelStore

PROMPT = "How do I stay safe online?"
COUNT = 8
REPEATS = 7


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(trained: Path, base: Path | None) -> None:
    """Measure the second graph `base`, or the gate if it is None."""
    settings = DecoderSettings("cpu", 0, COUNT, usable_cores())
    before, start = resident_bytes(), time.perf_counter()
    prompter = OnnxPrompter(open_bundle(trained), settings)
    reference = OnnxPrompter(open_bundle(base), settings) if base else None
    load_seconds = time.perf_counter() - start
    sampling, scoring = [], []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        rewrites = prompter.rewrite(PROMPT, COUNT, Sampling(seed=repeat))
        middle = time.perf_counter()
        outputs = [rewrite.tokens for rewrite in rewrites]
        if reference:
            reference.score(PROMPT, outputs)
        else:
            prompter.reference_score(PROMPT, outputs)
        tokens = sum(map(len, outputs))
        sampling.append((middle - start) / tokens)
        scoring.append((time.perf_counter() - middle) / tokens)
    print(
        f"{'two graphs' if base else 'a gate':12} load {load_seconds:5.2f} s, "
        f"{(resident_bytes() - before) / 1e6:5.0f} MB, "
        f"sample {statistics.median(sampling[1:]) * 1e3:5.2f} ms per token, "
        f"score {statistics.median(scoring[1:]) * 1e3:5.2f} ms per token"
    )


def base_bundle(folder: Path) -> Path:
    """The base of the small prompter as a bundle of its own, in the same mode."""
    from alignpro_lite.export.bundle import BundleRequest, export_bundle

    store = ModelStore.open(preset="small")
    trained = open_bundle(store.path("bundle", "default"))
    source = store.path("prompter", trained.sidecar.provenance.base_model)
    sidecar = trained.sidecar
    request = BundleRequest(
        source, "base", None, sidecar.template.mode, sidecar.graph.precision, "cpu", False
    )
    made = export_bundle(request, folder)
    return made.path


def main() -> None:
    """Measure both ways side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--base", type=Path)
    options = parser.parse_args()
    if options.trained:
        measure(options.trained, options.base)
        return
    trained = ModelStore.open(preset="small").path("bundle", "default")
    with tempfile.TemporaryDirectory() as work:
        base = base_bundle(Path(work, "base"))
        for extra in ([], ["--base", str(base)]):
            own = [sys.executable, __file__, "--trained", str(trained), *extra]
            subprocess.run(own, check=True)


if __name__ == "__main__":
    main()

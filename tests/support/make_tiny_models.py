"""Make tests/data and alignpro_lite/known_good: tiny GGUF targets and tiny ONNX prompters.

    python -m tests.support.make_tiny_models

Random weights in the real Llama configuration class, with a real byte-level BPE
tokenizer: what they write is nonsense, how they write it is not. The known-good pair, which ships
with the package, is quantised as most models are: a broken build often fails in those kernels only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from msgspec.structs import replace

from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.target import export_target
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE
from alignpro_lite.prompter.targets import KnownTarget, TargetClaim
from alignpro_lite.registry.entries import Precision
from alignpro_lite.registry.storage import sha256_of
from tests.support import DATA, ROOT
from tests.support.tiny_models import configurations, write_adapter, write_model

KNOWN_GOOD = ROOT / "alignpro_lite" / "known_good"


def main() -> None:
    """Write all models."""
    with tempfile.TemporaryDirectory() as work:
        configuration = configurations()["llama"]
        configuration.max_position_embeddings = 2048
        folder = write_model(Path(work, "model"), configuration)
        adapter = write_adapter(Path(work, "adapter"), folder)
        write_pair(folder, adapter, (DATA / "tiny.gguf", DATA / "tiny-bundle"), ("F16", "fp32"))
        good = KNOWN_GOOD / "target.gguf", KNOWN_GOOD / "bundle"
        write_pair(folder, None, good, ("Q4_0", "int4"))


def write_pair(
    folder: Path,
    adapter: Path | None,
    places: tuple[Path, Path],
    precisions: tuple[str, Precision],
) -> None:
    """Write a target and a prompter of one model."""
    target, bundle = places
    target.parent.mkdir(exist_ok=True)
    export_target(folder, target, precisions[0], allow_mismatch=True)
    request = BundleRequest(
        source=folder,
        base_model="tiny-llama",
        adapter=adapter,
        mode="augment",
        precision=precisions[1],
        device="cpu",
        allow_mismatch=True,
    )
    made = export_bundle(request, bundle)
    if adapter is not None:
        known = KnownTarget("tiny", sha256_of(target, target.name))
        PROMPTER_BUNDLE.write(bundle, replace(made.sidecar, targets=TargetClaim((known,))))


if __name__ == "__main__":
    main()

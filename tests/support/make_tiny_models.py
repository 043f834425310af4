"""Make tests/data: a tiny GGUF target and a tiny ONNX prompter for the fast tests.

    python -m tests.support.make_tiny_models

Random weights in the real Llama configuration class, with a real byte-level BPE
tokenizer: what they write is nonsense, how they write it is not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.target import export_target
from tests.support import DATA
from tests.support.tiny_models import configurations, write_adapter, write_model


def main() -> None:
    """Write both models."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        configuration = configurations()["llama"]
        configuration.max_position_embeddings = 2048
        folder = write_model(Path(work, "model"), configuration)
        export_target(folder, DATA / "tiny.gguf", "F16")
        request = BundleRequest(
            source=folder,
            base_model="tiny-llama",
            adapter=write_adapter(Path(work, "adapter"), folder),
            mode="augment",
            precision="fp32",
            device="cpu",
            allow_mismatch=False,
        )
        export_bundle(request, DATA / "tiny-bundle")


if __name__ == "__main__":
    main()

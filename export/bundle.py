"""Assemble a bundle: the decoder, the tokenizer and the sidecar, in a folder that appears whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.bundle import (
    FORMAT_VERSION,
    Bundle,
    Device,
    Parity,
    Precision,
    Provenance,
    Sidecar,
    open_bundle,
    write_sidecar,
)
from alignpro_lite.errors import ExportError
from alignpro_lite.export.decoder import DecoderExport, export_decoder
from alignpro_lite.export.parity import ParityReport
from alignpro_lite.registry.storage import disk_errors, sha256_of
from alignpro_lite.sampling import Sampling
from alignpro_lite.template import TEMPLATES, Mode

SAMPLING = Sampling(temperature=0.5, top_p=0.9)
"""How an untrained prompter is sampled: small base models wander at temperature 1."""
MAX_TOKENS: dict[Mode, int] = {"augment": 64, "rewrite": 256}


@dataclass(frozen=True)
class BundleRequest:
    """What to make a bundle from.

    Attributes:
        source: A Hugging Face folder or a GGUF file.
        base_model: What to call it in the bundle.
        adapter: A peft LoRA folder to merge, or None.
        mode: How the prompter's output becomes x'.
        precision: Of the weights.
        device: What the graph is for.
        allow_mismatch: Keep a graph that agrees too little with torch; the bundle says so.
    """

    source: Path
    base_model: str
    adapter: Path | None
    mode: Mode
    precision: Precision
    device: Device
    allow_mismatch: bool


def export_bundle(
    request: BundleRequest,
    destination: Path,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> tuple[Bundle, ParityReport]:
    """Make a bundle and put it at `destination`, replacing a bundle that is there.

    Args:
        request: What to make it from.
        destination: The folder; it appears only when whole and checked.
        on_stage: Told what begins, for people who wait.

    Returns:
        The bundle and the comparison with torch.

    Raises:
        ExportError: The source or the graph cannot be used, or `destination` is no bundle.
        RegistryError: The disk is full or read-only.
    """
    _refuse_foreign(destination)
    with disk_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        aside = f".export-{destination.name}-"
        for leftover in destination.parent.glob(f"{aside}*"):
            shutil.rmtree(leftover)  # of an export that was killed
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=aside) as work:
            folder = Path(work, "bundle")
            folder.mkdir()
            made = export_decoder(
                request.source,
                request.adapter,
                request.precision,
                request.device,
                folder,
                request.allow_mismatch,
                on_stage,
            )
            write_sidecar(folder, _sidecar(request, made, folder))
            for path in folder.iterdir():
                path.chmod(0o644)  # the graph's data comes private to its writer
            _replace(folder, destination, Path(work, "old"))
    return open_bundle(destination), made.parity


def _sidecar(request: BundleRequest, made: DecoderExport, folder: Path) -> Sidecar:
    parity = made.parity
    return Sidecar(
        format=FORMAT_VERSION,
        graph=made.graph,
        tokens=made.tokens,
        template=TEMPLATES[request.mode],
        sampling=SAMPLING,
        max_tokens=MAX_TOKENS[request.mode],
        parity=Parity(
            positions=parity.positions,
            argmax_agreement=parity.argmax_agreement,
            required=parity.required_agreement,
            max_logit_error=parity.max_error,
            greedy_agreement=parity.greedy_same_tokens / parity.greedy_tokens,
            mismatch_allowed=made.mismatch_allowed,
        ),
        provenance=Provenance(
            base_model=request.base_model,
            adapter=request.adapter.name if request.adapter else None,
            strength=None,
            reward=None,
        ),
        files={path.name: sha256_of(path, path.name) for path in sorted(folder.iterdir())},
        eval_card={},
    )


def _refuse_foreign(destination: Path) -> None:
    """Only a bundle is ever replaced; anything else that lies there is the user's."""
    if destination.exists() and not (destination / "bundle.json").is_file():
        raise ExportError(
            f"{destination} exists and is no bundle.", "Choose another folder, or remove it first."
        )


def _replace(new: Path, destination: Path, old: Path) -> None:
    if destination.exists():
        shutil.move(destination, old)
    new.replace(destination)

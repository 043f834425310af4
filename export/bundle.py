"""Assemble a prompter bundle: decoder, tokenizer and sidecar, in a folder that appears complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.export.decoder import export_decoder
from alignpro_lite.export.folder import refuse_loss, whole_folder
from alignpro_lite.hardware.device import Device
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE, Bundle, open_bundle
from alignpro_lite.prompter.card import card_of, write_sidecar
from alignpro_lite.registry.entries import Precision, RewriteMode


@dataclass(frozen=True)
class BundleRequest:
    """What to make a bundle from.

    Attributes:
        source: A Hugging Face folder or a GGUF file.
        base_model: What to call it in the bundle.
        adapter: A peft LoRA folder to merge, or None. Its card, if it has one, sets how the
            prompter is asked and sampled.
        mode: How the prompter's output becomes x'; None takes the card's, else augment.
        precision: Of the weights.
        device: What the graph is for.
        allow_mismatch: Keep a graph that disagrees with torch; the bundle records it.
    """

    source: Path
    base_model: str
    adapter: Path | None
    mode: RewriteMode | None
    precision: Precision
    device: Device
    allow_mismatch: bool


def export_bundle(
    request: BundleRequest,
    destination: Path,
    note: Callable[[str], None] = lambda stage: None,
) -> Bundle:
    """Make a bundle at `destination`, replacing a bundle that is already there.

    Args:
        request: What to make it from.
        destination: The folder; it appears only when it is complete and checked.
        note: Called with each progress message.

    Returns:
        The bundle; its sidecar has the comparison with torch.

    Raises:
        ExportError: The source or the graph cannot be used, the adapter was trained in another
            mode, or `destination` is not a bundle.
        InputError: `destination` is or holds what the bundle is made from.
        BundleError: The adapter's card is not understood.
        RegistryError: The disk is full or read-only.
    """
    refuse_loss(destination, request.source, *([request.adapter] if request.adapter else []))
    card = card_of(request.base_model, request.adapter, request.mode)
    with whole_folder(destination, PROMPTER_BUNDLE.name) as folder:
        made = export_decoder(
            request.source,
            request.adapter,
            request.precision,
            request.device,
            folder,
            request.allow_mismatch,
            note,
        )
        adapter = request.adapter.name if request.adapter else None
        write_sidecar(folder, made, card, request.base_model, adapter)
    return open_bundle(destination)

"""Export a target: Hugging Face folder -> GGUF, quantised and compared with torch."""

from __future__ import annotations

import ctypes
from pathlib import Path

from alignpro_lite.decoding.llamacpp import llama_cpp, open_vocabulary
from alignpro_lite.errors import ExportError
from alignpro_lite.export.converters import run_converter
from alignpro_lite.export.folder import refuse_foreign_file, work_beside
from alignpro_lite.export.parity import Bar, compare_gguf, reference_of, require_parity
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.folder import readable_folder
from alignpro_lite.pretrained.torch_model import TorchModel, load_torch_model
from alignpro_lite.prompter.bundle import Parity
from alignpro_lite.registry.storage import commit

_FLOAT_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_FINER = {"Q8_0": "F16", "F16": "F32", "BF16": "F32", "F32": None}
"""The type to try when one disagrees with torch; Q8_0 for all others."""
_NAME_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")


def quantisations() -> dict[str, int]:
    """Every file type of the installed llama.cpp, such as `Q4_K_M`, with its number."""
    return {
        name.removeprefix(prefix): value
        for prefix in _NAME_PREFIXES
        for name, value in vars(llama_cpp()).items()
        if name.startswith(prefix)
    }


def export_target(
    source: Path, out_file: Path, quantisation: str, allow_mismatch: bool = False
) -> Parity:
    """Export a Hugging Face folder as a GGUF file.

    Args:
        source: The folder.
        out_file: The file to write; it appears only when it is complete and checked.
        quantisation: A llama.cpp type by name, any case: F16, Q8_0, Q4_K_M, ...
        allow_mismatch: Keep a file that disagrees with torch; the result records it.

    Returns:
        How far the file is from torch.

    Raises:
        ExportError: Unknown type, unreadable source, failed conversion, special tokens or chat
            template not carried over, logits that disagree with torch, or another export to the
            same file is under way.
        InputError: Something else than a GGUF file is at `out_file`.
        RegistryError: The disk is full or read-only.
    """
    refuse_foreign_file(out_file)
    kind = quantisation.upper()
    known = quantisations()
    if kind not in known:
        raise ExportError(
            f"Expected a llama.cpp type, found '{quantisation}'.",
            f"Use one of {', '.join(sorted(known))}.",
        )
    if not source.is_dir():
        found = "a file" if source.exists() else "nothing"
        raise ExportError(
            f"Expected a Hugging Face folder at {source}, found {found}.",
            "Give the folder that holds config.json.",
        )
    loaded = load_torch_model(source)
    with work_beside(out_file.resolve()) as work, readable_folder(source) as folder:
        written = _convert(folder, work, kind, known[kind])
        _check_vocabulary(loaded, written)
        parity = compare_gguf(reference_of(loaded), written, Bar(required_agreement(kind)))
        if not allow_mismatch:
            finer = _FINER.get(kind, "Q8_0")
            advice = f"Use --quantisation {finer}, or add" if finer else "Add"
            require_parity(parity, f"The {kind} file", f"{advice} --allow-mismatch to keep it.")
        commit(written, out_file.resolve())
    return parity


def required_agreement(kind: str) -> float:
    """The least argmax agreement with torch for a llama.cpp type, 0 to 1."""
    if kind in _FLOAT_TYPES:
        return 0.99
    return 0.97 if kind == "Q8_0" else 0.9


def _convert(source: Path, work: Path, kind: str, number: int) -> Path:
    plain = work / "plain.gguf"
    arguments = [
        str(source),
        *("--outfile", str(plain)),
        *("--outtype", _FLOAT_TYPES.get(kind, "auto")),
    ]
    run_converter("alignpro_lite.export.gguf_converter", arguments, "llama.cpp's converter")
    if kind in _FLOAT_TYPES:
        return plain
    quantised = work / "quantised.gguf"
    lib = llama_cpp()
    params = lib.llama_model_quantize_default_params()
    params.ftype = number
    params.nthread = usable_cores()
    status = lib.llama_model_quantize(
        str(plain).encode(), str(quantised).encode(), ctypes.byref(params)
    )
    if status != 0:
        raise ExportError(
            f"llama.cpp could not quantise the model to {kind} (status {status}).",
            "Use a type that needs no importance matrix, such as Q4_K_M or Q8_0.",
        )
    return quantised


def _check_vocabulary(source: TorchModel, written: Path) -> None:
    """Compare special tokens and chat template of the file with the folder's."""
    vocabulary = open_vocabulary(written)
    found: dict[str, tuple[object, object]] = {
        "beginning-of-sequence id": (source.special.bos, vocabulary.bos),
        "end-of-sequence id": (source.special.eos, vocabulary.eos),
        "add-bos flag": (source.special.add_bos, vocabulary.add_bos),
        "chat template": (source.chat_template, vocabulary.chat_template),
        "missing stop ids": (set(), set(source.special.stop) - set(vocabulary.stop)),
    }
    for name, (expected, got) in found.items():
        if expected != got:
            raise ExportError(
                f"The {name} was not carried over: expected {expected!r}, found {got!r}.",
                "Correct tokenizer_config.json and generation_config.json of the source.",
            )

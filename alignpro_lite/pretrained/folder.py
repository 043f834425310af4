"""A Hugging Face folder as published: checked before anything in it is read.

Configurations that name code to run are refused (CVE-2026-4372), and so are pickled weights.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignpro_lite.errors import ExportError
from alignpro_lite.registry.record import Origin, read_json

ARCHITECTURES = frozenset(
    {
        "LlamaForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Phi3ForCausalLM",
        "Gemma3ForCausalLM",
    }
)
"""Architectures whose fast export is tested. The builder knows more; they get the reference export
until a test covers them."""

_CODE_KEYS = frozenset({"auto_map", "_attn_implementation_internal"})
_MODEL = "Hugging Face model"
_CONFIGURATIONS = ("config.json", "tokenizer_config.json", "generation_config.json")


@contextmanager
def readable_folder(folder: Path) -> Iterator[Path]:
    """Check a Hugging Face folder and yield one that names no code to run.

    Folders of architectures that transformers adopted after their publication (Phi-3.5) still name
    the code they came with. For the tested architectures it is neither needed nor run: they are
    read through a view of the folder without that key.

    Raises:
        ExportError: See `check_folder`.
    """
    config = check_folder(folder)
    if "auto_map" not in config:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="alignpro-lite-") as view:
        for path in folder.resolve().iterdir():
            if path.name != "config.json":
                Path(view, path.name).symlink_to(path)
        plain = {key: value for key, value in config.items() if key != "auto_map"}
        Path(view, "config.json").write_text(json.dumps(plain), encoding="utf-8")
        yield Path(view)


def check_folder(folder: Path) -> dict[str, Any]:
    """Refuse a Hugging Face folder that cannot be read safely.

    Returns:
        What config.json holds.

    Raises:
        ExportError: config.json is missing or damaged, a configuration names code to run, the
            weights are quantised already, or there is no safetensors file.
    """
    config = read_published(folder / "config.json", _MODEL)
    built_in = ARCHITECTURES.issuperset(config.get("architectures") or ["unnamed"])
    for name in _CONFIGURATIONS:
        path = folder / name
        if not path.exists():
            continue
        content = read_published(path, _MODEL)
        if name == "config.json" and built_in:
            content.pop("auto_map", None)
        if named := _CODE_KEYS.intersection(_nested_keys(content)):
            raise ExportError(
                f"{path} names code to run ({', '.join(sorted(named))}), which is refused.",
                "Export a model whose architecture ships with transformers.",
            )
    if "quantization_config" in config:
        raise ExportError(
            f"{folder} holds weights that are quantised already.",
            "Export the original float weights of the model instead.",
        )
    if not any(folder.glob("*.safetensors")):
        raise ExportError(
            f"Expected *.safetensors weights in {folder}, found none (pickled .bin is refused).",
            "Save the model again with save_pretrained(folder, safe_serialization=True).",
        )
    return config


def read_published(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON file of a published folder; `what` names the folder in messages.

    Raises:
        ExportError: The file is missing or holds something else.
    """
    return read_json(Origin(file, ExportError, "Fetch or save it again, complete."), what)


def default_template(template: str | dict[str, str] | None) -> str | None:
    """The chat template of a tokenizer; of several the default, as in transformers itself."""
    return template.get("default") if isinstance(template, dict) else template


def _nested_keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _nested_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nested_keys(inner)

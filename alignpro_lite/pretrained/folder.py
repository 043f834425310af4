"""A Hugging Face folder as published: what other packages read of it is data, never code.

They get a view of the folder: only files that hold data, and of each configuration only what is
known to be data. Numbers are; text is where a list below, or a parameter of the model's own
configuration class, says so. Other keys may name code that some version of some package runs
(CVE-2026-4372): they are left out, or refused where the model may need that code.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig

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

_MODEL = "Hugging Face model"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = re.compile(r"[^\0]+\.safetensors")
_DATA_FILES = (
    "*.safetensors",
    _INDEX,
    "tokenizer.json",
    "*.model",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "README.md",  # llama.cpp's converter takes the licence from it
)
_NAMES_CODE = re.compile("auto_map|implementation|custom_generate|kernel")
"""Keys that are refused and not left out: the model may not work without what they name."""
_IMPLEMENTATION = re.compile("[a-z_]*_implementation(_internal)?")
_EXACT = ("eager", "sdpa")
_FUSED = ("flash_attention_2", "flash_attention_3", "flex_attention")
"""The same numbers, computed on other hardware: left out."""

_MODEL_TEXT = frozenset({"model_type", "torch_dtype", "transformers_version"})
"""Keys of text in every config.json, besides the parameters of its class."""
_TOKENIZER_TEXT = re.compile(
    "tokenizer_class|[a-z_]+_token|(additional|extra|model_specific)_special_tokens"
    "|added_tokens_decoder|chat_template|errors|model_input_names|(padding|truncation)_side"
)


@contextmanager
def readable_folder(folder: Path) -> Iterator[Path]:
    """Check a Hugging Face folder and yield a view of it that holds data only.

    Folders of architectures that transformers adopted after their publication (Phi-3.5) still name
    the code they came with. For the tested architectures it is neither needed nor run.

    Raises:
        ExportError: config.json is missing or damaged, a configuration names code to run, the
            weights are quantised already, or there is no safetensors file.
    """
    configurations = _checked_configurations(folder)
    with tempfile.TemporaryDirectory(prefix="alignpro-lite-") as temporary:
        view = Path(temporary, folder.resolve().name)  # the converter names the model by its folder
        view.mkdir()
        for path in folder.iterdir():
            if path.is_file() and any(path.match(pattern) for pattern in _DATA_FILES):
                _show(path, view)
        for name, content in configurations.items():
            (view / name).write_text(json.dumps(content), encoding="utf-8")
        yield view


@contextmanager
def lone_file(file: Path) -> Iterator[Path]:
    """Yield a folder that holds one file: readers look for configurations beside it."""
    with tempfile.TemporaryDirectory(prefix="alignpro-lite-") as view:
        _show(file, Path(view))
        yield Path(view)


def _show(file: Path, view: Path) -> None:
    shown = view / file.name
    try:
        shown.symlink_to(file.resolve())
    except OSError:  # Windows allows links to some users only
        shutil.copyfile(file, shown)


def _checked_configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """What the configurations of a folder hold as data, by file name."""
    config = read_published(folder / "config.json", _MODEL)
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and all(map(_is_tested, architectures)):
        config.pop("auto_map", None)
    refuse_code(folder / "config.json", config)
    if any(key == "quantization_config" and value for key, value in _nested_items(config)):
        raise ExportError(
            f"{folder} holds weights that are quantised already.",
            "Export the original float weights of the model instead.",
        )
    kind = _class_of(config, PretrainedConfig)
    if "rope_parameters" in config and "rope_parameters" not in _parameters(kind):
        raise ExportError(
            f"{folder} was saved by transformers 5, whose rope_parameters the installed "
            f"{transformers.__version__} takes for its own defaults.",
            "Save the model with transformers 4, which writes rope_theta and rope_scaling.",
        )
    kept = {"config.json": _model_data(config, kind)}
    for name, holds_text in (
        ("tokenizer_config.json", _TOKENIZER_TEXT.fullmatch),
        ("special_tokens_map.json", _TOKENIZER_TEXT.fullmatch),
        ("generation_config.json", frozenset().__contains__),
    ):
        if (folder / name).exists():
            content = read_published(folder / name, _MODEL)
            refuse_code(folder / name, content)
            kept[name] = _data_of(content, holds_text)
    _check_weights(folder)
    return kept


def refuse_code(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse a configuration that names code to run, at any depth.

    Raises:
        ExportError: It does.
    """
    for key, value in _nested_items(content):
        harmless = _holds_no_text(value) and value != {}
        if _IMPLEMENTATION.fullmatch(key) and value in (*_EXACT, *_FUSED):
            harmless = True
        if _NAMES_CODE.search(key) and not harmless:
            raise ExportError(
                f"{file} names code to run ({key} = {json.dumps(value)[:200]}), which is refused.",
                "Export a model whose architecture ships with transformers.",
            )


def _model_data(content: dict[str, Any], kind: type[PretrainedConfig]) -> dict[str, Any]:
    """What a model's configuration, or one inside it, holds as data.

    Args:
        content: The configuration.
        kind: The class that transformers makes of it.
    """
    kept = _data_of(content, _parameters(kind).__contains__)
    for key, inner in kind.sub_configs.items():
        if isinstance(kept.get(key), dict):
            kept[key] = _model_data(kept[key], _class_of(kept[key], inner))
    attention = "_attn_implementation"
    if content.get(attention) in _EXACT:  # Gemma 2 caps its scores in one of them only
        kept[attention] = content[attention]
    return kept


def _parameters(kind: type[PretrainedConfig]) -> frozenset[str]:
    """Keys that a configuration class reads, and those that every config.json has."""
    return _MODEL_TEXT.union(
        kind.attribute_map,
        *(
            signature(vars(ancestor)["__init__"]).parameters
            for ancestor in kind.__mro__[:-1]
            if "__init__" in vars(ancestor)
        ),
    )


def _is_tested(architecture: object) -> bool:
    return isinstance(architecture, str) and architecture in ARCHITECTURES


def _class_of(content: Mapping[str, Any], default: type) -> type[PretrainedConfig]:
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return CONFIG_MAPPING[kind]
    return default if issubclass(default, PretrainedConfig) else PretrainedConfig


def _data_of(content: dict[str, Any], holds_text: Callable[[str], object]) -> dict[str, Any]:
    return {
        key: value for key, value in content.items() if holds_text(key) or _holds_no_text(value)
    }


def _check_weights(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        raise ExportError(
            f"Expected *.safetensors weights in {folder}, found none (pickled .bin is refused).",
            "Save the model again with save_pretrained(folder, safe_serialization=True).",
        )
    if not (folder / _INDEX).exists():
        return
    shards = read_published(folder / _INDEX, _MODEL).get("weight_map")
    for shard in shards.values() if isinstance(shards, dict) else ():
        if not (isinstance(shard, str) and shard == Path(shard).name and _WEIGHTS.fullmatch(shard)):
            raise ExportError(
                f"{folder / _INDEX} names {json.dumps(shard)[:200]}, expected a *.safetensors "
                "file beside it.",
                "Save the model again with save_pretrained(folder, safe_serialization=True).",
            )


def read_published(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON file of a published folder; `what` names the folder in messages.

    Raises:
        ExportError: The file is missing or holds something else.
    """
    return read_json(Origin(file, ExportError, "Fetch or save it again, complete."), what)


def default_template(template: str | dict[str, str] | None) -> str | None:
    """The chat template of a tokenizer; of several the default, as in transformers itself."""
    return template.get("default") if isinstance(template, dict) else template


def _nested_items(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _nested_items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nested_items(inner)


def _holds_no_text(value: object) -> bool:
    """Whether a JSON value is made of numbers, true, false and null only."""
    if isinstance(value, dict):
        return all(map(_holds_no_text, value.values()))
    if isinstance(value, list):
        return all(map(_holds_no_text, value))
    return not isinstance(value, str)

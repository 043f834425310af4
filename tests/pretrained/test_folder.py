"""What other packages read of a published folder is data: no door leads to code or other files."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer, modeling_utils

from alignpro_lite.errors import ExportError
from alignpro_lite.export.target import export_target
from alignpro_lite.pretrained import gguf_tokenizer
from alignpro_lite.pretrained.folder import lone_file, readable_folder
from alignpro_lite.pretrained.torch_model import load_torch_model
from tests.support import DATA
from tests.support.tiny_models import configurations, write_adapter, write_model

EVIL = 'raise SystemExit("this ran")\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("made") / "model", configurations()["llama"])


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture(autouse=True)
def _no_kernel_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(name: str) -> None:
        pytest.fail(f"the kernel {name} was asked for")

    monkeypatch.setattr(modeling_utils, "load_and_register_kernel", ask)


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | values), "utf-8")


def shown(folder: Path, name: str) -> dict[str, Any]:
    with readable_folder(folder) as view:
        content: dict[str, Any] = json.loads((view / name).read_text("utf-8"))
        return content


@pytest.mark.parametrize(
    "values",
    [
        {"_attn_implementation": "some/kernel"},
        {"_attn_implementation": "some/kernel@main:attention"},
        {"_attn_implementation": {"": "some/kernel"}},
        {"_attn_implementation_internal": "some/kernel"},
        {"attn_implementation": "some/kernel"},
        {"attn_implementation": "evil"},
        {"experts_implementation": "some/kernel"},
        {"text_config": {"_attn_implementation": "some/kernel"}},
        {"layers": [{"deep": {"attn_implementation": "some/kernel"}}]},
        {"rope_scaling": {"auto_map": {"AutoModel": "evil.Model"}}},
        {"kernel_config": {"RMSNorm": "some/kernel"}},
        {"hub_kernels": ["some/kernel"]},
        {"custom_generate": "some/repository"},
    ],
    ids=str,
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_configuration_that_names_code_is_refused(
    values: dict[str, Any], file: str, model: Path
) -> None:
    """Regression: transformers asked the hub for the kernel of `_attn_implementation`."""
    change(model / file, **values)
    with pytest.raises(ExportError, match="names code to run"):
        load_torch_model(model)


@pytest.mark.parametrize("name", ["eager", "sdpa", "flash_attention_2", "flex_attention"])
def test_attention_of_transformers_itself_is_no_code(name: str, model: Path) -> None:
    """Published models name the attention that they were trained with."""
    change(model / "config.json", _attn_implementation=name, attn_implementation=name)
    found = shown(model, "config.json")
    assert found.get("_attn_implementation") == (name if name in ("eager", "sdpa") else None)
    load_torch_model(model)


def test_only_what_is_known_to_be_data_is_shown(model: Path) -> None:
    notes: dict[str, Any] = {
        "_name_or_path": "somebody/model",
        "unsloth_version": "2026.1",
        "transformers.js_config": {"use_external_data_format": True, "dtype": "q4"},
        "configuration_files": ["config.9.9.9.json"],
        "a_later_invention": "evil.Model",
    }
    data = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "a_number": [1, {"b": None}]}
    before = shown(model, "config.json")
    change(model / "config.json", **notes, **data)
    assert shown(model, "config.json") == before | data
    assert load_torch_model(model).model.config.rope_scaling["factor"] == 2.0


def test_configurations_inside_a_configuration_are_filtered_too(tmp_path: Path) -> None:
    from transformers import Gemma3Config

    text = configurations()["gemma3"].to_dict()
    config = Gemma3Config(text_config=text).to_dict() | {"architectures": ["X"]}
    config["text_config"]["note"] = "evil.Model"
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    (tmp_path / "model.safetensors").touch()
    found = shown(tmp_path, "config.json")["text_config"]
    assert found["hidden_activation"] == "gelu_pytorch_tanh"
    assert found["layer_types"] == config["text_config"]["layer_types"]
    assert "note" not in found


def test_a_tokenizer_reads_no_other_file_and_takes_no_other_argument(model: Path) -> None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        change(
            model / file,
            tokenizer_file="/no/such/file",
            fast_tokenizer_files=["tokenizer.9.9.json"],
            init_inputs=["evil"],
            vocab_file="/no/such/file",
            name_or_path="somebody/model",
        )
    kept = shown(model, "tokenizer_config.json")
    assert kept["eos_token"] == "<|im_end|>"
    assert not kept.keys() & {"tokenizer_file", "init_inputs", "vocab_file", "name_or_path"}
    assert load_torch_model(model).tokenizer.get_vocab_size() == 384


def test_files_that_are_no_data_are_not_shown(model: Path, tmp_path: Path) -> None:
    for name in ("modeling_llama.py", "sitecustomize.py", "pytorch_model.bin", "config.9.9.9.json"):
        (model / name).write_text(EVIL)
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(EVIL)
    with readable_folder(model) as view:
        names = {path.name for path in view.iterdir()}
        assert view.name == "model", "llama.cpp names a model by its folder"
    assert names == {
        path.name for path in model.iterdir() if path.suffix in (".json", ".safetensors", ".jinja")
    } - {"config.9.9.9.json"}
    load_torch_model(model)


def test_an_adapter_beside_a_model_does_not_send_the_reader_elsewhere(
    model: Path, tmp_path: Path
) -> None:
    """Regression: transformers read the base that adapter_config.json names, unchecked."""
    other = write_model(tmp_path / "other", configurations()["llama"], seed=9)
    write_adapter(model, other)
    change(model / "adapter_config.json", base_model_name_or_path=str(other))
    weights = load_torch_model(model).model.state_dict()["model.embed_tokens.weight"]
    assert weights.equal(load_file(model / "model.safetensors")["model.embed_tokens.weight"])


def test_nothing_beside_a_gguf_file_is_read(tmp_path: Path) -> None:
    shutil.copy(DATA / "tiny.gguf", tmp_path / "a.gguf")
    for name in ("config.json", "adapter_config.json", "generation_config.json"):
        (tmp_path / name).write_text('{"base_model_name_or_path": "somebody/model"}')
    with lone_file(tmp_path / "a.gguf") as view:
        assert [path.name for path in view.iterdir()] == ["a.gguf"]
    load_torch_model(tmp_path / "a.gguf")


def test_nothing_beside_a_gguf_file_is_read_for_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: transformers read a tokenizer_config.json that lay beside the file."""
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "a.gguf").touch()
    seen: list[str] = []

    class Reader:
        backend_tokenizer = None

        def __init__(self, folder: Path) -> None:
            seen.extend(path.name for path in folder.iterdir())

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda folder, **_: Reader(folder))
    gguf_tokenizer._derived_by_transformers(tmp_path / "a.gguf")
    assert seen == ["a.gguf"]


@pytest.mark.parametrize(
    "shard",
    [
        *("evil.bin", "../model.safetensors", "/tmp/model.safetensors"),
        *(".safetensors", "\0.safetensors", ["model.safetensors"], {}, None, 5, True),
    ],
)
def test_an_index_names_safetensors_of_its_folder_only(shard: Any, model: Path) -> None:
    """Regression: a shard of another kind was read with torch.load; no text was a TypeError."""
    names = load_file(model / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ExportError, match="beside it"):
        load_torch_model(model)


@pytest.mark.parametrize(
    "value", [5, True, 1.5, {}, [["x"]], [{}], [None], "LlamaForCausalLM", None]
)
def test_architectures_that_are_no_list_of_names_are_not_the_tested_ones(
    value: Any, model: Path
) -> None:
    """Numbers and lists in lists were a TypeError."""
    change(model / "config.json", architectures=value, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ExportError, match="names code to run"), readable_folder(model):
        pass


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("nesting", ["list", "table"])
def test_a_configuration_that_is_deeply_nested_is_refused(
    name: str, nesting: str, model: Path
) -> None:
    """What json reads without a word was a RecursionError later."""
    value: Any = 1
    for _ in range(700):
        value = [value] if nesting == "list" else {"a": value}
    change(model / name, added=value)
    with pytest.raises(ExportError, match="nested more than 100 deep"), readable_folder(model):
        pass


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("ids", [[[1]], -1, [2, None, -5], {}, True, 1.5])
def test_ends_of_a_text_that_are_no_ids_are_refused(name: str, ids: Any, model: Path) -> None:
    """Some were a TypeError."""
    change(model / name, eos_token_id=ids)
    with pytest.raises(ExportError):
        load_torch_model(model)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "tokenizer.json",
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        ),
        ("tokenizer_config.json", {"model_input_names": 5}),
    ],
)
def test_a_tokenizer_that_fails_is_an_error_of_its_folder(
    name: str, values: dict[str, Any], model: Path
) -> None:
    """A panic of Rust, which is no `Exception`, and a TypeError."""
    change(model / name, **values)
    with pytest.raises(ExportError, match="cannot be loaded"):
        load_torch_model(model)


def test_a_model_of_transformers_5_is_refused_and_not_read_with_other_positions(
    model: Path,
) -> None:
    """Its rope_parameters are no parameter of the installed version, which would say nothing."""
    change(model / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    with pytest.raises(ExportError, match="saved by transformers 5"):
        load_torch_model(model)


@pytest.mark.parametrize("nested", [False, True])
def test_quantised_weights_are_refused(nested: bool, model: Path) -> None:
    quantised = {"quantization_config": {"quant_method": "awq"}}
    change(model / "config.json", **({"text_config": quantised} if nested else quantised))
    with pytest.raises(ExportError, match="quantised already"):
        load_torch_model(model)


def test_converters_import_nothing_from_the_current_folder_or_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a hashlib.py beside a downloaded model was run by the converter."""
    for place in (tmp_path, model):
        for name in ("hashlib", "json", "gguf", "conversion", "sitecustomize"):
            (place / f"{name}.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "hashlib.py"))
    export_target(model, tmp_path / "model.gguf", "F32")
    assert (tmp_path / "model.gguf").is_file()


def test_a_large_vocabulary_of_another_family_is_no_fault_of_mistrals(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every export from a Qwen folder warned that its tokenizer is wrong; it is not."""
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words |= {f"word{number}": len(words) + number for number in range(100_001)}
    file.write_text(json.dumps(tokenizer), "utf-8")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    load_torch_model(model)
    assert "regex" not in caplog.text

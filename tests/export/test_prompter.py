"""The prompter export: every architecture agrees with torch, bad input is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from alignpro_lite.decoding.ort import open_session
from alignpro_lite.errors import ExportError
from alignpro_lite.export import decoder
from alignpro_lite.export.decoder import export_decoder
from alignpro_lite.export.logits import OnnxLogits
from alignpro_lite.export.low_rank import GATE
from alignpro_lite.export.parity import MIN_POSITIONS
from alignpro_lite.export.target import export_target
from alignpro_lite.gguf import pretokenizers
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.bundle import Graph
from alignpro_lite.prompter.card import MadeDecoder
from alignpro_lite.registry.entries import Precision
from tests.support.tiny_models import (
    BOS,
    CHAT_TEMPLATE,
    EOS,
    SENTENCES,
    SPECIAL_TOKENS,
    configurations,
    unfused_configuration,
    write_adapter,
    write_model,
)

pytestmark = pytest.mark.usefixtures("forked_converters")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama") / "model", configurations()["llama"])


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A copy of the llama folder that a test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def export(
    source: Path,
    out: Path,
    precision: Precision = "fp32",
    adapter: Path | None = None,
    allow_mismatch: bool = False,
) -> MadeDecoder:
    out.mkdir(exist_ok=True)
    return export_decoder(source, adapter, precision, "cpu", out, allow_mismatch)


@pytest.mark.parametrize("name", configurations())
def test_fp32_graph_of_every_architecture_equals_torch(name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", configurations()[name])
    result = export(folder, tmp_path / "out")
    assert result.graph.cache == "shared"
    assert result.parity.positions >= MIN_POSITIONS
    assert result.parity.argmax_agreement >= 0.999
    assert result.parity.max_logit_error < 1e-3
    assert result.parity.greedy_agreement == 1
    assert result.tokens.bos is None  # the tokenizer adds none
    assert result.tokens.names["bos_token"] == SPECIAL_TOKENS[BOS]
    assert result.tokens.stop == (EOS, BOS)
    assert result.tokens.chat_template == CHAT_TEMPLATE
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_graph_passes_where_the_weights_allow_it(
    precision: Precision, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model", configurations()["gemma3"])
    result = export(folder, tmp_path / "out", precision)
    assert result.parity.argmax_agreement >= result.parity.required
    assert not result.parity.mismatch_allowed
    operators = [
        node.op_type for node in onnx.load(tmp_path / "out" / result.graph.file).graph.node
    ]
    assert "MatMulNBits" in operators
    assert "GroupQueryAttention" in operators


def test_other_architectures_fall_back_to_a_growing_cache(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", unfused_configuration())
    result = export(folder, tmp_path / "out")
    assert result.graph.cache == "growing"
    assert result.parity.max_logit_error < 1e-3
    assert result.parity.greedy_agreement == 1


def test_half_precision_graph_has_a_half_precision_cache(llama: Path, tmp_path: Path) -> None:
    result = export(llama, tmp_path / "out", "fp16")
    assert result.graph.io_dtype == "float16"
    assert result.parity.argmax_agreement >= result.parity.required


def test_a_mismatch_is_refused_by_how_much_and_can_be_allowed(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"disagrees with torch by .*% too much") as refused:
        export(llama, tmp_path / "refused", "int4")
    assert "--precision int8" in refused.value.cure
    assert "--allow-mismatch" in refused.value.cure
    allowed = export(llama, tmp_path / "allowed", "int4", allow_mismatch=True)
    assert allowed.parity.mismatch_allowed
    assert allowed.parity.argmax_agreement < 0.95


@pytest.fixture(scope="module")
def adapted(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph]:
    """The llama folder exported in fp32 with an adapter: the graph and its description."""
    work = tmp_path_factory.mktemp("adapted")
    result = export(llama, work / "out", adapter=write_adapter(work / "adapter", llama))
    assert result.parity.max_logit_error < 1e-3
    return work / "out" / result.graph.file, result.graph


def test_an_adapter_is_merged(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama)
    plain = load_torch_model(llama).model.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    adapted = merge_adapter(load_torch_model(llama), adapter).model.state_dict()
    assert not plain.equal(adapted["model.layers.0.self_attn.q_proj.weight"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_adapter_on_embedding_and_head_is_what_the_graph_computes(
    precision: Precision, llama: Path, tmp_path: Path
) -> None:
    """Regression: accepted with none of the adapter's tokens, since parity compared the graph with
    the model after our own merge, which had changed the tied head too."""
    modules = ["embed_tokens", "lm_head", "q_proj"]
    adapter = write_adapter(tmp_path / "adapter", llama, modules=modules)
    result = export(llama, tmp_path / "out", precision, adapter, allow_mismatch=True)
    base = AutoModelForCausalLM.from_pretrained(llama)
    adapted = PeftModel.from_pretrained(base, str(adapter)).eval()
    ids = np.arange(0, 384, 3)
    with torch.inference_mode():
        expected = adapted(torch.from_numpy(ids)[None]).logits[0].numpy()
    session = open_session(tmp_path / "out" / result.graph.file, threads=1, cure="")
    found = OnnxLogits(session, result.graph).logits(ids)
    loss = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert loss < (1e-4 if precision == "fp32" else 0.1)
    assert result.parity.argmax_agreement > (0.999 if precision == "fp32" else 0.9)


def test_parity_compares_with_the_adapter_before_it_is_merged(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama)
    monkeypatch.setattr(decoder, "merge_attached", lambda adapted: adapted.unload())
    with pytest.raises(ExportError, match="disagrees with torch"):
        export(llama, tmp_path / "out", adapter=adapter)


def test_an_adapter_of_another_model_is_refused(llama: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", configurations()["qwen3"])
    adapter = write_adapter(tmp_path / "adapter", other)
    with pytest.raises(ExportError):
        merge_adapter(load_torch_model(llama), adapter)


def test_a_gguf_source_gives_its_own_tokens_and_the_same_graph(llama: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    export_target(llama, gguf, "F32")
    result = export(gguf, tmp_path / "out")
    assert result.tokens.stop[0] == EOS
    assert result.tokens.chat_template == CHAT_TEMPLATE
    assert result.parity.max_logit_error < 1e-3
    original = Tokenizer.from_file(str(llama / "tokenizer.json"))
    rebuilt = Tokenizer.from_file(str(tmp_path / "out" / result.tokens.file))
    for text in (*SENTENCES, "<|im_start|>user\nhi<|im_end|>\n", "  12 345\r\n\t😀é"):
        assert rebuilt.encode(text).ids == original.encode(text).ids
        assert rebuilt.decode(rebuilt.encode(text).ids) == original.decode(
            original.encode(text).ids
        )


def test_rows_of_different_lengths_decode_as_each_row_alone(adapted: tuple[Path, Graph]) -> None:
    file, graph = adapted
    session = open_session(file, threads=1, cure="")
    exported = OnnxLogits(session, graph)
    rows = [np.arange(10, 10 + length) for length in (5, 9, 2)]
    total = max(len(row) for row in rows)
    ids = np.zeros((3, total), np.int64)
    mask = np.zeros((3, total), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    feeds = {"input_ids": ids, "attention_mask": mask, GATE: np.ones(1, np.float32)}
    shape = (3, graph.kv_heads, 32, graph.head_dim)
    names = [entry.name for entry in session.get_inputs() if "past" in entry.name]
    feeds.update({name: np.zeros(shape, np.float32) for name in names})
    batch = session.run(["logits"], feeds)[0]
    for index, row in enumerate(rows):
        alone = exported.logits(row)
        np.testing.assert_allclose(batch[index, : len(row)], alone, atol=1e-4)


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_a_configuration_that_names_code_is_refused(copy: Path, key: str) -> None:
    path = copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "text_config": {key: {"AutoModel": "evil.Model"}}}))
    with pytest.raises(ExportError, match=key):
        load_torch_model(copy)


def test_published_code_of_a_built_in_architecture_is_left_out(copy: Path) -> None:
    """Regression: Phi-3.5-mini-instruct names code that transformers no longer needs."""
    path = copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (copy / "evil.py").write_text("raise SystemExit('this ran')")
    assert load_torch_model(copy).model.config.architectures == config["architectures"]
    path.write_text(json.dumps({**config, "architectures": ["Evil"], "auto_map": {"A": "b.C"}}))
    with pytest.raises(ExportError, match="auto_map"):
        load_torch_model(copy)


def test_code_named_by_the_tokenizer_is_refused(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {}}))
    with pytest.raises(ExportError, match="auto_map"):
        load_torch_model(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ExportError, match="safetensors"):
        load_torch_model(copy)


def test_truncated_weights_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ExportError, match="cannot be loaded"):
        load_torch_model(copy)


def test_missing_tensors_are_refused_and_not_filled_with_noise(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(ExportError, match="lacks 9 tensors"):
        load_torch_model(copy)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all", b"GGUF\x03" + bytes(99)])
def test_a_foreign_or_truncated_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ExportError):
        load_torch_model(path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found nothing"):
        load_torch_model(tmp_path / "absent")


def test_a_broken_config_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(ExportError, match="not valid JSON"):
        load_torch_model(copy)


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_splitting_rules_are_recognised_from_tokenizer_json(name: str) -> None:
    rule = pretokenizers.pre_tokenizer(name)
    assert rule is not None
    assert pretokenizers.rule_name(json.loads(rule.__getstate__())) == name


def test_an_unknown_splitting_rule_has_no_name() -> None:
    assert pretokenizers.pre_tokenizer("made-up") is None
    assert pretokenizers.rule_name({"type": "Whitespace"}) is None
    assert pretokenizers.rule_name(None) is None

"""Every adapter that peft reads is merged to what peft computes, or refused for a true reason."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    TrainableTokensConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignpro_lite.errors import ExportError
from alignpro_lite.pretrained import merging
from alignpro_lite.pretrained.merging import attach_adapter
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from tests.support.tiny_models import configurations, write_model

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TEXT = torch.arange(0, 384, 3)[None]

LORA: dict[str, dict[str, Any]] = {
    "plain": {},
    "head saved": {"modules_to_save": ["lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norms saved": {"modules_to_save": ["norm", "input_layernorm"]},
    "lora on the head": {"target_modules": ["q_proj", "lm_head"]},
    "lora on the embedding": {"target_modules": ["embed_tokens"]},
    "lora on both": {"target_modules": ["embed_tokens", "lm_head", "up_proj"]},
    "lora on both, kept tied": {
        "target_modules": ["embed_tokens", "lm_head"],
        "ensure_weight_tying": True,
    },
    "saved and kept tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "lora on the embedding, head saved": {
        "target_modules": ["embed_tokens", "v_proj"],
        "modules_to_save": ["lm_head"],
    },
    "trainable tokens": {"trainable_token_indices": [3, 6, 90]},
    "dora": {"use_dora": True},
    "dora on the embedding": {"use_dora": True, "target_modules": ["embed_tokens", "o_proj"]},
    "rslora": {"use_rslora": True, "r": 8},
    "some layers": {"layers_to_transform": [1]},
    "ranks by pattern": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.0.*q_proj": 32}},
    "a regular expression": {"target_modules": r".*\.1\..*(q|down)_proj"},
    "all linear layers": {"target_modules": "all-linear"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


def write(folder: Path, base: Path, config: PeftConfig) -> Path:
    """Write an adapter whose every trained number differs from the base's."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        adapted.save_pretrained(str(folder))
    return folder


def lora(**settings: Any) -> LoraConfig:
    usual: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    return LoraConfig(**usual | {"task_type": "CAUSAL_LM"} | settings)


def as_peft_runs_it(base: Path, adapter: Path) -> Tensor:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
        return model.eval()(TEXT).logits


def merged(base: Path, adapter: Path, work: Path) -> Tensor:
    """Logits of the merged model after it was written and read again, as converters read it."""
    merge_adapter(load_torch_model(base), adapter).save_folder(work)
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(work).eval()(TEXT).logits


def requires_equal(base: Path, adapter: Path, work: Path) -> None:
    expected, plain = as_peft_runs_it(base, adapter), as_it_is(base)
    assert (expected - plain).norm() > 1e-2 * plain.norm(), "the adapter has to do something"
    assert (merged(base, adapter, work) - expected).norm() < 1e-4 * expected.norm()


@cache
def as_it_is(base: Path) -> Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(base).eval()(TEXT).logits


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tied model, a tied one with biases, and an untied one."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: write_model(folder / name, configurations()[name])
        for name in ("llama", "qwen2", "qwen3")
    }


TIED, UNTIED = "llama", "qwen3"
CASES = [(TIED, name) for name in LORA] + [
    (UNTIED, name) for name in ("both saved", "lora on the head", "lora on both", "dora")
]


@pytest.mark.parametrize(("base", "name"), CASES)
def test_a_lora_adapter_is_merged_as_peft_runs_it(
    base: str, name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """Regression: saved modules and LoRA on the head were refused; on a tied embedding LoRA was
    merged into the head as well."""
    adapter = write(tmp_path / "adapter", bases[base], lora(**LORA[name]))
    requires_equal(bases[base], adapter, tmp_path / "merged")


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_merged(bias: Any, bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", bases["qwen2"], lora(bias=bias))
    requires_equal(bases["qwen2"], adapter, tmp_path / "merged")


@pytest.mark.parametrize(
    "config",
    [
        AdaLoraConfig(target_modules=["q_proj"], total_step=10, init_r=4, target_r=2),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        LoHaConfig(target_modules=["q_proj"], r=4),
        LoKrConfig(target_modules=["q_proj"], r=4),
        OFTConfig(target_modules=["q_proj"], oft_block_size=8),
        BOFTConfig(target_modules=["q_proj"], boft_block_size=4),
        TrainableTokensConfig(token_indices=[3, 6, 90]),
    ],
    ids=lambda config: str(config.peft_type.value),
)
def test_other_kinds_of_adapter_are_merged_as_peft_runs_them(
    config: PeftConfig, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], config)
    requires_equal(bases["llama"], adapter, tmp_path / "merged")


def test_weights_stored_transposed_are_merged(tmp_path: Path) -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=384, n_embd=64, n_layer=2, n_head=4, n_positions=512)
    base = write_model(tmp_path / "base", config)
    adapter = write(
        tmp_path / "adapter", base, lora(target_modules=["c_attn"], fan_in_fan_out=True)
    )
    requires_equal(base, adapter, tmp_path / "merged")


def test_models_without_a_largest_position_are_merged(tmp_path: Path) -> None:
    """Regression: an AttributeError, as BLOOM and MPT have no such setting."""
    from transformers import BloomConfig

    config = BloomConfig(vocab_size=384, hidden_size=64, n_head=4, initializer_range=0.2)
    base = write_model(tmp_path / "base", config)
    adapter = write(tmp_path / "adapter", base, lora(target_modules=["query_key_value"]))
    requires_equal(base, adapter, tmp_path / "merged")


def test_an_embedding_that_is_left_alone_stays_tied(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora())
    model: Any = merge_adapter(load_torch_model(bases["llama"]), adapter).model
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: name.removeprefix("base_model.model."),
        lambda name: f"base_model.model.{name}",
        lambda name: name.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
        lambda name: name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.mine."),
        lambda name: name.replace("lm_head.", "lm_head.modules_to_save.default."),
    ],
    ids=["ddp", "compile", "no prefix", "prefix twice", "fsdp", "adapter's name", "saved module"],
)
def test_names_that_other_tools_give_tensors_are_understood(
    renamed: Any, bases: dict[str, Path], tmp_path: Path
) -> None:
    settings = lora(modules_to_save=["lm_head"])
    adapter = write(tmp_path / "adapter", bases["llama"], settings)
    expected = as_peft_runs_it(bases["llama"], adapter)
    tensors = load_file(adapter / WEIGHTS)
    assert {renamed(name) for name in tensors} != set(tensors)
    save_file({renamed(name): value for name, value in tensors.items()}, adapter / WEIGHTS)
    found = merged(bases["llama"], adapter, tmp_path / "merged")
    assert (found - expected).norm() < 1e-4 * expected.norm()


def set_config(adapter: Path, **settings: Any) -> None:
    path = adapter / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def set_tensors(adapter: Path, change: Any) -> None:
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # Regression: of these only "Error(s) in loading state_dict" was left.
        (lambda found: found | {FIRST: torch.ones(4, 32)}, r"lora_A.*\[4, 32\].*\[4, 64\]"),
        (lambda found: found | {FIRST: torch.ones(8, 64)}, r"size mismatch for .*layers\.0"),
        (lambda found: found | {FIRST: torch.ones(1)}, r"\[1\]"),
        (lambda found: {name: found[name] for name in found if name != FIRST}, f"lacks.*{FIRST}"),
        (lambda found: found | {"model.layers.9.x": torch.ones(1)}, r"1 tensors.*layers\.9\.x"),
        (lambda found: {}, "lacks 8 tensors"),
    ],
    ids=["width", "rank", "no matrix", "lacking", "unknown", "empty"],
)
def test_an_adapter_of_another_base_is_refused_by_what_differs(
    change: Any, said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora())
    set_tensors(adapter, change)
    with pytest.raises(ExportError, match=said) as refused:
        merge_adapter(load_torch_model(bases["llama"]), adapter)
    assert len(refused.value.problem) < 1200
    assert "\n" not in str(refused.value)


def test_an_adapter_with_a_larger_vocabulary_is_refused_by_both_sizes(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora(modules_to_save=["embed_tokens"]))
    name = "base_model.model.model.embed_tokens.weight"
    set_tensors(adapter, lambda found: found | {name: torch.ones(385, 64)})
    with pytest.raises(ExportError, match=r"embed_tokens.*\[385, 64\].*\[384, 64\]"):
        merge_adapter(load_torch_model(bases["llama"]), adapter)


def test_what_merging_changes_is_refused(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the exported graph was compared with our own merge, which was wrong."""
    adapter = write(tmp_path / "adapter", bases["llama"], lora(target_modules=["embed_tokens"]))
    monkeypatch.setattr(merging, "_untie", lambda model: None)
    with pytest.raises(ExportError, match="Merging the adapter changes what it does"):
        merge_adapter(load_torch_model(bases["llama"]), adapter)


def test_weights_that_are_not_numbers_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora())
    set_tensors(adapter, lambda found: found | {FIRST: torch.full((4, 64), torch.nan)})
    with pytest.raises(ExportError, match=r"cannot be merged.*NaNs"):
        merge_adapter(load_torch_model(bases["llama"]), adapter)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"megatron_config": {"a": 1}, "megatron_core": "hashlib"}, "megatron_config"),
        ({"a_later_invention": True}, "a_later_invention"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"peft_type": "XLORA", "adapters": {"0": "/tmp/x"}}, "XLORA"),
        ({"peft_type": None}, "peft_type"),
        ({"peft_type": ["LORA"]}, "peft_type"),
        ({"r": 0}, "positive"),
        ({"target_modules": ["no_such_module"]}, "no_such_module"),
        ({"target_modules": "("}, "does not fit|cannot be used"),
        ({"lora_bias": True}, "lora_bias|bias"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_its_name(
    settings: dict[str, Any], said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora())
    set_config(adapter, **settings)
    with pytest.raises(ExportError, match=said):
        attach_adapter(load_torch_model(bases["llama"]).model, adapter)


def test_prefixes_that_are_learned_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = write(tmp_path / "adapter", bases["llama"], config)
    with pytest.raises(ExportError, match="PREFIX_TUNING"):
        attach_adapter(load_torch_model(bases["llama"]).model, adapter)


def test_where_an_adapter_came_from_is_not_read(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", bases["llama"], lora())
    set_config(
        adapter,
        base_model_name_or_path="/no/such/folder",
        revision="main",
        auto_mapping={"parent_library": "evil", "base_model_class": "Evil"},
        megatron_core="evil.core",
        corda_config={"cache_file": "/no/such/file"},
    )
    requires_equal(bases["llama"], adapter, tmp_path / "merged")

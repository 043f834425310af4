"""How long a context is without --ctx, what --ctx means, and what both take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Accelerator, DeviceRequest, LlamaDevices
from alignpro_lite.hardware.memory import MIN_MARGIN, TargetNeeds
from alignpro_lite.hardware.plan import Plan, PlanningCase
from alignpro_lite.hardware.planner import make_plan
from alignpro_lite.hardware.system import Hardware, Ram
from tests.support import gguf_writer

GIB = 1 << 30
MIB = 1 << 20
LAPTOP_RAM = Ram(16 * GIB, 12 * GIB)

SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "n_layers": 30,
        "embedding": 576,
        "feed_forward": 1536,
        "n_head": 9,
        "n_head_kv": 3,
        "vocab": 49152,
        "context": 8192,
        "matrix_type": "Q4_1",
        "embedding_type": "Q8_0",
    },
    "Qwen2.5-0.5B": {
        "n_layers": 24,
        "embedding": 896,
        "feed_forward": 4864,
        "n_head": 14,
        "n_head_kv": 2,
        "vocab": 151936,
        "context": 32768,
        "matrix_type": "Q5_0",
        "embedding_type": "Q8_0",
    },
    "Qwen2.5-1.5B": {
        "n_layers": 28,
        "embedding": 1536,
        "feed_forward": 8960,
        "n_head": 12,
        "n_head_kv": 2,
        "vocab": 151936,
        "context": 32768,
        "matrix_type": "Q4_K",
        "embedding_type": "Q6_K",
    },
    "Llama-3.1-8B": {
        "n_layers": 32,
        "embedding": 4096,
        "feed_forward": 14336,
        "n_head": 32,
        "n_head_kv": 8,
        "vocab": 128256,
        "context": 131072,
        "matrix_type": "Q4_K",
        "embedding_type": "Q4_K",
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GgufFile]:
    folder = tmp_path_factory.mktemp("models")
    files = {}
    for name, shape in SHAPES.items():
        metadata, tensors = gguf_writer.decoder(name=name, output_type=None, **shape)
        files[name] = read_header(gguf_writer.write(folder / f"{name}.gguf", metadata, tensors))
    return files


def plan(
    model: GgufFile,
    *,
    ctx: int | None = None,
    ram: Ram = LAPTOP_RAM,
    gpu: Accelerator | None = None,
    conversations: int = 1,
) -> Plan:
    devices = LlamaDevices(("CPU",), (gpu,) if gpu else ())
    target = TargetNeeds(model, devices, 256, 16)
    request = DeviceRequest(ctx=ctx, conversations=conversations)
    case = PlanningCase(request, target, None, Hardware((), ram, 4))
    return make_plan(case)


@pytest.mark.parametrize(
    ("name", "context", "token_bytes"),
    [
        ("SmolLM2-135M", 2048, 23_040),
        ("Qwen2.5-0.5B", 4096, 12_288),
        ("Qwen2.5-1.5B", 4096, 28_672),
        ("Llama-3.1-8B", 4096, 131_072),
    ],
)
def test_the_context_in_ram_takes_a_small_part_of_the_weights(
    models: dict[str, GgufFile], name: str, context: int, token_bytes: int
) -> None:
    """Regression: 2,048 tokens for all sequences, whatever the model, hardly held eight answers."""
    made = plan(models[name])
    assert (made.context, made.longest) == (context, context)
    assert made.kv_bytes == token_bytes * context


@pytest.mark.parametrize(("name", "alone"), [("SmolLM2-135M", 2048), ("Qwen2.5-1.5B", 4096)])
def test_conversations_that_run_together_have_room_beside_each_other(
    models: dict[str, GgufFile], name: str, alone: int
) -> None:
    """Regression: a server for eight requests decoded three, because each keeps room to answer."""
    contexts = [plan(models[name], conversations=count).context for count in (1, 4, 8, 16, 64)]
    assert contexts == [alone, 4096, 8192, 16384, 16384]
    short = Ram(2 * GIB, GIB // 2)
    assert plan(models[name], conversations=16, ram=short).context < 16384


def test_a_gpu_of_its_own_is_filled_by_half(models: dict[str, GgufFile]) -> None:
    llama = models["Llama-3.1-8B"]
    contexts = []
    for gib in (4.8, 6, 8, 10, 24):
        gpu = Accelerator("CUDA0", "GPU", int(gib * GIB), int(gib * GIB))
        made = plan(llama, gpu=gpu)
        assert made.n_gpu_layers == 33
        contexts.append(made.context)
    assert contexts == [2048, 4096, 8192, 16384, 16384]


def test_shared_memory_counts_as_ram(models: dict[str, GgufFile]) -> None:
    gpu = Accelerator("MTL0", "Apple M2", 11 * GIB, 11 * GIB, shares_ram=True)
    assert plan(models["Qwen2.5-1.5B"], gpu=gpu).context == 4096


def test_a_machine_with_2_gb_holds_the_small_model(models: dict[str, GgufFile]) -> None:
    made = plan(models["SmolLM2-135M"], ram=Ram(2 * GIB, GIB))
    assert (made.context, made.notes[1:]) == (2048, ())
    assert made.on_cpu.allocated_bytes < 64 * MIB


@pytest.mark.parametrize("context", [512, 1024, 2048, 3000, 8192])
def test_ctx_is_what_one_conversation_gets(models: dict[str, GgufFile], context: int) -> None:
    made = plan(models["Qwen2.5-0.5B"], ctx=context)
    assert made.longest == context
    assert made.context == max(context, 4096)


def test_ctx_is_not_grown_beyond_what_all_sequences_can_fill(models: dict[str, GgufFile]) -> None:
    made = plan(models["Qwen2.5-0.5B"], ctx=100)
    assert (made.longest, made.context) == (100, 1024)


def test_ctx_is_kept_where_more_does_not_fit(models: dict[str, GgufFile]) -> None:
    made = plan(models["Qwen2.5-0.5B"], ctx=1024, ram=Ram(GIB, MIN_MARGIN + 64 * MIB))
    assert (made.longest, made.context) == (1024, 1024)


def test_no_conversation_is_longer_than_the_model_was_trained_for(
    models: dict[str, GgufFile],
) -> None:
    qwen = models["Qwen2.5-0.5B"]
    short = replace(qwen, metadata={**qwen.metadata, "llama.context_length": 1000})
    made = plan(short)
    assert (made.longest, made.context) == (1000, 4096)


def test_more_ram_gives_at_least_as_much_context(models: dict[str, GgufFile]) -> None:
    for model in models.values():
        rams = [Ram(64 * GIB, MIN_MARGIN + size * MIB) for size in (150, 200, 300, 700, 4000)]
        contexts = [plan(model, ram=ram).context for ram in rams]
        assert contexts == sorted(contexts)


# Weights in RAM


def test_weights_are_read_where_a_mapped_copy_would_be_a_second_one(
    models: dict[str, GgufFile], tmp_path: Path
) -> None:
    """Regression: 1.1 GB of weights took 1.8 GB, and the plan said that a file backed them all."""
    assert not plan(models["Qwen2.5-1.5B"]).mapped
    shape = {**SHAPES["SmolLM2-135M"], "matrix_type": "F16"}
    half = gguf_writer.decoder(name="half", output_type=None, **shape)
    assert plan(read_header(gguf_writer.write(tmp_path / "half.gguf", *half))).mapped


def test_weights_stay_mapped_where_memory_is_short(models: dict[str, GgufFile]) -> None:
    short = plan(models["Qwen2.5-1.5B"], ram=Ram(2 * GIB, 700 * MIB))
    assert short.mapped
    assert "read from disk again" in short.notes[-1]


def test_a_gpu_that_shares_the_memory_computes_with_mapped_weights(
    models: dict[str, GgufFile],
) -> None:
    shared = Accelerator("MTL0", "Apple M2", 11 * GIB, 11 * GIB, shares_ram=True)
    assert plan(models["Qwen2.5-1.5B"], gpu=shared).mapped
    assert not plan(models["Qwen2.5-1.5B"], gpu=replace(shared, shares_ram=False)).mapped


# Headers whose layers differ


def header(models: dict[str, GgufFile], **metadata: Any) -> GgufFile:
    model = models["Llama-3.1-8B"]
    named = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return replace(model, metadata={**model.metadata, **named})


def kv(model: GgufFile) -> int:
    return TargetNeeds(model, LlamaDevices(("CPU",), ())).kv_token_bytes


def test_layers_with_a_window_may_have_heads_of_another_width(models: dict[str, GgufFile]) -> None:
    """Gemma 4: five local layers of narrow heads to one global layer of wide ones."""
    pattern = (*([True] * 5), False) * 5 + (True, False)
    lengths = {"attention__key_length": 512, "attention__value_length": 512}
    local = {"attention__key_length_swa": 256, "attention__value_length_swa": 256}
    known = header(models, attention__sliding_window_pattern=pattern, **lengths, **local)
    assert kv(known) == 2 * 8 * (26 * 512 + 6 * 1024)
    assert kv(header(models, **lengths, **local)) == 2 * 8 * 32 * 1024


def test_layers_that_use_the_cache_of_another_have_none(models: dict[str, GgufFile]) -> None:
    assert kv(header(models, attention__shared_kv_layers=12)) == 2 * 8 * 20 * 256


def test_latent_attention_stores_keys_alone(models: dict[str, GgufFile]) -> None:
    latent = header(
        models,
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert kv(latent) == 2 * 576 * 32


def test_a_context_is_not_grown_into_factors_for_long_texts(
    tmp_path: Path,
) -> None:
    """llama.cpp would rotate short prompts of Phi-3.5 with the factors for long ones."""
    metadata, tensors = gguf_writer.decoder(
        name="longrope", output_type=None, **{**SHAPES["Llama-3.1-8B"], "n_layers": 4}
    )
    metadata["llama.rope.scaling.original_context_length"] = 4096
    tensors.append(gguf_writer.TensorSpec("rope_factors_long.weight", (64,)))
    model = read_header(gguf_writer.write(tmp_path / "long.gguf", metadata, tensors))
    gpu = Accelerator("CUDA0", "GPU", 24 * GIB, 24 * GIB)
    assert plan(model, gpu=gpu).context == 4096
    assert plan(model, gpu=gpu, ctx=8192).context == 16384

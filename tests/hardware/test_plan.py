"""Plans: numbers worked out by hand, and properties that hold for all sizes of memory."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignpro_lite.errors import DeviceError, InputError, ModelFileError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Accelerator, DeviceRequest, LlamaDevices
from alignpro_lite.hardware.memory import MIN_MARGIN, Footprint, PrompterNeeds, TargetNeeds
from alignpro_lite.hardware.plan import BASE_CONTEXT, Plan, PlanningCase
from alignpro_lite.hardware.planner import make_plan
from alignpro_lite.hardware.system import Gpu, Hardware, Ram
from tests.support import gguf_writer

GIB = 1 << 30
MIB = 1 << 20
CPU_ONLY = LlamaDevices(("CPU",), ())
LAPTOP_RAM = Ram(16 * GIB, 12 * GIB)
PROMPTER = PrompterNeeds(200 * MIB, built_for_cuda=True, engine_has_cuda=True)
CPU_PROMPTER = replace(PROMPTER, built_for_cuda=False)
CPU_ENGINE_PROMPTER = replace(PROMPTER, engine_has_cuda=False)

# Llama-3.1-8B with Q4_K matrices and a Q6_K output layer, bytes by hand.
LLAMA_BLOCK = (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) * 144 // 256 + 2 * 4 * 4096
LLAMA_OUTPUT = 4096 * 128256 * 210 // 256 + 4 * 4096
LLAMA_EMBEDDINGS = 4096 * 128256 * 144 // 256
LLAMA_LARGEST = 4096 * 14336 * 144 // 256
LLAMA_KV_PER_TOKEN_AND_BLOCK = 2 * 8 * 128 * 2


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    metadata, tensors = gguf_writer.decoder(
        name="Llama 3.1 8B Instruct",
        n_layers=32,
        embedding=4096,
        feed_forward=14336,
        n_head=32,
        n_head_kv=8,
        vocab=128256,
        context=131072,
        matrix_type="Q4_K",
        embedding_type="Q4_K",
        output_type="Q6_K",
    )
    path = tmp_path_factory.mktemp("llama") / "llama-8b.gguf"
    return read_header(gguf_writer.write(path, metadata, tensors))


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    metadata, tensors = gguf_writer.decoder(
        name="SmolLM2 135M",
        n_layers=30,
        embedding=576,
        feed_forward=1536,
        n_head=9,
        n_head_kv=3,
        vocab=49152,
        context=8192,
        matrix_type="Q4_1",
        embedding_type="Q8_0",
        output_type=None,
    )
    path = tmp_path_factory.mktemp("smol") / "smol.gguf"
    return read_header(gguf_writer.write(path, metadata, tensors))


def machine(free: int | None = None, ram: Ram = LAPTOP_RAM) -> Hardware:
    gpus = () if free is None else (Gpu(0, "Test GPU", max(free, GIB), free),)
    return Hardware(gpus=gpus, ram=ram, cores=4)


def cuda(gpus: tuple[Gpu, ...]) -> LlamaDevices:
    """What a llama.cpp with CUDA says of the GPUs that NVML finds."""
    found = (Accelerator(f"CUDA{it.index}", it.name, it.total_bytes, it.free_bytes) for it in gpus)
    return LlamaDevices(("CUDA", "CPU"), tuple(found))


def plan(
    model: GgufFile,
    hardware: Hardware,
    *,
    request: DeviceRequest = DeviceRequest(),
    prompter: PrompterNeeds | None = PROMPTER,
    llama_has_cuda: bool = True,
) -> Plan:
    devices = cuda(hardware.gpus) if llama_has_cuda else CPU_ONLY
    return make_plan(PlanningCase(request, TargetNeeds(model, devices), prompter, hardware))


def weight_bytes(model: GgufFile) -> int:
    return sum(tensor.n_bytes for tensor in model.tensors)


def llama_buffers(context: int) -> int:
    """512 rows of activations and mask, one row of logits."""
    return 4 * (512 * (2 * 14336 + 4 * 4096 + context) + 128256)


# Numbers by hand


@pytest.mark.parametrize(
    ("card", "context"), [(8 * GIB, 4096), (12 * GIB, 32768), (24 * GIB, 131072)]
)
def test_llama_8b_fits_whole_on_common_cards(llama: GgufFile, card: int, context: int) -> None:
    made = plan(llama, machine(card * 95 // 100), request=DeviceRequest(ctx=context))
    assert (made.device, made.n_gpu_layers, made.n_layers) == ("CUDA0", 33, 32)
    assert made.on_gpu == Footprint(
        weight_bytes=32 * LLAMA_BLOCK + LLAMA_OUTPUT,
        kv_bytes=32 * LLAMA_KV_PER_TOKEN_AND_BLOCK * context,
        compute_bytes=llama_buffers(context),
        prompter_bytes=PROMPTER.n_bytes,
    )
    assert made.on_cpu.weight_bytes == LLAMA_EMBEDDINGS
    assert made.on_cpu.kv_bytes == 0
    assert made.prompter_device == "cuda"
    assert made.notes == (
        f"The target runs on CUDA0 (Test GPU, {card * 95 // 100 / 1e9:.1f} GB free).",
    )


@pytest.mark.parametrize(
    ("free", "context"), [(4 * GIB, 4096), (7 * GIB, 32768), (11 * GIB, 131072)]
)
def test_llama_8b_goes_in_parts_when_it_does_not_fit(
    llama: GgufFile, free: int, context: int
) -> None:
    roomy = Ram(64 * GIB, 60 * GIB)
    made = plan(llama, machine(free, roomy), request=DeviceRequest(ctx=context))
    fixed = LLAMA_OUTPUT + llama_buffers(context) + LLAMA_LARGEST
    per_block = LLAMA_BLOCK + LLAMA_KV_PER_TOKEN_AND_BLOCK * context
    blocks = (free - max(free // 20, MIN_MARGIN) - fixed) // per_block
    assert 0 < blocks < 32
    assert made.n_gpu_layers == blocks + 1
    assert made.on_gpu.weight_bytes == LLAMA_OUTPUT + blocks * LLAMA_BLOCK
    assert made.on_cpu.weight_bytes == LLAMA_EMBEDDINGS + (32 - blocks) * LLAMA_BLOCK
    assert made.kv_bytes == 32 * LLAMA_KV_PER_TOKEN_AND_BLOCK * context
    assert f"{blocks + 1} of 33 layers" in made.notes[1]


def test_smollm2_on_a_cpu(smol: GgufFile) -> None:
    made = plan(smol, machine(), prompter=CPU_ENGINE_PROMPTER, llama_has_cuda=False)
    assert (made.device, made.gpu, made.n_gpu_layers) == ("cpu", None, 0)
    assert (made.context, made.threads) == (2048, 4)
    assert made.kv_bytes == 45 * MIB  # llama.cpp reports the same
    assert made.on_cpu.weight_bytes == weight_bytes(smol)
    assert made.on_cpu.prompter_bytes == PROMPTER.n_bytes
    assert made.on_gpu == Footprint()
    assert made.notes == ("The target runs on the CPU, because no GPU was found.",)


def test_tied_embeddings_are_copied_to_the_gpu(smol: GgufFile) -> None:
    made = plan(smol, machine(8 * GIB))
    embeddings = 576 * 49152 // 32 * 34
    assert made.on_gpu.weight_bytes == weight_bytes(smol)
    assert made.on_cpu.weight_bytes == embeddings


def test_the_kv_cache_is_padded_to_256_tokens(smol: GgufFile) -> None:
    made = plan(smol, machine(), request=DeviceRequest(ctx=1000))
    assert made.context == 1000
    assert made.kv_bytes == 2 * 30 * 3 * 64 * 2 * 1024


# What llama.cpp reported for SmolLM2-135M: compute buffer plus output buffer, in MiB.
@pytest.mark.parametrize(
    ("context", "micro_batch", "sequences", "reported"),
    [
        (4096, 256, 1, 8.76 + 0.19),
        (4096, 256, 8, 8.76 + 1.5),
        (8192, 256, 16, 10.76 + 3),
        (8192, 512, 1, 21.51 + 0.19),
        (512, 256, 16, 7.01 + 3),
        (4096, 256, 256, 49.13 + 48),
    ],
)
def test_the_buffer_estimate_is_just_above_what_llama_cpp_takes(
    smol: GgufFile, context: int, micro_batch: int, sequences: int, reported: float
) -> None:
    target = TargetNeeds(smol, CPU_ONLY, micro_batch, sequences)
    made = make_plan(PlanningCase(DeviceRequest(ctx=context), target, None, machine()))
    assert reported <= made.on_cpu.compute_bytes / MIB <= 1.5 * reported


def test_layers_without_attention_need_no_kv_cache(tmp_path: Path) -> None:
    metadata: dict[str, gguf_writer.Value] = {
        "general.architecture": "jamba",
        "jamba.block_count": 4,
        "jamba.context_length": 1024,
        "jamba.embedding_length": 64,
        "jamba.attention.head_count": 8,
        "jamba.attention.head_count_kv": [0, 2, 0, 2],
        "jamba.vocab_size": 100,
    }
    model = read_header(gguf_writer.write(tmp_path / "hybrid.gguf", metadata))
    assert plan(model, machine()).kv_bytes == 2 * (2 * 2 * 8 * 2) * 1024


# Choices


def test_the_default_context_is_lowered_to_fit_the_ram(smol: GgufFile) -> None:
    made = plan(smol, machine(ram=Ram(GIB, MIN_MARGIN + 40 * MIB)), prompter=None)
    assert 512 <= made.context < 2048
    assert made.on_cpu.allocated_bytes <= 40 * MIB
    assert f"lowered from 2048 to {made.context}" in made.notes[-1]


def test_a_context_that_does_not_fit_is_refused_with_one_that_does(smol: GgufFile) -> None:
    hardware = machine(ram=Ram(GIB, MIN_MARGIN + 60 * MIB))
    with pytest.raises(DeviceError, match=r"8192 tokens .* KV cache 188\.7 MB") as caught:
        plan(smol, hardware, request=DeviceRequest(ctx=8192), prompter=None)
    advised = int(re.findall(r"--ctx (\d+)", caught.value.cure)[0])
    assert plan(smol, hardware, request=DeviceRequest(ctx=advised), prompter=None)
    with pytest.raises(DeviceError):
        plan(smol, hardware, request=DeviceRequest(ctx=advised + 256), prompter=None)


def test_the_target_goes_before_the_prompter(smol: GgufFile) -> None:
    request = DeviceRequest(ctx=2048)
    whole = plan(smol, machine(8 * GIB), request=request, prompter=None).on_gpu.total_bytes
    enough = whole + PROMPTER.n_bytes + MIN_MARGIN
    assert plan(smol, machine(enough), request=request).prompter_device == "cuda"
    made = plan(smol, machine(enough - 1), request=request)
    assert (made.n_gpu_layers, made.prompter_device) == (31, "cpu")
    assert made.on_cpu.prompter_bytes == PROMPTER.n_bytes
    assert "The prompter runs on the CPU" in made.notes[1]


def test_the_prompter_may_use_a_gpu_that_llama_cpp_cannot(smol: GgufFile) -> None:
    made = plan(smol, machine(8 * GIB), llama_has_cuda=False)
    assert (made.device, made.prompter_device) == ("cpu", "cuda")
    assert (made.gpu, made.prompter_gpu) == (None, Gpu(0, "Test GPU", 8 * GIB, 8 * GIB))
    assert "built without CUDA" in made.notes[0]
    assert "DGGML_CUDA=on" in made.notes[0]


@pytest.mark.parametrize(
    ("prompter", "note"),
    [
        (CPU_PROMPTER, "built for the CPU"),
        (CPU_ENGINE_PROMPTER, r'pip install "alignpro-lite\[cuda\]"'),
    ],
)
def test_a_note_says_why_the_prompter_stays_on_the_cpu(
    smol: GgufFile, prompter: PrompterNeeds, note: str
) -> None:
    made = plan(smol, machine(8 * GIB), prompter=prompter)
    assert (made.device, made.prompter_device) == ("CUDA0", "cpu")
    assert re.search(note, made.notes[1])


def test_a_full_gpu_is_not_used(smol: GgufFile) -> None:
    made = plan(smol, machine(MIN_MARGIN))
    assert (made.device, made.gpu) == ("cpu", None)
    assert "has only 300.0 MB" in made.notes[0]


def test_the_gpu_with_most_free_memory_is_taken(smol: GgufFile) -> None:
    gpus = (Gpu(0, "small", 4 * GIB, 3 * GIB), Gpu(1, "large", 8 * GIB, 6 * GIB))
    made = plan(smol, Hardware(gpus, LAPTOP_RAM, 4))
    assert made.device == "CUDA1"
    assert made.prompter_gpu == gpus[1]
    assert "CUDA1 (large, 6.4 GB free), chosen of 2 GPUs" in made.notes[0]


def test_no_prompter_has_no_place(smol: GgufFile) -> None:
    made = plan(smol, machine(8 * GIB), prompter=None)
    assert made.prompter_device is None
    assert made.on_gpu.prompter_bytes == made.on_cpu.prompter_bytes == 0


def test_layers_that_were_asked_for_are_placed(llama: GgufFile) -> None:
    for asked, given_ in [(0, 0), (5, 5), (-1, 33), (99, 33)]:
        made = plan(llama, machine(24 * GIB), request=DeviceRequest(n_gpu_layers=asked))
        assert made.n_gpu_layers == given_
        assert made.device == ("CUDA0" if given_ else "cpu")


def test_weights_beyond_free_ram_are_a_note_and_beyond_all_ram_an_error(
    llama: GgufFile,
) -> None:
    tight = plan(llama, machine(ram=Ram(8 * GIB, 3 * GIB)))
    assert "read from disk again" in tight.notes[-1]
    with pytest.raises(DeviceError, match=r"needs 5\.0 GB .* of RAM; of 4\.3 GB"):
        plan(llama, machine(ram=Ram(4 * GIB, 3 * GIB)))


# Refusals


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (DeviceRequest(ctx=8193), "--ctx is 8193, .* 1 to 8192 tokens"),
        (DeviceRequest(ctx=0), "--ctx is 0"),
        (DeviceRequest(n_gpu_layers=-2), "--n-gpu-layers is -2"),
        (DeviceRequest(device="cpu", n_gpu_layers=3), "--device cpu contradicts"),
        (DeviceRequest(device="cpu", n_gpu_layers=-1), "--device cpu contradicts"),
        (DeviceRequest(device="cuda", n_gpu_layers=0), "--device cuda contradicts"),
    ],
)
def test_contradictions_are_refused(smol: GgufFile, request_: DeviceRequest, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        plan(smol, machine(8 * GIB), request=request_)


@pytest.mark.parametrize(
    ("hardware", "llama_has_cuda", "prompter", "expected"),
    [
        (machine(), True, PROMPTER, "no NVIDIA GPU was found"),
        (machine(8 * GIB), False, PROMPTER, "-DGGML_CUDA=on.* pip install --force-"),
        (machine(8 * GIB), True, CPU_ENGINE_PROMPTER, r'pip install "alignpro-lite\[cuda\]"'),
        (machine(MIN_MARGIN), True, PROMPTER, "1 of 31 layers on the GPU needs"),
    ],
)
def test_cuda_that_is_missing_is_an_error(
    smol: GgufFile,
    hardware: Hardware,
    llama_has_cuda: bool,
    prompter: PrompterNeeds,
    expected: str,
) -> None:
    with pytest.raises(DeviceError, match=expected):
        plan(
            smol,
            hardware,
            request=DeviceRequest(device="cuda"),
            prompter=prompter,
            llama_has_cuda=llama_has_cuda,
        )


def test_layers_asked_for_without_a_gpu_are_an_error(smol: GgufFile) -> None:
    with pytest.raises(DeviceError, match="no GPU was found"):
        plan(smol, machine(), request=DeviceRequest(n_gpu_layers=3))


def test_layers_that_do_not_fit_are_refused_with_the_numbers(llama: GgufFile) -> None:
    request = DeviceRequest(n_gpu_layers=33)
    with pytest.raises(DeviceError, match=r"33 of 33 layers .*weights 4\.4 GB.*can be used"):
        plan(llama, machine(4 * GIB), request=request)


def test_a_model_without_numbers_is_refused(tmp_path: Path) -> None:
    model = read_header(gguf_writer.write(tmp_path / "m.gguf", {"general.architecture": "llama"}))
    with pytest.raises(ModelFileError):
        plan(model, machine())


# Properties for all sizes

sizes = st.integers(0, 30 * GIB)
requests = st.builds(
    DeviceRequest,
    device=st.sampled_from(["auto", "cuda", "cpu"]),
    n_gpu_layers=st.none() | st.integers(-1, 40),
    ctx=st.none() | st.integers(1, 131072),
)
prompters = st.none() | st.builds(
    PrompterNeeds,
    n_bytes=st.integers(1, 4 * GIB),
    built_for_cuda=st.booleans(),
    engine_has_cuda=st.just(True),
)


def reach(made: Plan | None) -> tuple[int, int]:
    return (min(made.context, BASE_CONTEXT), made.n_gpu_layers) if made else (0, 0)


def attempt(
    model: GgufFile, hardware: Hardware, request: DeviceRequest, prompter: PrompterNeeds | None
) -> Plan | None:
    try:
        return plan(model, hardware, request=request, prompter=prompter)
    except (DeviceError, InputError):
        return None


@settings(deadline=None, max_examples=150)
@given(sizes, sizes, requests, prompters)
@example(free=0, available=GIB, request_=DeviceRequest(device="cuda"), prompter=None)
def test_no_plan_takes_more_than_is_free(
    llama: GgufFile,
    free: int,
    available: int,
    request_: DeviceRequest,
    prompter: PrompterNeeds | None,
) -> None:
    ram = Ram(available + GIB, available)
    made = attempt(llama, machine(free, ram), request_, prompter)
    if made is None:
        return
    assert made.on_gpu.total_bytes <= max(0, free - MIN_MARGIN)
    assert made.on_cpu.allocated_bytes <= max(0, available - MIN_MARGIN)
    assert made.on_cpu.total_bytes <= ram.total_bytes
    assert made.on_gpu.weight_bytes + made.on_cpu.weight_bytes == weight_bytes(llama)
    assert made.kv_bytes >= 32 * LLAMA_KV_PER_TOKEN_AND_BLOCK * made.context
    assert made.longest == (request_.ctx or made.longest)
    assert made.longest <= made.context
    assert (made.device == "CUDA0") == (made.n_gpu_layers > 0)


@settings(deadline=None, max_examples=150)
@given(sizes, st.integers(0, GIB), sizes, requests, prompters)
def test_more_gpu_memory_never_gives_less(
    llama: GgufFile,
    free: int,
    more: int,
    available: int,
    request_: DeviceRequest,
    prompter: PrompterNeeds | None,
) -> None:
    ram = Ram(available + GIB, available)
    before = attempt(llama, machine(free, ram), request_, prompter)
    after = attempt(llama, machine(free + more, ram), request_, prompter)
    assert reach(after) >= reach(before)


@settings(deadline=None, max_examples=100)
@given(sizes, sizes, st.integers(0, GIB), prompters)
def test_more_ram_never_gives_less(
    llama: GgufFile, free: int, available: int, more: int, prompter: PrompterNeeds | None
) -> None:
    plans = [
        attempt(llama, machine(free, Ram(bytes_ + GIB, bytes_)), DeviceRequest(), prompter)
        for bytes_ in (available, available + more)
    ]
    assert reach(plans[1]) >= reach(plans[0])

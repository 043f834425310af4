"""Both engines on a CUDA device; needs llama.cpp and onnxruntime built with CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, DeviceRequest, Request, Sampling
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.loading import load_prompter
from alignpro_lite.registry import ModelStore
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.tiny_models import configurations, write_model

pytestmark = pytest.mark.gpu

PROMPT = "Explain why the sky is blue."
GREEDY = Request(max_tokens=24, sampling=Sampling(temperature=0))


def test_the_target_answers_the_same_on_the_gpu():
    with AlignedModel.load(TINY_TARGET, None, devices=DeviceRequest("cpu")) as model:
        expected = model.run(PROMPT, GREEDY).answer
    with AlignedModel.load(TINY_TARGET, None, devices=DeviceRequest("cuda")) as model:
        assert model.plan.device == "CUDA0"
        assert model.plan.n_gpu_layers == model.plan.n_layers + 1
        assert model.run(PROMPT, GREEDY).answer == expected


@pytest.fixture(scope="module")
def cuda_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny prompter built for CUDA, in half precision as CUDA's attention wants it."""
    folder = tmp_path_factory.mktemp("cuda")
    configuration = configurations()["llama"]
    configuration.max_position_embeddings = 2048
    source = write_model(folder / "model", configuration)
    request = BundleRequest(source, "tiny-llama", None, "augment", "fp16", "cuda", False)
    return export_bundle(request, folder / "bundle").path


def test_the_prompter_scores_the_same_on_the_gpu(cuda_bundle):
    store = ModelStore.open()
    with (
        load_prompter(TINY_BUNDLE, store) as cpu,
        load_prompter(cuda_bundle, store, device="cuda") as gpu,
    ):
        assert gpu.device == "cuda"
        outputs = [rewrite.tokens for rewrite in cpu.rewrite(PROMPT, 4, Sampling(seed=1))]
        expected = cpu.score(PROMPT, outputs)
        assert gpu.score(PROMPT, outputs) == pytest.approx(expected, rel=0.02)
        rewrites = gpu.rewrite(PROMPT, 4, Sampling(seed=1))
        assert gpu.rewrite(PROMPT, 2, Sampling(seed=1)) == rewrites[:2]


def test_one_plan_puts_both_models_on_the_gpu(cuda_bundle):
    with AlignedModel.load(TINY_TARGET, cuda_bundle, devices=DeviceRequest("cuda")) as model:
        assert (model.plan.device, model.plan.prompter_device) == ("CUDA0", "cuda")
        assert model.run(PROMPT, GREEDY).answer_tokens > 0

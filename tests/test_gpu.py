"""Both engines on a CUDA device; needs llama.cpp and onnxruntime built with CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignpro_lite import AlignedModel, DeviceRequest, Message, Request, Sampling
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.hardware.device import Device
from alignpro_lite.loading import load_prompter
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.entries import Precision
from alignpro_lite.target.rollout import AnswerPlan
from alignpro_lite.target.torch_target import HfTarget
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterSection
from tests.support import TINY_TARGET
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
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[Device, Path]:
    """One tiny prompter built for each device, for CUDA in half precision as its attention wants.

    Both from the same weights: those of the committed bundle come out otherwise with another torch.
    """
    folder = tmp_path_factory.mktemp("bundles")
    configuration = configurations()["llama"]
    configuration.max_position_embeddings = 2048
    source = write_model(folder / "model", configuration)
    built: dict[Device, Precision] = {"cpu": "fp32", "cuda": "fp16"}
    return {
        device: export_bundle(
            BundleRequest(source, "tiny-llama", None, "augment", precision, device, False),
            folder / device,
        ).path
        for device, precision in built.items()
    }


def test_the_prompter_scores_the_same_on_the_gpu(bundles):
    store = ModelStore.open()
    with (
        load_prompter(bundles["cpu"], store) as cpu,
        load_prompter(bundles["cuda"], store, device="cuda") as gpu,
    ):
        assert gpu.device == "cuda"
        outputs = [rewrite.tokens for rewrite in cpu.rewrite(PROMPT, 4, Sampling(seed=1))]
        expected = cpu.score(PROMPT, outputs)
        assert gpu.score(PROMPT, outputs) == pytest.approx(expected, rel=0.02)
        rewrites = gpu.rewrite(PROMPT, 4, Sampling(seed=1))
        assert gpu.rewrite(PROMPT, 2, Sampling(seed=1)) == rewrites[:2]


def test_one_plan_puts_both_models_on_the_gpu(bundles):
    with AlignedModel.load(TINY_TARGET, bundles["cuda"], devices=DeviceRequest("cuda")) as model:
        assert (model.plan.device, model.plan.prompter_device) == ("CUDA0", "cuda")
        assert model.run(PROMPT, GREEDY).answer_tokens > 0


def test_a_prompter_is_trained_on_the_gpu(tmp_path):
    """Log-probabilities of rewrites were added up on the CPU, which CUDA refuses."""
    base = write_model(tmp_path / "base", configurations()["llama"])
    policy = Policy(base, AUGMENT, PrompterSection(max_tokens=8), 8, "cuda:0", 0)
    (outputs,) = policy.sample([PROMPT], 4, Sampling(seed=1))
    trie = policy.pack([PROMPT] * len(outputs), outputs)
    policy.log_probs(trie).sum().backward()
    assert torch.allclose(policy.log_probs(trie), policy.reference_log_probs(trie), atol=0.05)


def test_a_target_in_torch_answers_and_judges_on_the_gpu():
    source = load_torch_model(TINY_TARGET)
    asked = [[Message("user", PROMPT)], [Message("user", "Why?")]]
    on_cpu = HfTarget(source, "cpu").choice_log_probs(asked, ["A", "B"])
    target = HfTarget(source, "cuda:0", rows=2)
    assert target.choice_log_probs(asked, ["A", "B"]) == pytest.approx(on_cpu, abs=0.01)
    answered = target.answers(asked, AnswerPlan(2, 8), [0, 1])
    assert [len(row) for row in answered] == [2, 2]

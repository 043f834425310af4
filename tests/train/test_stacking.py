"""A trained adapter on top of its reference: together ρ_θ, and with the gate shut ρ_sft."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from alignpro_lite.decoding.ort import open_session
from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.prompter.card import read_prompter_card
from alignpro_lite.prompter.graph_runner import new_runner
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter import run as prompter
from alignpro_lite.train.prompter.config import LoraSection, PrompterConfig
from alignpro_lite.train.stacking import stack_on
from tests.support import TINY_TARGET
from tests.support.reference_adapters import RANK, WORDS, write_reference, write_stacked
from tests.support.tiny_models import configurations, write_adapter, write_model
from tests.support.training_run import HashingTarget, train, write_run

pytestmark = pytest.mark.usefixtures("forked_converters")

BELOW, ABOVE = ("q_proj", "v_proj", "up_proj"), ("q_proj", "k_proj", "v_proj", "down_proj")
TOKENS = [[5, 80, 200, 31, 7, 300, 12]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("stacking") / "base", configurations()["llama"])


@pytest.fixture(scope="module")
def reference(base, tmp_path_factory):
    return write_reference(tmp_path_factory.mktemp("stacking") / "reference", base, BELOW)


@pytest.fixture(scope="module")
def stacked(base, reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stacking") / "stacked"
    return write_stacked(folder, base, reference, ABOVE)


def logits_of(base, *adapters):
    model = load_torch_model(base)
    for adapter in adapters:
        model = merge_adapter(model, adapter)
    with torch.no_grad():
        return model.model(torch.tensor(TOKENS)).logits.numpy()


def test_both_adapters_as_one_are_the_base_with_one_after_the_other(
    base, reference, stacked, tmp_path
):
    learned = write_adapter(tmp_path / "learned", base, seed=2, modules=ABOVE)
    expected = logits_of(base, reference, learned)
    np.testing.assert_allclose(logits_of(base, stacked), expected, atol=2e-2)
    assert np.abs(expected - logits_of(base, reference)).max() > 0.5
    assert json.loads((stacked / "adapter_config.json").read_text())["r"] == 2 * RANK


def test_another_kind_of_adapter_is_no_reference(reference, stacked, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    with pytest.raises(InputError, match="plain LoRA"):
        stack_on(tmp_path, stacked)


def bundle_of(base, adapter, out):
    request = BundleRequest(base, "base", adapter, None, "fp32", "cpu", allow_mismatch=False)
    return export_bundle(request, out)


def graph_logits(bundle: Bundle, gate):
    """Logits of the graph, at a gate."""
    session = open_session(bundle.graph_file, 1, cure="")
    runner = new_runner(session, bundle.sidecar.graph, gpu=None, adapter=gate)
    runner.buffers.resize(1, len(TOKENS[0]))
    return runner.run(np.array(TOKENS), np.array([0]))


def test_the_gate_switches_off_what_was_learned_and_leaves_the_reference(
    base, reference, stacked, tmp_path
):
    bundle = bundle_of(base, stacked, tmp_path / "bundle")
    sidecar = bundle.sidecar
    assert (sidecar.provenance.adapter, sidecar.provenance.reference) == ("stacked", "stacked")
    assert sidecar.template == WORDS
    assert bundle.profile.has_reference
    for gate, expected in ((1.0, logits_of(base, stacked)), (0.0, logits_of(base, reference))):
        np.testing.assert_allclose(graph_logits(bundle, gate), expected, atol=5e-3)


def test_a_bundle_of_a_reference_alone_is_its_own_reference(base, reference, tmp_path):
    bundle = bundle_of(base, reference, tmp_path / "bundle")
    origin = bundle.sidecar.provenance
    assert (origin.adapter, origin.reference, origin.reward) == (None, "reference", None)
    assert bundle.sidecar.graph.gate is None
    assert bundle.profile.has_reference
    np.testing.assert_allclose(graph_logits(bundle, 1.0), logits_of(base, reference), atol=1e-3)


def test_training_goes_on_from_the_reference(base, reference):
    """With a fresh adapter, ρ_θ is ρ_sft: the base with its reference, not the base."""
    section = LoraSection(dtype="float32", rank=2, alpha=4.0)
    policy = Policy(base, WORDS, section, 4, "cpu", seed=0, reference=reference)
    plain = Policy(base, WORDS, section, 4, "cpu", seed=0)
    outputs = policy.pack(["Name a river."], [[9, 30, 2]])
    with torch.no_grad():
        ours = policy.log_probs(outputs), policy.reference_log_probs(outputs)
        assert torch.equal(*ours)
        assert (ours[0] - plain.log_probs(outputs)).abs() > 0.1
    merged = logits_of(base, reference)
    with torch.no_grad():
        own = policy.model(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(own, merged, atol=1e-4)


def test_a_run_from_a_reference_writes_both_as_one(base, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(prompter, "open_target", lambda section, store: HashingTarget())
    config = write_run(tmp_path, base, TINY_TARGET, steps=2)
    named = f'[prompter]\nreference = "file:{reference}"'
    config.write_text(config.read_text().replace("[prompter]", named))
    assert train(config, tmp_path / "run")
    card = read_prompter_card(tmp_path / "run" / "adapter")
    assert card is not None
    assert (card.reference_rank, card.template, card.is_reference) == (RANK, WORDS, False)
    merged = logits_of(base, tmp_path / "run" / "adapter")
    assert (
        0
        < np.abs(merged - logits_of(base, reference)).max()
        < np.abs(merged - logits_of(base)).max()
    )


def test_words_beside_those_of_the_reference_are_refused(base, tmp_path):
    config = write_run(tmp_path, base, TINY_TARGET)
    named = '[prompter]\nreference = "a"\ntemplate = "b"'
    config.write_text(config.read_text().replace("[prompter]", named))
    with pytest.raises(InputError, match="words of its reference"):
        read_config(config, PrompterConfig)

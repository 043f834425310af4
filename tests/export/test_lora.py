"""A peft adapter as a GGUF LoRA: the target with it writes what torch with the adapter writes."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from alignpro_lite import Sampling
from alignpro_lite.errors import BundleError, ExportError
from alignpro_lite.export.lora import export_lora
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.lora_file import open_lora
from alignpro_lite.prompter.own_weights import SelfPrompter, own_weights
from alignpro_lite.prompter.targets import KnownTarget
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET
from tests.support.tiny_models import configurations, write_adapter, write_model

SETTINGS = TargetSettings(context=2048, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPT = "Explain why the sky is blue."
KNOWN = KnownTarget("tiny", sha256_of(TINY_TARGET, ""))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model that the tiny target was made from, and an adapter of all its linear layers."""
    work = tmp_path_factory.mktemp("trained")
    configuration = configurations()["llama"]
    configuration.max_position_embeddings = 2048
    folder = write_model(work / "model", configuration)
    return folder, write_adapter(work / "adapter", folder, modules=MODULES)


def torch_log_prob(trained, asked, output):
    base, adapter = trained
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    with torch.no_grad():
        logits = model(torch.tensor([[*asked, *output]])).logits[0, len(asked) - 1 : -1]
    scores = torch.log_softmax(logits.double(), -1)
    return float(scores[range(len(output)), list(output)].sum())


def test_the_target_with_it_is_the_torch_model_with_the_adapter(trained, tmp_path):
    """Rows of queries and keys stand in another order in a GGUF of this architecture."""
    out = tmp_path / "adapter.gguf"
    made = export_lora(trained[1], TINY_TARGET, KNOWN, None, out)
    file = read_header(TINY_TARGET)
    own = own_weights(None, open_lora(out, file, KNOWN))
    assert own.profile.template == made.card.template
    with (
        LlamaTarget(TINY_TARGET, file, SETTINGS) as target,
        SelfPrompter(target, own, 2048) as ours,
    ):
        (rewrite,) = ours.rewrite(PROMPT, 1, Sampling(seed=1))
        output = rewrite.tokens[:10]
        asked = ours.prompt_tokens(PROMPT)
        expected = torch_log_prob(trained, asked, output)
        assert ours.score(PROMPT, [output]) == pytest.approx([expected], abs=0.3)
        assert abs(ours.reference_score(PROMPT, [output])[0] - expected) > 1


def test_it_is_for_the_file_that_it_was_made_for(trained, tmp_path):
    out = tmp_path / "adapter.gguf"
    export_lora(trained[1], TINY_TARGET, KNOWN, "rewrite", out)
    file = read_header(TINY_TARGET)
    assert open_lora(out, file, KNOWN).card.template.mode == "rewrite"
    with pytest.raises(BundleError, match="was made for the file with sha256"):
        open_lora(out, file, KnownTarget("other", "0" * 64))


def test_an_adapter_of_another_kind_is_refused(trained, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = json.loads((trained[1] / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    out = tmp_path / "adapter.gguf"
    with pytest.raises(ExportError, match="plain LoRA"):
        export_lora(adapter, TINY_TARGET, KNOWN, None, out)
    assert not out.exists()

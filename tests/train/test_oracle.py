"""Aligning the target itself: the loop of the prompter, on answers, ending in a GGUF file."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.rollout import Answer, AnswerPlan
from alignpro_lite.train.metrics import read_metrics
from alignpro_lite.train.oracle import run as oracle
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.oracle.run import DIRECT, MERGED, ORACLE, Verbatim, train_oracle
from alignpro_lite.train.policy import Policy
from tests.support.tiny_models import configurations, write_model

CONFIG = """
[oracle]
base = "{base}"
max_tokens = 4
dtype = "float32"
rank = 2
modules = ["q_proj", "v_proj"]
[[reward]]
kind = "python"
source = "tests.support.training_run:length"
weights = {{ length = 0.1 }}
[objective]
strength = 0.05
prompts = 2
rewrites = 3
replayed = 1
[training]
steps = 3
warmup = 1
learning_rate = 0.05
checkpoint = 1
[data]
prompts = [{{ path = "prompts.jsonl", format = "prompt" }}]
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train in a fresh folder; gives the configuration and what trains."""
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    base = write_model(tmp_path / "base", configurations()["llama"])
    rows = [json.dumps({"prompt": f"Name river {n}?"}) for n in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    file = tmp_path / "oracle.toml"
    file.write_text(CONFIG.format(base=base))
    config = read_config(file, OracleConfig)
    places = Places(tmp_path, tmp_path / "run", ModelStore.open())

    def train(notes):
        return train_oracle(config, places, notes.append)

    return config, places, train


def test_a_run_leaves_an_adapter_and_a_merged_model_that_answers(run):
    _, places, train = run
    notes: list[str] = []
    assert train(notes)
    assert [line["step"] for line in read_metrics(places.run)] == [1, 2, 3]
    assert read_metrics(places.run)[0]["kl"] == pytest.approx(0, abs=1e-4), "it begins as π_F"
    require_text_generation(read_header(places.run / ORACLE))
    adapter = load_file(places.run / "adapter" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    assert not (places.run / MERGED).exists()
    assert train(notes)
    assert "is done" in notes[-1]


def test_a_run_stopped_while_exporting_goes_on_from_the_adapter(run, monkeypatch):
    """The last step is saved before anything is merged, so nothing is trained twice."""
    _, places, train = run
    with monkeypatch.context() as patch:
        patch.setattr(oracle, "export_target", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([])
    assert not (places.run / ORACLE).exists()
    (places.run / MERGED).mkdir()  # a kill leaves it
    assert train([])
    assert not (places.run / MERGED).exists()
    assert [line["step"] for line in read_metrics(places.run)] == [1, 2, 3]
    assert (places.run / ORACLE).is_file()


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_it_is_asked_what_the_target_is_asked(run):
    """The oracle answers the bare prompt under the model's own chat template, nothing else."""
    config, places, _ = run
    base = places.data / "base"
    policy = Policy(base, DIRECT, config.oracle, "cpu", 0)
    tokenizer = load_torch_model(base).tokenizer
    asked = tokenizer.decode(policy.tokens.request("Name a river?"), skip_special_tokens=False)
    assert asked == "<|im_start|>user\nName a river?<|im_end|>\n<|im_start|>assistant\n"


def test_the_stand_in_for_the_target_says_what_it_is_told():
    told = [[Message("user", "a")], [Message("user", "b")]]
    said = Verbatim().answers(told, AnswerPlan(2, 9), 0)
    assert said == [[Answer("a", None, "stop")] * 2, [Answer("b", None, "stop")] * 2]

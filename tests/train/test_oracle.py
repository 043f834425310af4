"""Aligning the target itself: the loop of the prompter, on answers, ending in a GGUF file."""

from __future__ import annotations

import dataclasses
import json
from itertools import count

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import InputError
from alignpro_lite.eval.oracle import read_oracle_card
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.loading import ScorerSource
from alignpro_lite.target.rollout import Answer, AnswerPlan
from alignpro_lite.train import loop
from alignpro_lite.train.metrics import Metrics, read_metrics
from alignpro_lite.train.oracle import run as oracle
from alignpro_lite.train.oracle.config import OracleConfig, OracleSection
from alignpro_lite.train.oracle.run import DIRECT, MERGED, ORACLE, Verbatim, train_oracle
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.rollout import roll_out
from tests.support.tiny_models import configurations, write_model

pytestmark = pytest.mark.usefixtures("forked_converters")

CONFIG = """
[oracle]
base = "{base}"
dtype = "float32"
rank = 2
modules = ["q_proj", "v_proj"]
[answers]
count = 2
max_tokens = 4
top_k = 20
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
steps = {steps}
warmup = 1
learning_rate = 0.05
checkpoint = 1
[stopping]
prompts = 3
patience = {patience}
[data]
prompts = [{{ path = "prompts.jsonl", format = "prompt" }}]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("oracle") / "base", configurations()["llama"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with prompts."""
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    rows = [json.dumps({"prompt": f"Name river {n}?"}) for n in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def config_of(folder, base, steps=3, patience=9):
    file = folder / "oracle.toml"
    file.write_text(CONFIG.format(base=base, steps=steps, patience=patience))
    return read_config(file, OracleConfig)


@pytest.fixture
def run(folder, base, monkeypatch):
    """Train with a reward that rises; gives the configuration and what trains."""
    script(monkeypatch, count())
    config = config_of(folder, base)
    places = Places(folder, folder / "run", ModelStore.open())

    def train(notes):
        return train_oracle(config, places, notes.append)

    return config, places, train


def script(monkeypatch, rewards):
    """Let the measurements on the prompts set apart give these rewards, one after another."""
    rewards = iter(rewards)
    monkeypatch.setattr(loop, "mean_reward", lambda *asked: float(next(rewards)))


def unexported(monkeypatch):
    """Leave the export out, which these tests are not about."""
    monkeypatch.setattr(oracle, "_write_file", lambda base, run, note: (run / ORACLE).touch())


def trained(folder, config, name):
    """Train in a folder of that name; its card and the weights of its adapter."""
    places = Places(folder, folder / name, ModelStore.open())
    assert train_oracle(config, places, lambda text: None)
    card = read_oracle_card(places.run / ORACLE)
    return card, load_file(places.run / "adapter" / "adapter_model.safetensors")


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_training_ends_on_a_plateau_with_the_best_weights(folder, base, monkeypatch):
    """Holds down: the oracle was trained for 48 steps, rising or not, and kept the last ones."""
    unexported(monkeypatch)
    script(monkeypatch, [0.1, 0.3, 0.2, 0.25, 0.9])
    card, weights = trained(folder, config_of(folder, base, steps=9, patience=2), "run")
    assert (card.steps, card.best_step, card.is_plateau) == (3, 1, True)
    assert (card.first_reward, card.best_reward, card.prompts) == (0.1, 0.3, 3)
    assert "until the reward had stopped rising" in card.summary()
    assert [line["step"] for line in read_metrics(folder / "run")] == [1, 2, 3]
    assert [line[loop.WATCHED] for line in read_metrics(folder / "run")] == [0.3, 0.2, 0.25]
    script(monkeypatch, [0.1, 0.3])
    # The first step is in the warm-up, where the learning rate does not depend on the last one.
    _, first = trained(folder, config_of(folder, base, steps=1), "short")
    assert_same(weights, first)


@pytest.mark.parametrize(
    ("rewards", "best"), [([0.1, 0.2, 0.3, 0.4], 3), ([0.1, 0.2, 0.1, 0.1], 1), ([0.5, 0, 0, 0], 0)]
)
def test_a_run_that_ends_at_its_last_step_says_so(folder, base, monkeypatch, rewards, best):
    unexported(monkeypatch)
    script(monkeypatch, rewards)
    card, weights = trained(folder, config_of(folder, base, steps=3, patience=5), "run")
    assert (card.steps, card.best_step, card.is_plateau) == (3, best, False)
    assert "may still have been rising" in card.summary()
    moved = any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    assert moved == (best > 0), "what never gained is the target as it was"


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stopped_run_ends_where_an_unbroken_one_does(folder, base, monkeypatch, step):
    """With its measurements and its best weights, to the bit."""
    unexported(monkeypatch)
    config = config_of(folder, base, steps=5, patience=2)
    config = replace(config, training=replace(config.training, checkpoint=2))
    expected = trained(folder, config, "unbroken")
    write = Metrics.write

    def write_and_stop(metrics, at, values):
        write(metrics, at, values)
        if at == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, config, "stopped")
    card, weights = trained(folder, config, "stopped")
    assert card == expected[0]
    assert_same(weights, expected[1])


def test_prompts_that_decide_are_not_trained_on(folder, base, monkeypatch):
    unexported(monkeypatch)
    trained_on, watched = set(), set()

    def rolled_out(learner, prompts, rewrites, seed):
        trained_on.update(prompts)
        assert not set(learner.prompts) & watched
        return roll_out(learner, prompts, rewrites, seed)

    def measured(learner, prompts, outputs, seed):
        watched.update(prompts)
        assert outputs == 2
        return 0.0

    monkeypatch.setattr(loop, "roll_out", rolled_out)
    monkeypatch.setattr(loop, "mean_reward", measured)
    trained(folder, config_of(folder, base), "run")
    assert len(watched) == 3
    assert trained_on
    assert all(prompt_position(prompt) >= 0.25 for prompt in watched), "nor are they judged"


@pytest.mark.parametrize(
    "answers",
    [
        AnswerPlan(count=1, max_tokens=3),
        AnswerPlan(count=2, max_tokens=5, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
        AnswerPlan(count=1, max_tokens=2, temperature=0.3, top_k=7),
    ],
)
def test_answers_are_drawn_in_training_as_they_are_judged(folder, base, monkeypatch, answers):
    """Holds down: trained at temperature 1 on 80 tokens, judged at 0.8 and top-k 40 on 64."""
    unexported(monkeypatch)
    drawn, scored = [], set()
    sample, log_probs = Policy.sample, Policy.log_probs

    def sampled(policy, prompts, rewrites, sampling):
        outputs = sample(policy, prompts, rewrites, sampling)
        drawn.append((sampling, max(len(output) for row in outputs for output in row)))
        return outputs

    def scoring(policy, trie, temperature):
        scored.add(temperature)
        return log_probs(policy, trie, temperature)

    monkeypatch.setattr(Policy, "sample", sampled)
    monkeypatch.setattr(Policy, "log_probs", scoring)
    config = replace(config_of(folder, base, steps=2), answers=answers)
    card, _ = trained(folder, config, "run")
    assert card.answers == answers
    assert {replace_seed(sampling) for sampling, _ in drawn} == {replace_seed(answers.seeded(0))}
    assert max(length for _, length in drawn) <= answers.max_tokens
    assert scored == {answers.temperature}


def replace_seed(sampling):
    return dataclasses.replace(sampling, seed=0)


@pytest.mark.parametrize("answers", ["temperature = 0.0", "max_tokens = 1"])
def test_answers_that_teach_nothing_are_refused(folder, base, answers):
    config_of(folder, base)
    file = folder / "oracle.toml"
    text = file.read_text()
    key = answers.split(" ")[0]
    lines = [line for line in text.splitlines() if not line.startswith(key)]
    lines.insert(lines.index("[answers]") + 1, answers)
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match="to be learned from"):
        read_config(file, OracleConfig)


def test_a_judge_cannot_teach_an_oracle(folder, base):
    """It would compare answers with what the stand-in for the target repeats: the prompt."""
    config = config_of(folder, base)
    judge = ScorerSource("judge", "target", {"judge": 1.0})
    with pytest.raises(InputError, match="found a judge"):
        replace(config, reward=(judge,))


def test_too_few_prompts_to_set_some_apart_are_refused(folder, base):
    config = config_of(folder, base)
    config = replace(config, stopping=replace(config.stopping, prompts=12))
    with pytest.raises(InputError, match=r"besides the 12 that are set apart"):
        trained(folder, config, "run")


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


def test_it_is_asked_what_the_target_is_asked(base):
    """The oracle answers the bare prompt under the model's own chat template, nothing else."""
    policy = Policy(base, DIRECT, OracleSection(dtype="float32"), 8, "cpu", 0)
    tokenizer = load_torch_model(base).tokenizer
    asked = tokenizer.decode(policy.tokens.request("Name a river?"), skip_special_tokens=False)
    assert asked == "<|im_start|>user\nName a river?<|im_end|>\n<|im_start|>assistant\n"


def test_the_stand_in_for_the_target_says_what_it_is_told():
    told = [[Message("user", "a")], [Message("user", "b")]]
    said = Verbatim().answers(told, AnswerPlan(2, 9), [0, 1])
    assert said == [[Answer("a", None, "stop")] * 2, [Answer("b", None, "stop")] * 2]

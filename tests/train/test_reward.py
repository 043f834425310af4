"""Training a reward model from preference data to a bundle, on pairs that can be told apart."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import BertForTokenClassification

from alignpro_lite.cli import exit_code_of
from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.experiment.run_folder import claim
from alignpro_lite.export.reward import export_reward
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.loading import open_reward, scorer_named
from alignpro_lite.reward.torch_reward import RewardCard, load_trained, read_card
from alignpro_lite.train.reward import trainer
from alignpro_lite.train.reward.config import RewardConfig
from alignpro_lite.train.reward.data import read_data
from alignpro_lite.train.reward.run import held_out_lines
from alignpro_lite.train.reward.trainer import fit_reward, preference_loss
from tests.export.test_reward import write_bert

pytestmark = pytest.mark.usefixtures("forked_converters")

GOOD, BAD = "She said that they'll check it again.", "def add(first, second)"
CONFIG = """
[model]
base = "{base}"
method = "{method}"
rank = 4
prompt_tokens = 24
answer_tokens = 32
[training]
epochs = {epochs}
batch = 8
learning_rate = 0.01
held_out = [0.0, 0.25]
[[data]]
part = "good"
path = "pairs.jsonl"
format = "jsonl"
[[data]]
part = "short"
path = "ratings.jsonl"
format = "ratings"
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An encoder without a head, as published ones are."""
    folder = write_bert(tmp_path_factory.mktemp("base") / "bert")
    BertForTokenClassification.from_pretrained(folder).bert.save_pretrained(folder)
    return folder


@pytest.fixture
def place(base, tmp_path):
    """Data, and a configuration for either method."""
    prompts = [f"Write letter {number}." for number in range(48)]
    pairs = [{"prompt": x, "chosen": GOOD, "rejected": BAD} for x in prompts]
    ratings = [
        {"prompt": x, "answer": answer, "score": score}
        for x in prompts[:24]
        for answer, score in ((BAD, 2), (f"{GOOD} {GOOD}", 1))
    ]
    for name, rows in (("pairs", pairs), ("ratings", ratings)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    for method in ("lora", "full"):
        text = CONFIG.format(base=base, method=method, epochs=3 if method == "lora" else 2)
        (tmp_path / f"{method}.toml").write_text(text)
    return tmp_path


def data_of(place, config):
    return read_data(config.data, config.parts, place, config.training.held_out)


def test_pairs_by_hand():
    """Margins 1 and -2: the mean of log(1 + e^-1) and log(1 + e^2)."""
    scores = torch.tensor([1.0, 0.0, 0.0, 2.0])
    loss = preference_loss(scores, torch.tensor([True, True]), torch.full((4,), math.nan), 0.3)
    assert loss.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2)


def test_ratings_by_hand():
    scores, rating = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    loss = preference_loss(scores, torch.tensor([False, False]), rating, 0.5)
    assert loss.item() == pytest.approx(0.5 * (1 + 4) / 2)


def test_pairs_and_ratings_by_hand():
    """Rows: a pair without ratings, a rated answer, a pair rated on both sides."""
    scores = torch.tensor([1.0, 2.0, 3.0, 0.0, 5.0], requires_grad=True)
    rating = torch.tensor([math.nan, 0.0, 3.0, math.nan, 4.0])
    loss = preference_loss(scores, torch.tensor([True, False, True]), rating, 0.3)
    pairs = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert loss.item() == pytest.approx(pairs + 0.3 * (4 + 0 + 1) / 3)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all()


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8), st.floats(-50, 50))
def test_pairs_alone_do_not_know_where_zero_is(values, shift):
    """Bradley-Terry sees differences only."""
    scores = torch.tensor((values * 2)[: len(values) // 2 * 2], dtype=torch.float64)
    pairs = torch.ones(len(scores) // 2, dtype=torch.bool)
    unrated = torch.full_like(scores, math.nan)
    losses = [preference_loss(shifted, pairs, unrated, 1.0) for shifted in (scores, scores + shift)]
    torch.testing.assert_close(*losses, atol=1e-9, rtol=1e-9)


def test_held_out_prompts_are_never_trained_on(place):
    config = read_config(place / "lora.toml", RewardConfig)
    data = data_of(place, config)
    sides = [
        {prompt_position(example.prompt) for example in side}
        for side in (data.held_out, data.train)
    ]
    assert max(sides[0]) < 0.25 <= min(sides[1])
    assert len(data.held_out) + len(data.train) == 48 + 48
    assert {example.source for example in data.held_out} == {"pairs.jsonl", "ratings.jsonl"}


def test_ratings_are_in_standard_deviations_of_their_file(place):
    config = read_config(place / "lora.toml", RewardConfig)
    data = data_of(place, config)
    rated = [example.ratings[0] for example in (*data.train, *data.held_out) if example.part == 1]
    assert set(rated) == {1.0, -1.0}  # scores 2 and 1, equally often
    assert all(math.isnan(example.ratings[0]) for example in data.train if example.part == 0)


def test_a_split_that_leaves_nothing_is_refused(place):
    config = read_config(place / "lora.toml", RewardConfig)
    with pytest.raises(InputError, match=r"found 96 and 0\.") as refused:
        read_data(config.data, config.parts, place, (0.0, 0.0))
    assert "training.held_out" in refused.value.cure


def test_the_command_line_learns_and_exports(place, base, monkeypatch, capsys):
    # A model this small loses more by int8 than real ones do.
    monkeypatch.setitem(export_reward.__globals__["REQUIRED"], "int8", (0.95, 0.9))
    out = place / "run"
    line = ["train", "reward", "--config", str(place / "lora.toml"), "--output", str(out)]
    assert exit_code_of(line) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{out / 'bundle'}\n"
    assert "pairs.jsonl (good): 1.000 of" in stderr
    card = read_card(out)
    assert card.parts == ("good", "short")
    pairs = card.metrics["pairs.jsonl"]["pairs"]
    assert pairs["accuracy"] == 1
    assert pairs["accuracy_95"][0] > 0.5
    assert 0 <= pairs["calibration_error"] < 0.5
    assert card.metrics["ratings.jsonl"]["ratings"]["correlation"] > 0.9
    assert {path.name for path in out.iterdir()} >= {"adapter_model.safetensors", "bundle"}
    talk = [Exchange("Write letter 900.", GOOD), Exchange("Write letter 900.", BAD)]
    expected = load_trained(out, base).score(talk)
    with open_reward([scorer_named(out / "bundle")], ModelStore.open(), threads=1) as reward:
        good = reward.score(talk).parts["good"]
    assert good[0] > good[1]
    assert good - expected[:, 0].numpy() == pytest.approx(0, abs=0.2 * abs(good[0] - good[1]))


def test_a_full_fine_tune_stands_without_its_base(place, base):
    config = read_config(place / "full.toml", RewardConfig)
    card = fit_reward(config, base, data_of(place, config), place / "run")
    assert card.metrics["pairs.jsonl"]["pairs"]["accuracy"] == 1
    assert not (place / "run/adapter_model.safetensors").exists()
    reward = load_trained(place / "run", place / "no such base")
    scores = reward.score([Exchange("Write letter 900.", answer) for answer in (GOOD, BAD)])
    assert scores[0, 0] > scores[1, 0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_stopped_run_ends_where_an_unbroken_one_does(place, base, monkeypatch, method):
    config = read_config(place / f"{method}.toml", RewardConfig)
    data = data_of(place, config)
    unbroken = fit_reward(config, base, data, place / "unbroken")
    with monkeypatch.context() as patch:
        stopping(patch, steps=len(data.train) // 8 + 3)
        with pytest.raises(Stopped):
            fit_reward(config, base, data, place / "stopped")
    assert len(list((place / "stopped/checkpoints").glob("checkpoint-*"))) == 1
    assert fit_reward(config, base, data, place / "stopped") == unbroken
    (file,) = {path.name for path in (place / "unbroken").glob("*.safetensors")}
    first, second = (load_file(place / run / file) for run in ("unbroken", "stopped"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_not_resumed_with_another_configuration(place, capsys):
    """Bug: a changed config was taken up silently, and its card told of the new one."""
    out = place / "run"
    claim(out, read_config(place / "full.toml", RewardConfig))
    line = ["train", "reward", "--config", str(place / "lora.toml"), "--output", str(out)]
    assert exit_code_of(line) == 1
    assert "was started with model.method = 'full', found 'lora'" in capsys.readouterr().err


class Stopped(BaseException):
    pass


def stopping(monkeypatch, steps):
    """Stop a run, as a kill would, after so many steps."""
    compute, made = trainer._PreferenceTrainer.compute_loss, []

    def compute_or_stop(*args, **options):
        made.append(None)
        if len(made) > steps:
            raise Stopped
        return compute(*args, **options)

    monkeypatch.setattr(trainer._PreferenceTrainer, "compute_loss", compute_or_stop)


@pytest.mark.parametrize(
    ("accuracy", "length", "is_below"),
    [(0.533, 0.568, True), (0.600, 0.520, False), (0.55, 0.55, False), (0.679, 0.75, True)],
)
def test_a_reward_below_length_is_named_when_it_is_trained(accuracy, length, is_below):
    """Holds down: both figures stood in one line, and nobody was told which is the better one."""
    pairs = {
        "count": 747,
        "accuracy": accuracy,
        "accuracy_95": [accuracy - 0.04, accuracy + 0.04],
        "accuracy_of_length": length,
        "log_loss": 0.69,
        "calibration_error": 0.01,
    }
    card = RewardCard(
        "base", ("helpful",), 96, 192, {"a.jsonl": {"part": "helpful", "pairs": pairs}}
    )
    lines = list(held_out_lines(card))
    assert any("below length on a.jsonl" in line for line in lines) == is_below

"""λ from the measured spread: on a tiny base, from the command to the number."""

from __future__ import annotations

import json
from zlib import crc32

import pytest
from click.testing import CliRunner

from alignpro_lite.cli import cli
from alignpro_lite.target.rollout import Answer
from alignpro_lite.train.prompter import run as prompter
from alignpro_lite.train.prompter import strength
from alignpro_lite.train.scaling import SCALES_FILE
from tests.support import TINY_TARGET
from tests.support.tiny_models import configurations, write_model
from tests.support.training_run import HashingTarget, train, write_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("strength") / "base", configurations()["llama"])


class ScriptedTarget:
    """Gives a prompt as many words as a function says."""

    def __init__(self, words):
        self.words = words

    def answers(self, conversations, plan, seeds):
        return [
            [Answer("word " * self.words(messages[-1].content), 1, "stop")] * plan.count
            for messages in conversations
        ]

    def close(self):
        pass


def asked(base, folder, monkeypatch, words, nats="1"):
    config = write_run(folder, base, TINY_TARGET, answers=2)
    return strength_of(config, ScriptedTarget(words), monkeypatch, nats)


def strength_of(config, target, monkeypatch, nats="1"):
    monkeypatch.setattr(strength, "open_target", lambda section, store: target)
    options = ["--config", str(config), "--prompts", "4", "--rewrites", "3"]
    options += ["--answers", "2", "--nats", nats]
    return CliRunner().invoke(cli, ["train", "strength", *options])


def test_the_command_prints_a_number_that_follows_from_the_spread(base, tmp_path, monkeypatch):
    def words(text):
        return crc32(text.encode()) % 7 + 1

    half, two = (asked(base, tmp_path, monkeypatch, words, nats) for nats in ("0.5", "2"))
    assert (half.exit_code, two.exit_code) == (0, 0), half.output
    assert float(half.stdout) == pytest.approx(2 * float(two.stdout), rel=0.02)
    assert "an answer by about 0.0000 around R, from 48 answers to 12 rewrites" in half.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.jsonl", "prompter.toml"}


def test_a_target_that_always_says_the_same_gives_no_strength(base, tmp_path, monkeypatch):
    found = asked(base, tmp_path, monkeypatch, lambda text: 1)
    assert found.exit_code != 0
    assert "no spread" in str(found.exception)


TWO = """
[[reward]]
kind = "check"
source = "gsm8k"
weights = { right = 2.0 }
"""


class NumberingTarget(HashingTarget):
    """Its first answers to a text end in the right number; how many do depends on the text."""

    def _answer(self, text, seed, *place):
        (number,), own = place, crc32(text.encode())
        return Answer("word " * (own % 7 + number) + str(int(number <= own % 2)), None, "stop")


def with_references(config):
    """The same prompts, each with a right answer."""
    file = config.parent / "prompts.jsonl"
    prompts = [json.loads(line)["prompt"] for line in file.read_text().splitlines()]
    rows = [{"question": prompt, "answer": "#### 1"} for prompt in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.write_text(TWO + config.read_text().replace('format = "prompt"', 'format = "gsm8k"'))
    return config


def test_two_kinds_of_reward_are_measured_in_the_unit_of_the_run(base, tmp_path, monkeypatch):
    """Regression: λ was in the units of the unscaled parts, which no run trains with."""
    config, target = with_references(write_run(tmp_path, base, TINY_TARGET)), NumberingTarget()
    monkeypatch.setattr(prompter, "open_target", lambda section, store: target)
    assert train(config, tmp_path / "run")
    scales = json.loads((tmp_path / "run" / SCALES_FILE).read_text())
    found = strength_of(config, target, monkeypatch)
    assert found.exit_code == 0, found.output
    assert f"{scales['spreads']['right']:.3g} of right" in found.stderr
    text = config.read_text() + '[scaling]\nby = "nothing"\n'
    for name, weight in (("right", "2.0"), ("length", "0.1")):
        text = text.replace(f"{name} = {weight}", f"{name} = {scales['weights'][name]}")
    config.write_text(text)
    by_hand = strength_of(config, target, monkeypatch)
    assert float(found.stdout) == pytest.approx(float(by_hand.stdout))

"""λ from the measured spread: on a tiny base, from the command to the number."""

from __future__ import annotations

from zlib import crc32

import pytest
from click.testing import CliRunner

from alignpro_lite.cli import cli
from alignpro_lite.target.rollout import Answer
from alignpro_lite.train.prompter import strength
from tests.support import TINY_TARGET
from tests.support.tiny_models import configurations, write_model
from tests.support.training_run import write_run


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
    target = ScriptedTarget(words)
    monkeypatch.setattr(strength, "open_target", lambda section, store: target)
    config = write_run(folder, base, TINY_TARGET, answers=2)
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

"""Rewards of several kinds in one run: each in units of its own spread, the same to the end."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest

from alignpro_lite.errors import InputError, TrainingError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.prompter.card import read_prompter_card
from alignpro_lite.reward.check import CheckScorer
from alignpro_lite.reward.exchange import TaskReference
from alignpro_lite.reward.reward import Reward
from alignpro_lite.target.rollout import Answer, AnswerPlan, TargetFailure
from alignpro_lite.train.metrics import Metrics, read_metrics
from alignpro_lite.train.prompter import run as prompter
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.scaling import SCALES_FILE, measure_scales, remembered_scales
from tests.support import TINY_TARGET
from tests.support.records import FunctionScorer
from tests.support.tiny_models import configurations, write_model
from tests.support.training_run import CONFIG, train

TWO = """
[[reward]]
kind = "check"
source = "gsm8k"
weights = {{ right = 2.0 }}
"""


class CountingTarget:
    """Answers 0, 1, 2 ... to every prompt, times what its last character says."""

    asked = 0

    def answers(self, conversations, plan, seeds):
        type(self).asked += 1
        return [
            [self.answer(said[-1].content, number) for number in range(plan.count)]
            for said in conversations
        ]

    def answer(self, text, number):
        return Answer(str(number * int(text[-1])), None, "stop")

    def close(self):
        pass


def measured(prompts, scopes=None, count=3, weight=1.0, target=None):
    numbers = FunctionScorer("number", float)
    check = CheckScorer("gsm8k", "right", {"b2": TaskReference("gsm8k", "#### 2")})
    references = {"b2": TaskReference("gsm8k", "#### 2")}
    reward = Reward([numbers, check], {"number": weight, "right": 1.0}, references=references)
    plan = AnswerPlan(count=count, max_tokens=4)
    return measure_scales(reward, target or CountingTarget(), plan, prompts, scopes or {}, 0)


def test_a_part_is_divided_by_its_deviation_over_the_answers_to_a_prompt():
    """0, 1, 2 and 0, 2, 4: variances 1 and 4. How far prompts lie apart does not matter."""
    scales = measured(["a1", "b2"], {"right": ["b2"]}, weight=-3.0)
    assert scales.spreads["number"] == pytest.approx(np.sqrt(2.5))
    assert scales.weights["number"] == pytest.approx(-3 / np.sqrt(2.5))
    assert (scales.prompts, scales.answers) == (2, 3)


def test_a_check_is_measured_on_the_prompts_that_have_a_reference():
    """The others score 0 whatever is answered, and would make its spread look smaller."""
    scales = measured(["a1", "c3", "b2"], {"right": ["b2"]})
    assert scales.spreads["right"] == pytest.approx(np.std([0, 1, 0], ddof=1))


def test_a_part_that_scores_all_answers_alike_is_refused():
    with pytest.raises(TrainingError, match=r"part 'right' .* found none on 1 prompts") as caught:
        measured(["a1"], {"right": ["a1"]})
    assert "scaling.prompts" in caught.value.cure


def test_answers_that_failed_are_left_out():
    class Failing(CountingTarget):
        def answer(self, text, number):
            return TargetFailure("no line") if text == "a1" else super().answer(text, number)

    assert measured(["a1", "b2"], target=Failing()).spreads["number"] == pytest.approx(2)


def test_scales_are_measured_once_and_kept(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return measured(["b2"])

    assert remembered_scales(tmp_path, measure) == remembered_scales(tmp_path, measure)
    assert len(calls) == 1
    (tmp_path / SCALES_FILE).write_text('{"spreads": {}}')
    with pytest.raises(InputError, match=r"scales\.json lacks the key weights"):
        remembered_scales(tmp_path, measure)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("scaling") / "base", configurations()["llama"])


@pytest.fixture
def config(base, tmp_path, monkeypatch):
    """A run on questions with references, under a reward of the given tables."""
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prompter, "open_target", lambda section, store: CountingTarget())
    monkeypatch.setattr(CountingTarget, "answer", _spoken)
    questions = [f"How many are {number}?" for number in range(60)]
    train_on = [q for q in questions if prompt_position(q) >= 0.25][:5]
    held_out = [q for q in questions if prompt_position(q) < 0.25][:3]
    rows = [{"question": q, "answer": f"#### {n}"} for q, n in zip(train_on, count(), strict=False)]
    rows += [{"question": q, "answer": "#### 1"} for q in held_out]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(more=TWO):
        text = (more + CONFIG).format(
            base=base, target=TINY_TARGET, reward="length", answers=2, prompts=2, steps=3
        )
        text = text.replace("prompts.jsonl", "tasks.jsonl").replace('"prompt"', '"gsm8k"')
        file = tmp_path / "prompter.toml"
        file.write_text(text)
        return file

    return write


def _spoken(target, text, number):
    return Answer(f"{'word ' * (number + len(text) % 3)}{number}", 2, "stop")


def test_a_run_with_two_kinds_of_reward_scales_them_and_resumes_with_the_same(
    config, tmp_path, monkeypatch
):
    file, run, notes = config(), tmp_path / "run", []
    write = Metrics.write

    def write_and_stop(metrics, at, values):
        write(metrics, at, values)
        if at == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(file, run, notes.append)
    kept = (run / SCALES_FILE).read_bytes()
    assert train(file, run, notes.append)
    assert (run / SCALES_FILE).read_bytes() == kept
    scales = json.loads(kept)
    assert scales["weights"]["right"] == pytest.approx(2 / scales["spreads"]["right"])
    assert len([note for note in notes if note.startswith("The unit of the reward")]) == 2
    for line in read_metrics(run):
        expected = sum(w * line[f"reward/{name}"] for name, w in scales["weights"].items())
        assert line["reward"] == pytest.approx(expected)
    recorded = json.loads((run / "config.json").read_text())["scaling"]
    assert recorded == {"by": "spread", "prompts": 32, "answers": 4}
    card = read_prompter_card(run / "adapter")
    assert card
    assert card.reward
    assert f"{scales['weights']['right']:g} right" in card.reward


def test_a_single_reward_is_what_it_was(config, tmp_path):
    assert train(config(""), tmp_path / "run")
    assert not (tmp_path / "run" / SCALES_FILE).exists()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["scaling"] is None
    for line in read_metrics(tmp_path / "run"):
        assert line["reward"] == pytest.approx(0.1 * line["reward/length"])


def test_a_sum_may_stay_unscaled(config, tmp_path):
    assert train(config(TWO + '[scaling]\nby = "nothing"\n'), tmp_path / "run")
    assert not (tmp_path / "run" / SCALES_FILE).exists()
    for line in read_metrics(tmp_path / "run"):
        assert line["reward"] == pytest.approx(
            0.1 * line["reward/length"] + 2 * line["reward/right"]
        )


def test_several_rewards_state_their_scaling(config):
    assert read_config(config(), PrompterConfig).scaling is not None

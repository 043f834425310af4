"""Teaching a base model hints: from pairs to an adapter, unbroken, broken and resumed."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.prompter.card import read_prompter_card
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry import ModelStore
from alignpro_lite.train import checkpoint
from alignpro_lite.train.metrics import Metrics, read_metrics
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import LoraSection
from alignpro_lite.train.reference.config import HintDataSection, ReferenceConfig
from alignpro_lite.train.reference.pairs import HintPair, read_pairs
from alignpro_lite.train.reference.run import train_reference
from alignpro_lite.train.reference.trainer import (
    hint_and_first_log_probs,
    hint_log_probs,
    lesson_of,
)
from tests.support import ROOT, TINY_TARGET
from tests.support.reference_adapters import WORDS
from tests.support.tiny_models import configurations, write_model

CONFIG = """
targets = ["{target}"]
[prompter]
base = "{base}"
max_tokens = 6
doubt = 0.3
dtype = "float32"
rank = 2
modules = ["q_proj", "v_proj"]
[training]
epochs = 3
batch = 4
warmup = 1
learning_rate = 0.02
checkpoint = 2
[data]
folder = "pairs"
held_out = 0.3
"""
TURNS = [
    {"role": "user", "content": "Name a lake."},
    {"role": "assistant", "content": "Como."},
    {"role": "user", "content": "And a deeper one?"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("reference") / "base", configurations()["llama"])


@pytest.fixture
def folder(base, tmp_path):
    """A configuration with its pairs."""
    (tmp_path / "pairs").mkdir()
    rows = [
        {"language": "en", "prompt": f"Name river {number}.", "hint": "Be brief." * (number % 3)}
        for number in range(14)
    ]
    chats = [{"language": "en", "turns": TURNS, "hint": "Depth."}]
    for name, some in (("rivers", rows), ("chats", chats)):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / "pairs" / f"{name}.jsonl").write_text(text)
    (tmp_path / "reference.toml").write_text(CONFIG.format(base=base, target=TINY_TARGET))
    return tmp_path


def train(folder, run, note=lambda text: None):
    config = read_config(folder / "reference.toml", ReferenceConfig)
    return train_reference(config, Places(folder, run, ModelStore.open()), note)


def weights(run):
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_a_run_leaves_an_adapter_with_its_card_and_hints_to_read(folder, base):
    notes, run = [], folder / "run"
    assert train(folder, run, notes.append)
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["loss"] < lines[0]["loss"]
    card = read_prompter_card(run / "adapter")
    assert card is not None
    assert card.is_reference
    assert card.reference_rank == 2
    assert [target.name for target in card.targets.known] == [TINY_TARGET.name]
    assert card.profile("it", is_trained=False).doubt == 0.3
    assert card.template.examples == ()
    assert card.template.system == AUGMENT.system
    best = min(line["held_out"] for line in lines if "held_out" in line)
    assert card.metrics["loss"] == pytest.approx(best, abs=1e-4)
    assert "river" in (run / "hints.md").read_text()
    assert any("should stay as they are" in note for note in notes)
    assert train(folder, run, notes.append)
    assert "is done" in notes[-1]


@pytest.mark.parametrize("kill", [False, True], ids=["Ctrl-C", "killed"])
def test_a_broken_run_resumes_as_if_nothing_had_happened(folder, monkeypatch, kill):
    assert train(folder, folder / "whole")
    write = Metrics.write

    def write_and_stop(metrics, at, values):
        write(metrics, at, values)
        if at == 5 and kill:
            raise SystemError
        if at == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "write", write_and_stop)
        if kill:
            with pytest.raises(SystemError):
                train(folder, folder / "broken")
        else:
            assert not train(folder, folder / "broken")
    (saved,) = (folder / "broken").glob("checkpoint-*")
    assert checkpoint.step_of(saved) == (4 if kill else 5)
    assert train(folder, folder / "broken")
    first, second = weights(folder / "whole"), weights(folder / "broken")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_metrics(folder / "whole") == read_metrics(folder / "broken")
    assert (folder / "whole/hints.md").read_text() == (folder / "broken/hints.md").read_text()


def test_the_loss_is_that_of_the_hint_and_its_stop_token_alone(base):
    policy = Policy(base, WORDS, LoraSection(dtype="float32", rank=2), 6, "cpu", seed=0)
    pairs = [
        HintPair("a", "en", (), "Name a river.", "Be brief."),
        HintPair("a", "en", (), "Name a lake.", ""),
    ]
    lessons = [lesson_of(policy, pair) for pair in pairs]
    assert lessons[1].output == (policy.tokens.stop[0],)
    for lesson, found in zip(lessons, hint_log_probs(policy, lessons).tolist(), strict=True):
        ids = torch.tensor([[*lesson.request, *lesson.output]])
        with torch.no_grad():
            logits = policy.model(ids).logits[0, len(lesson.request) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(lesson.output)[:, None])
        assert found == pytest.approx(float(chosen.sum()), abs=1e-3)


def test_the_first_token_is_scored_alone_beside_the_whole(base):
    policy = Policy(base, WORDS, LoraSection(dtype="float32", rank=2), 6, "cpu", seed=0)
    pairs = [HintPair("a", "en", (), "Name a river.", hint) for hint in ("Be brief.", "")]
    lessons = [lesson_of(policy, pair) for pair in pairs]
    hints, firsts = hint_and_first_log_probs(policy, lessons)
    heads = [replace(lesson, output=lesson.output[:1]) for lesson in lessons]
    assert firsts.tolist() == pytest.approx(hint_log_probs(policy, heads).tolist(), abs=1e-5)
    assert hints.tolist() == pytest.approx(hint_log_probs(policy, lessons).tolist(), abs=1e-5)
    assert firsts[1] == hints[1]
    assert firsts[0] > hints[0]


def test_pairs_are_held_out_by_their_hash_and_know_their_conversation(folder):
    section = HintDataSection("pairs", held_out=0.3)
    pairs = read_pairs(section, folder)
    assert len(pairs.train) + len(pairs.held_out) == 15
    assert all(pair.position < 0.3 for pair in pairs.held_out)
    assert not pairs.left_out
    (chat,) = (pair for pair in (*pairs.train, *pairs.held_out) if pair.kind == "chats")
    assert [turn.content for turn in chat.earlier] == ["Name a lake.", "Como."]
    assert chat.prompt == "And a deeper one?"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"language": "en", "prompt": "Hi"}, "text under 'hint'"),
        ({"language": "en", "hint": ""}, "text under 'prompt'"),
        ({"language": "en", "turns": TURNS[:2], "hint": ""}, "end with a message of the user"),
    ],
)
def test_rows_that_are_no_pairs_are_named(tmp_path, row, expected):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=expected):
        read_pairs(HintDataSection("."), tmp_path)


def test_a_folder_without_pairs_is_named(tmp_path):
    with pytest.raises(InputError, match=r"0 in 0 \*\.jsonl files"):
        read_pairs(HintDataSection("."), tmp_path)


def test_hints_do_not_teach_to_rewrite(folder):
    text = (folder / "reference.toml").read_text()
    (folder / "reference.toml").write_text(
        text.replace("max_tokens", 'mode = "rewrite"\nmax_tokens')
    )
    with pytest.raises(InputError, match=r"mode must be augment"):
        train(folder, folder / "run")


def test_the_committed_pairs_can_be_read():
    pairs = read_pairs(HintDataSection("reference"), ROOT / "configs")
    assert not pairs.left_out
    assert len({pair.kind for pair in pairs.held_out}) == 33

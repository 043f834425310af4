"""Training configurations, prompt files and the held-out split: refused before a model loads."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignpro_lite.cli import exit_code_of
from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.models import load_prompts
from alignpro_lite.experiment.prompts import (
    Task,
    prompt_format,
    prompt_position,
    read_tasks,
    split_prompts,
)
from alignpro_lite.experiment.sections import PromptDataSection, PromptSourceSection
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.reward.config import RewardConfig
from alignpro_lite.train.reward.preferences import read_preferences
from tests.support import ROOT

CONFIGS = ROOT / "configs"
PROMPTER = """
[prompter]
{prompter}
[target]
{target}
[answers]
{answers}
[[reward]]
kind = "python"
source = "tests.support.reward_functions:length"
weights = {weights}
[objective]
{objective}
[training]
{training}
[data]
prompts = [{{ path = "p.jsonl", format = "{format}" }}]
"""
GOOD = {
    "prompter": "",
    "target": 'kind = "gguf"',
    "answers": "",
    "weights": "{ length = 1.0 }",
    "objective": "strength = 0.1",
    "training": "",
    "format": "prompt",
}
GOOD_REWARD = '[[data]]\npart = "good"\npath = "p.jsonl"\nformat = "jsonl"\n'


@pytest.mark.parametrize(
    ("change", "key", "value", "allowed"),
    [
        ({"training": 'steps = "many"'}, "training.steps", "'many'", "a whole number, at least 1"),
        ({"training": "steps = 0"}, "training.steps", "0", "a whole number, at least 1"),
        ({"training": "steps = true"}, "training.steps", "True", "a whole number, at least 1"),
        ({"training": "steps = 2.0"}, "training.steps", "2.0", "a whole number, at least 1"),
        ({"training": "learning_rate = -1"}, "training.learning_rate", "-1", "a number, above 0"),
        ({"training": 'clip = "1"'}, "training.clip", "'1'", "a number, above 0"),
        ({"training": "clip = true"}, "training.clip", "True", "a number, above 0"),
        ({"training": "learning_rate = nan"}, "training.learning_rate", "nan", "a finite number"),
        ({"training": "failures = 1.5"}, "training.failures", "1.5", "above 0 and at most 1"),
        ({"training": "seed = -1"}, "training.seed", "-1", "at least 0 and below 4294967296"),
        ({"objective": "strength = 0"}, "objective.strength", "0", "a number, above 0"),
        ({"objective": "strength = inf"}, "objective.strength", "inf", "a finite number"),
        ({"objective": "strength = 1\nrewrites = 1"}, "objective.rewrites", "1", "at least 2"),
        ({"prompter": 'mode = "append"'}, "prompter.mode", "'append'", '"augment" or "rewrite"'),
        ({"prompter": "modules = 3"}, "prompter.modules", "3", '"all-linear" or a list, each'),
        ({"prompter": 'modules = ["a", 3]'}, "prompter.modules.1", "3", "text"),
        ({"answers": "temperature = 101"}, "answers.temperature", "101", "at most 100"),
        ({"target": 'kind = "vllm"'}, "target.kind", "'vllm'", '"gguf", "openai" or "hugging'),
        ({"target": 'kind = "gguf"\ncontext = 9'}, "target.context", "9", "at least 256"),
        (
            {"weights": "{ Length = 1.0 }"},
            "reward.0.weights",
            "{'Length': 1.0}",
            r"with names like `\[a-z\]\[a-z0-9_-\]\*`, each value a number",
        ),
        ({"weights": '{ size = "1" }'}, "reward.0.weights", "{'size': '1'}", "each value a number"),
        ({"weights": "{}"}, "reward.0.weights", "{}", "a table that is not empty"),
        ({"format": "csv"}, "data.prompts.0.format", "'csv'", '"instruction" or "prompt"'),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(tmp_path, change, key, value, allowed):
    with pytest.raises(InputError) as refused:
        read(tmp_path, change)
    assert refused.value.problem.startswith(f"{tmp_path / 'c.toml'}: {key} must be ")
    assert refused.value.problem.endswith(f", found {value}.")
    assert re.search(allowed, refused.value.problem)
    assert refused.value.cure == f"Correct {key}."


def test_a_whole_number_serves_as_a_number_and_nothing_else_is_converted(tmp_path):
    assert read(tmp_path, {"training": "clip = 2"}).training.clip == 2.0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"objective": ""}, "lacks the key objective.strength"),
        ({"target": 'kind = "openai"\nurl = "http://x"'}, "lacks the key target.model"),
        ({"target": 'source = "x"'}, "lacks the key target.kind"),
        ({"training": "step = 3"}, r"unknown key training.step = 3 \(near: steps, "),
        ({"target": 'kind = "gguf"\nurl = "x"'}, "unknown key target.url = 'x'"),
        ({"training": "step = 3\nsteps = 0"}, "training.step"),
        ({"training": "steps = 1\nsteps = 2"}, "not valid TOML"),
    ],
)
def test_missing_and_unknown_keys_are_named(tmp_path, change, problem):
    with pytest.raises(InputError, match=problem):
        read(tmp_path, change)


@pytest.mark.parametrize(
    "target",
    [
        'url = "https://me:hunter2@host/v1"\nmodel = "m"',
        'url = "https://me:sec/hunter2@host/v1"\nmodel = "m"',
        'url = "https://host/v1?key=hunter2"\nmodel = "m"',
        'url = ["https://me:hunter2@host/v1"]\nmodel = "m"',
        'url = "https://host"\nmodel = "m"\napi_key = "sk-hunter2"',
        'url = "https://host"\nmodel = "m"\nAPI_TOKEN = "sk-hunter2"',
        'url = "https://host"\nmodel = "m"\npassword = "hunter2"',
        'url = "https://host"\nmodel = "m"\nheaders = {Authorization = 1, token = "hunter2"}',
        'url = "https://host"\nmodel = "m"\nkey_variable = ["sk-hunter2"]',
    ],
)
def test_no_message_shows_a_secret_that_is_put_into_a_configuration(tmp_path, target):
    """Unknown keys and wrong values were printed, whatever they held."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, {"target": f'kind = "openai"\n{target}'})
    assert "hunter2" not in str(caught.value)


def test_an_unknown_key_comes_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="known keys: kind, source, context"):
        read(tmp_path, {"target": 'kind = "gguf"\nurl = "x"'})


def test_a_part_name_in_two_rewards_is_refused(tmp_path):
    text = PROMPTER.format(**GOOD)
    reward = text[text.index("[[reward]]") : text.index("[objective]")]
    (tmp_path / "c.toml").write_text(text.replace("[objective]", reward + "[objective]"))
    with pytest.raises(InputError) as refused:
        read_config(tmp_path / "c.toml", PrompterConfig)
    assert "part names must be unique, found length, length" in refused.value.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lacks the key data"),
        (GOOD_REWARD.replace("good", "Good"), "data.0.part must be .*, found 'Good'"),
        (
            GOOD_REWARD + "[training]\nseed = 4294967296",
            "training.seed must be .*, found 4294967296",
        ),
        (GOOD_REWARD + "[training]\nepochs = 0", "training.epochs must be .*, found 0"),
        (GOOD_REWARD + "[model]\nmethod = 'dora'", "model.method must be .*, found 'dora'"),
        (GOOD_REWARD + "[training]\nheld_out = [0, 2]", "training.held_out.1 must be .*, found 2"),
    ],
)
def test_a_reward_configuration_is_checked_likewise(tmp_path, text, problem):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_config(tmp_path / "c.toml", RewardConfig)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"a = " + b"[" * 100_000])
def test_a_file_that_is_no_toml_is_one_line(tmp_path, content):
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(InputError, match="not valid TOML"):
        read_config(tmp_path / "c.toml", PrompterConfig)


@pytest.mark.parametrize("command", ["prompter", "reward"])
def test_the_command_line_refuses_before_any_model_opens(tmp_path, command, monkeypatch, capsys):

    def opened(*args, **kwargs):
        raise AssertionError("a model was opened")

    for kind in ("AutoModelForCausalLM", "AutoModelForSequenceClassification"):
        monkeypatch.setattr(f"transformers.{kind}.from_pretrained", opened)
    (tmp_path / "c.toml").write_text("[training]\nsteps = 0\nepochs = 0\n")
    line = ["train", command, "--config", str(tmp_path / "c.toml"), "--output", str(tmp_path / "o")]
    assert exit_code_of(line) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def read(folder, change):
    (folder / "c.toml").write_text(PROMPTER.format(**GOOD | change))
    return read_config(folder / "c.toml", PrompterConfig)


def test_positions_of_prompts_never_change():
    """The shipped split hangs on them; white space and case do not count."""
    assert prompt_position("Name a river.") == pytest.approx(0.5215805711530844, abs=1e-15)
    assert prompt_position("Où est la gare ?") == pytest.approx(0.6254934462406735, abs=1e-15)
    assert prompt_position("  name\n A RIVER. ") == prompt_position("Name a river.")


@given(st.lists(st.text("ab C\u00e9", min_size=1), max_size=40, unique=True), st.floats(0.01, 0.99))
def test_a_split_loses_nothing_and_shares_nothing(texts, share):
    prompts = ["Name a river.", "river", "Name", "a", *texts]
    positions = [prompt_position(prompt) for prompt in prompts]
    assume(min(positions) < share <= max(positions))
    split = split_prompts(prompts * 2, share, 0, len, 1000)
    assert sorted([*split.train, *split.held_out]) == sorted(set(prompts))
    sides = [{prompt_position(one) for one in side} for side in (split.train, split.held_out)]
    assert min(sides[0]) >= share > max(sides[1])


def test_a_split_with_an_empty_side_is_refused():
    with pytest.raises(InputError, match="found 0 and 1 of at most 9 tokens"):
        split_prompts(["Name a river."], 0.6, 0, lambda prompt: 9, 9)


def test_the_order_of_prompts_hangs_on_the_seed_and_long_ones_are_counted():
    rows = [f"prompt {number}" for number in range(40)]
    first, same, other = (split_prompts(rows, 0.5, s, len, 8) for s in (1, 1, 2))
    assert first == same
    assert first.train != other.train
    assert sorted(first.train) == sorted(other.train)
    assert first.too_long == 30


def test_the_rows_and_prompts_of_a_run_are_told(tmp_path):
    lines = [json.dumps({"prompt": f"prompt {number}"}) for number in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    told: list[str] = []
    file = PromptSourceSection("a.jsonl", "prompt")
    section = PromptDataSection((file,), max_prompt_tokens=9)
    prompts = load_prompts(section, tmp_path, lambda prompt: range(2 + len(prompt)), 0, told.append)
    row, counts = told
    assert row.startswith("a.jsonl: row 41 left out, it is not valid JSON (Expecting property name")
    assert prompts.too_long == 0
    assert counts.startswith(f"{len(prompts.train)} prompts to train on, {len(prompts.held_out)} ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "it is not valid JSON"),
        ("[" * 100_000, "it is not valid JSON"),
        ('{"prompt": ' + "9" * 5000 + "}", "it is not valid JSON"),
        ("3", "expected an object"),
        ('{"prompt": "  "}', "'prompt'"),
        ('{"prompt": ["a"]}', "'prompt'"),
        ('{"prompt": "\\ud800"}', "'prompt'"),
    ],
)
def test_a_prompt_that_does_not_parse_is_listed_with_its_line(tmp_path, line, reason):
    good = json.dumps({"prompt": "Name a river."})
    (tmp_path / "p.jsonl").write_text("\n".join([good, "", line, *[good] * 30]), "utf-8-sig")
    rows, bad = read_tasks(tmp_path / "p.jsonl", "prompt")
    assert len(rows) == 31
    assert [row.split(" left out, ")[0] for row in bad] == ["row 3"]
    assert reason in bad[0]


def test_an_instruction_takes_its_context(tmp_path):
    rows: list[dict[str, object]] = [
        {"instruction": "Sum up.", "context": " Long. "},
        {"instruction": "Sing.", "context": ""},
    ]
    rows += rows[1:] * 30 + [{"instruction": "Sum up.", "context": ["Long."]}]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    read, bad = read_tasks(tmp_path / "p.json", "instruction")
    assert read[:2] == [Task("Sum up.\nLong."), Task("Sing.")]
    assert [row.split(" left out, ")[0] for row in bad] == ["row 33"]


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1" + "0" * 400, "true", "null", '"3"'])
def test_a_rating_that_is_no_finite_number_is_a_bad_row(tmp_path, score):
    """One NaN would make the mean of its whole file NaN, and every rating unknown."""
    row = '{"prompt": "p", "answer": "a", "score": %s}'
    (tmp_path / "r.jsonl").write_text("\n".join([row % 1] * 30 + [row % score]))
    _, bad = read_preferences(tmp_path / "r.jsonl", "ratings")
    assert [row.split(" left out, ")[0] for row in bad] == ["row 31"]
    assert "'score'" in bad[0]


@pytest.mark.parametrize("metadata", ["score_chosen", 3, None])
def test_odd_metadata_of_a_pair_are_left_aside(tmp_path, metadata):
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "metadata": metadata}
    (tmp_path / "u.jsonl").write_text(json.dumps(row))
    (pair,), _ = read_preferences(tmp_path / "u.jsonl", "ultrafeedback")
    assert not pair.scores


def test_a_damaged_archive_is_one_line(tmp_path):
    content = bytearray(gzip.compress(b"x" * 1000))
    content[12] ^= 0xFF
    (tmp_path / "p.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_tasks(tmp_path / "p.jsonl.gz", "prompt")


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ('{"prompt": "Name a river."}', "prompt"),
        ('{"messages": [{"role": "user", "content": "Name a river."}]}', "prompt"),
        ('{"instruction": "Name a river.", "context": ""}', "instruction"),
        ('{"prompt": "Name a river.", "instruction": "for the annotator"}', "prompt"),
        ('{"question": "Name a river."}', "prompt"),
    ],
)
def test_the_format_of_prompts_is_that_of_their_keys(tmp_path, line, form):
    """A line that is broken says nothing about the others."""
    (tmp_path / "p.jsonl").write_text('{"prompt": \n' + line + "\n")
    assert prompt_format(tmp_path / "p.jsonl") == form

"""`eval headroom` from a file of prompts to its page: planned, killed, continued, and misused."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from alignpro_lite.cli import exit_code_of
from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval import trying
from alignpro_lite.eval.config import HeadroomSection
from alignpro_lite.eval.design import HeadroomBudget, plan_design
from alignpro_lite.eval.headroom import (
    DESIGN,
    HEADROOM,
    HEADROOM_PAGE,
    HEADROOM_TEXT,
    TRIED,
    evaluate_headroom,
    headroom_config,
)
from alignpro_lite.eval.hints import GeneralHint, read_hints
from alignpro_lite.eval.report.headroom import headroom_text, headroom_verdict
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.rollout import AnswerPlan, TargetFailure
from tests.support import TINY_BUNDLE, TINY_TARGET

REWARDS = "tests.support.reward_functions"
PLENTY = HeadroomBudget(None, 10_000)
HINTS = [hint.text for hint in read_hints(None)]
TWO_HINTS = [HINTS[0], HINTS[len(HINTS) // 2]]
FEW = HeadroomSection(bundle=str(TINY_BUNDLE), hints=2, rewrites=2, answers=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all: what was probed once need not be probed again."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def places(tmp_path, monkeypatch, cache):
    return places_in(tmp_path, monkeypatch, cache)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A run of every prompt, its notes and its report; read it only."""
    notes = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        places = places_in(tmp_path_factory.mktemp("finished"), monkeypatch, cache)
        return places, notes, evaluate_headroom(config_of(places), PLENTY, places, notes.append)


def places_in(folder, monkeypatch, cache):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(cache))
    rows = [{"prompt": f"Name river {number}."} for number in range(6)]
    (folder / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Places(folder, folder / "out", ModelStore.open())


def config_of(places, section=FEW, reward="length"):
    names = {
        "target": str(TINY_TARGET),
        "prompter": str(TINY_BUNDLE),
        "reward": f"{REWARDS}:{reward}",
    }
    plan = AnswerPlan(count=2, max_tokens=4)
    found = headroom_config(places.data / "my.jsonl", names, plan, places.store)
    return replace(found, headroom=section)


def silent(text):
    pass


def rows_of(places):
    return [json.loads(line) for line in (places.run / TRIED).read_text().splitlines()]


def without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_prompt_is_tried_with_hints_and_rewrites_and_the_report_says_what_came_out(finished):
    places, notes, report = finished
    assert report.found.prompts == 6
    assert report.sources == ("ρ_θ", "ρ_sft")
    assert any("About" in note and "prompts fit into the budget" in note for note in notes)
    for row in rows_of(places):
        hinted = [f"{row['prompt']}\n\n{hint}" for hint in TWO_HINTS]
        assert row["sent"][:3] == [row["prompt"], *hinted]
        assert [sum(counts) for counts in row["written"]] == [2, 2]
        assert len(set(row["sent"])) == len(row["sent"]) == len(row["rewards"])
        assert all(len(rewards) == 2 for rewards in row["rewards"])
        assert len(row["more"]) == 4
    assert report.found.calls == sum(
        2 * len(r["rewards"]) + len(r["more"]) for r in rows_of(places)
    )
    found = json.loads((places.run / HEADROOM).read_text())
    assert found["verdict"] == report.found.verdict(report.worth)
    assert found["best_hint"] in TWO_HINTS
    text = (places.run / HEADROOM_TEXT).read_text()
    page = (places.run / HEADROOM_PAGE).read_text()
    for part in (found["sentence"].split(":")[0], "Prompt × rewrite", "those of ρ_sft", HINTS[0]):
        assert part in text
        assert part.replace("'", "&#39;") in page


def test_answers_to_different_rewrites_have_streams_of_their_own(finished):
    """With common streams, the noise of answers would pass for what rewrites share."""
    places, _, _ = finished
    same = [
        row["rewards"][0] == list(row["more"][:2]) == list(row["more"][2:])
        for row in rows_of(places)
    ]
    assert not all(same)


def test_a_run_that_was_killed_goes_on_and_computes_nothing_twice(places, finished, monkeypatch):
    config, (whole, _, expected) = config_of(places), finished
    row, calls = trying.Trying.row, []

    def stopping(self, number, prompt):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return row(self, number, prompt)

    monkeypatch.setattr(trying.Trying, "row", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_headroom(config, PLENTY, places, silent)
    with (places.run / TRIED).open("a") as handle:
        handle.write('{"run": "cut sho')  # as a kill in the middle of a line would leave it
    notes = []
    again = evaluate_headroom(config, PLENTY, places, notes.append)
    assert "Resuming: 2 prompts are done." in notes
    assert not any("fit into the budget" in note for note in notes), "that was decided before"
    assert calls == [0, 1, 2, 2, 3, 4, 5]
    assert again.found == expected.found
    assert without_time(rows_of(places)) == [
        row | {"run": rows_of(places)[0]["run"]} for row in without_time(rows_of(whole))
    ]


def test_a_larger_budget_continues_with_more_prompts(places):
    """The design stays, so that all prompts belong to one table."""
    found = evaluate_headroom(config_of(places), HeadroomBudget(None, 56), places, silent).found
    assert found.prompts < 6
    assert found.calls <= 56
    before = rows_of(places)
    assert evaluate_headroom(config_of(places), PLENTY, places, silent).found.prompts == 6
    assert rows_of(places)[: found.prompts] == before
    assert len((places.run / DESIGN).read_text().splitlines()) == 1


def test_hints_that_changed_between_two_runs_do_not_mix(places, monkeypatch):
    """Another version of the package may bring other hints."""
    evaluate_headroom(config_of(places), HeadroomBudget(None, 10), places, silent)
    others = [GeneralHint("first", "One."), GeneralHint("second", "Two.")]
    monkeypatch.setattr("alignpro_lite.eval.headroom.read_hints", lambda file: others)
    report = evaluate_headroom(config_of(places), PLENTY, places, silent)
    assert list(report.hints) == TWO_HINTS
    assert all(HINTS[0] in row["sent"][1] for row in rows_of(places))


def test_a_budget_that_is_too_small_is_named_and_the_fewest_prompts_are_tried(places):
    notes = []
    budget = HeadroomBudget(None, 10)
    assert evaluate_headroom(config_of(places), budget, places, notes.append).found.prompts == 4
    assert any("The fewest prompts, 4, take 7.2 times the budget." in note for note in notes)


def test_a_prompt_that_cannot_be_answered_is_left_out_and_named(places, monkeypatch):
    from alignpro_lite.target.rollout import GgufTarget

    answers = GgufTarget.answers

    def failing(self, conversations, plan, seed):
        outcomes = answers(self, conversations, plan, seed)
        if "river 3" in conversations[0][0].content:
            outcomes[1][0] = TargetFailure("no line")
        return outcomes

    monkeypatch.setattr(GgufTarget, "answers", failing)
    report = evaluate_headroom(config_of(places), PLENTY, places, silent)
    assert report.found.prompts == 5
    assert any("left out: an answer failed (no line)." in note for note in report.notes)


def test_an_answer_without_a_score_costs_itself_and_a_note_counts_it(places, monkeypatch):
    """Regression: one of fifty answers without a score left its whole prompt out."""

    def patchy(prompts, answers):
        return [np.nan if place % 2 else len(answer) for place, answer in enumerate(answers)]

    monkeypatch.setattr(f"{REWARDS}.length", patchy)
    report = evaluate_headroom(config_of(places), PLENTY, places, silent)
    assert report.found.prompts == 6
    for row in rows_of(places):
        assert row["unscored"] == len(row["rewards"]) + 2
        assert all(first == second for first, second in row["rewards"])
    half = report.found.calls // 2
    assert any(f"{half} of {report.found.calls} answers have no score" in n for n in report.notes)


def test_the_time_of_rewrites_and_scores_belongs_to_the_plan(places, monkeypatch):
    """Regression: only the target was timed, so a slow judge got the largest design for good."""
    passed = [0.0]

    def slow(prompts, answers):
        passed[0] += len(answers)
        return [float(len(answer)) for answer in answers]

    monkeypatch.setattr(f"{REWARDS}.length", slow)
    monkeypatch.setattr(trying, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    notes = []
    config = config_of(places, HeadroomSection(bundle=str(TINY_BUNDLE)))
    evaluate_headroom(config, HeadroomBudget(25 * 30, None), places, notes.append)
    (design,) = [json.loads(line) for line in (places.run / DESIGN).read_text().splitlines()]
    assert (len(design["hints"]), design["rewrites"], design["answers"]) == (6, 3, 2)
    assert any("About 25 prompts fit into the budget." in note for note in notes)


def test_a_reward_that_scores_nothing_stops_the_run(places, monkeypatch):
    monkeypatch.setattr(f"{REWARDS}.undecided", lambda prompts, answers: [np.nan] * len(answers))
    config = config_of(places, reward="undecided")
    with pytest.raises(InputError, match=r"4 of 4 prompts could not be tried.*have no score"):
        evaluate_headroom(config, PLENTY, places, silent)


def test_a_reward_that_fails_ends_the_run_with_its_own_error(places):
    with pytest.raises(RewardError, match="no such word"):
        evaluate_headroom(config_of(places, reward="raising"), PLENTY, places, silent)


def test_too_few_prompts_are_refused_before_anything_is_answered(places):
    (places.data / "my.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')
    with pytest.raises(InputError, match="at least 4 different prompts, found 3"):
        evaluate_headroom(config_of(places), PLENTY, places, silent)
    assert not (places.run / DESIGN).exists()


# --- what is tried


LETTERS = tuple("abcdefghijkl")


def sizes(design):
    return len(design.hints), design.rewrites, design.answers


def test_a_design_leaves_room_for_prompts():
    section = HeadroomSection()
    assert sizes(plan_design(1e5, 2, section, LETTERS)) == (8, 4, 4)
    assert sizes(plan_design(24 * 30, 2, section, LETTERS)) == (6, 3, 2)
    assert sizes(plan_design(10, 2, section, LETTERS)) == (3, 2, 2)
    assert plan_design(10, 2, section, LETTERS).hints == ("a", "e", "i")
    assert plan_design(1e5, 2, section, LETTERS[:5]).hints == LETTERS[:5]


def test_what_a_configuration_fixes_is_not_planned():
    section = HeadroomSection(hints=3, answers=6)
    assert sizes(plan_design(1e5, 1, section, LETTERS)) == (3, 4, 6)
    assert sizes(plan_design(10, 1, section, LETTERS)) == (3, 2, 6)


@pytest.mark.parametrize(
    ("budget", "done", "calls", "prompts"),
    [
        (HeadroomBudget(600.0, None), 2, 100, 30),
        (HeadroomBudget(None, 1000), 2, 100, 20),
        (HeadroomBudget(10.0, None), 2, 100, 4),  # fewer say nothing
        (HeadroomBudget(None, 459), 8, 400, 8),  # another one may take 60
        (HeadroomBudget(None, 460), 8, 400, 9),
    ],
)
def test_a_budget_is_prompts_at_the_cost_so_far(budget, done, calls, prompts):
    assert budget.prompts(done, seconds=40.0, calls=calls, most=60) == prompts


# --- the report


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("constant", "A constant hint is worth"),
        ("choice", "Choosing a rewrite for each prompt pays"),
        ("open", "Rewriting pays, but it is open whether"),
        ("hurts", "Rewriting hurts"),
        ("nothing", "There is nothing to gain that matters"),
        ("noisy", "Too noisy to tell"),
    ],
)
def test_every_verdict_is_one_sentence(finished, monkeypatch, verdict, sentence):
    _, _, report = finished
    monkeypatch.setattr(type(report.found), "verdict", lambda *_: verdict)
    shown = headroom_verdict(report).text
    assert shown.startswith(sentence)
    assert shown.endswith(".")
    assert shown.count(". ") == 0
    assert shown.split(":")[0] in headroom_text(report)


# --- the command


def run(*arguments):
    return exit_code_of(["eval", "headroom", *map(str, arguments)])


def test_the_command_prints_json_and_resumes(places, capsys):
    command = (
        *("--prompts", places.data / "my.jsonl", "--output", places.run, "--json"),
        *("--target", TINY_TARGET, "--prompter", TINY_BUNDLE, "--reward", f"{REWARDS}:length"),
        *("--max-tokens", 4, "--calls", 60),
    )
    assert run(*command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["found"]["prompts"] >= 4
    assert run(*command) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_the_command_reads_a_configuration(places, capsys):
    config = places.data / "eval.toml"
    config.write_text(
        f'[target]\nkind = "gguf"\nsource = "{TINY_TARGET}"\ncontext = 2048\n'
        "[answers]\ncount = 2\nmax_tokens = 4\n"
        '[[data]]\nname = "mine"\npath = "my.jsonl"\nformat = "prompt"\npart = "all"\n'
        f'[[judge]]\nname = "length"\nreward = [{{ kind = "python", source = "{REWARDS}:length", '
        "weights = { length = 1.0 } }]\n"
        '[[system]]\nname = "none"\nkind = "none"\n'
        f'[headroom]\nbundle = "{TINY_BUNDLE}"\nhints = 2\nrewrites = 2\nanswers = 2\n'
    )
    assert run("--config", config, "--output", places.run, "--calls", 60) == 0
    assert capsys.readouterr().out.startswith("# Headroom")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "Missing option '--prompts' or '--config'"),
        (("--prompts", "{file}", "--data", "{folder}"), "goes without --config and --data"),
        (("--config", "{file}", "--target", "x.gguf"), "--target goes with --prompts"),
        (("--prompts", "{file}", "--minutes", "0"), "0.0 is not in the range"),
    ],
)
def test_options_that_have_no_effect_are_refused(places, capsys, options, problem):
    named = {"file": places.data / "my.jsonl", "folder": places.data}
    assert run(*(option.format(**named) for option in options)) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.real
def test_the_small_models_end_to_end(tmp_path):
    prompts = ["How do I boil an egg?", "Why is the sky blue?", "Name a river.", "What is 12 * 7?"]
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    (tmp_path / "my.jsonl").write_text(text)
    command = [sys.executable, "-m", "alignpro_lite", "eval", "headroom", "--models", "small"]
    options = ["--prompts", "my.jsonl", "--calls", "60", "--max-tokens", "8", "--json"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["found"]["prompts"] == 4
    assert found["sources"] == ["ρ_sft"], "no reward has trained the small prompter"
    assert (tmp_path / "headroom" / "headroom.html").exists()


def test_a_target_that_answers_nothing_is_not_timed(places, monkeypatch):
    """Failures took no time, so that the largest design was chosen, and kept for good."""

    def fail(self, conversations, plan, seeds):
        return [[TargetFailure("too long")] * plan.count for _ in conversations]

    monkeypatch.setattr("alignpro_lite.target.rollout.GgufTarget.answers", fail)
    with pytest.raises(InputError, match=r"to be timed; none of 4 could be.*too long"):
        evaluate_headroom(config_of(places), HeadroomBudget(60, None), places, silent)
    assert not (places.run / DESIGN).exists()

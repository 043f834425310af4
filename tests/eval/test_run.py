"""An evaluation from its configuration to its report, broken, resumed, and asked for nonsense."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from math import nan

import pytest
from msgspec.structs import replace

from alignpro_lite.cli import exit_code_of
from alignpro_lite.errors import AlignProError, InputError, RewardError
from alignpro_lite.eval import QUICK, runner
from alignpro_lite.eval.arms import CONSTANT, TWICE
from alignpro_lite.eval.bound import TERMS, evaluate_bound
from alignpro_lite.eval.config import EvalConfig, RhoStarSection
from alignpro_lite.eval.evaluate import evaluate
from alignpro_lite.eval.inputs import prompts_of
from alignpro_lite.eval.progress import TimeLeft, duration
from alignpro_lite.eval.records import RESULTS
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.run_folder import Places, claim
from alignpro_lite.measure.kinds import PROMPT_KINDS, kind_of_prompt
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.rewriting.request import RhoStar
from tests.support import TINY_BUNDLE, TINY_TARGET

CONFIG = """
[target]
kind = "gguf"
source = "{target}"
context = 2048
[answers]
count = 2
max_tokens = 4
[[data]]
name = "rivers"
path = "rivers.jsonl"
format = "prompt"
part = "all"
prompts = 10
[[data]]
name = "lakes"
path = "lakes.jsonl"
format = "prompt"
part = "all"
[[judge]]
name = "reward"
reward = [{{ kind = "python", source = "{functions}:length", weights = {{ length = 0.1 }} }}]
[[judge]]
name = "second"
reward = [{{ kind = "python", source = "{functions}:length", weights = {{ size = 1.0 }} }}]
{systems}
"""
NONE = '[[system]]\nname = "none"\nkind = "none"\n'
SYSTEMS = (
    NONE
    + '[[system]]\nname = "base"\nkind = "reference"\nbundle = "{bundle}"\n'
    + '[[system]]\nname = "learned"\nkind = "prompter"\nbundle = "{bundle}"\n'
    + '[[system]]\nname = "drawn"\nkind = "rho_star"\nbundle = "{bundle}"\nsamples = 2\n'
    + "strength = 0.1\n"
    + '[[system]]\nname = "scored"\nkind = "rho_star"\nbundle = "{bundle}"\nsamples = 2\n'
    + 'strength = 0.1\nreturns = "scored"\n'
    + '[[system]]\nname = "best"\nkind = "best_of"\nsamples = 3\n'
    + '[[system]]\nname = "told"\nkind = "instruction"\ntext = "Be brief."\n'
    + '[[system]]\nname = "given"\nkind = "given"\npath = "given.jsonl"\ndata = ["lakes"]\n'
    + '[[system]]\nname = "oracle"\nkind = "oracle"\nsource = "{target}"\ncontext = 2048\n'
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    return places_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An evaluation of every system, and what it found; read it only."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        places = places_in(tmp_path_factory.mktemp("finished"), monkeypatch)
        return places, evaluate(config_of(places), places, silent)


def places_in(folder, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(folder / "cache"))
    rows = {
        "rivers.jsonl": [{"prompt": f"Name river {n}."} for n in range(10)],
        "lakes.jsonl": [{"prompt": f"Name lake {n}."} for n in range(3)],
        "given.jsonl": [
            {"prompt": f"Name lake {n}.", "optimized_prompt": f"Which lake is {n}?"}
            for n in range(3)
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Places(folder, folder / "out", ModelStore.open())


def config_of(places, systems=SYSTEMS, more="") -> EvalConfig:
    text = CONFIG.format(
        target=TINY_TARGET,
        functions="tests.support.reward_functions",
        systems=systems.format(target=TINY_TARGET, bundle=TINY_BUNDLE),
    )
    file = places.data / "eval.toml"
    file.write_text(more + text)
    return read_config(file, EvalConfig)


def silent(text):
    pass


def lines_of(places):
    return (places.run / RESULTS).read_text().splitlines()


def test_every_system_answers_every_prompt_and_the_report_says_so(finished):
    places, summary = finished
    assert summary.systems == (
        *("none", "base", "learned", "drawn", "scored", "best", "told", "given", "oracle"),
        *(CONSTANT, TWICE),
    )
    assert len(lines_of(places)) == 10 * 13 + 3
    rows = [json.loads(line) for line in lines_of(places)]
    told = next(row for row in rows if row["system"] == "told")
    assert told["sent"] == [f"Be brief.\n\n{told['prompt']}"] * 2
    given = next(row for row in rows if row["system"] == "given")
    assert given["sent"][0].startswith("Which lake")
    drawn, scored = ([r for r in rows if r["system"] == s] for s in ("drawn", "scored"))
    assert all(len(set(row["sent"])) == 1 for row in drawn), "one rewrite, fresh answers"
    assert any(len(set(row["sent"])) == 2 for row in scored), "a draw for every answer"
    assert all(len(row["answers"]) == 2 and len(row["rewards"]["second"]) == 2 for row in rows)
    assert {name.name for name in places.run.iterdir()} >= {
        *("report.html", "summary.md", "summary.json", "results.jsonl", "figures", "models.json"),
    }
    both = {(cell.data, cell.system) for cell in summary.cells}
    assert ("rivers", "given") not in both
    assert ("lakes", "given") in both
    assert ("all", "given") not in both, "a mean over other prompts would stand beside the others"
    assert {versus.data for versus in summary.versus if versus.system == "given"} == {"lakes"}


def test_the_same_seeds_give_the_oracle_that_is_the_target_the_same_answers(finished):
    """Systems that send the same prompt differ in nothing but luck, so luck is shared."""
    places, _ = finished
    rows = [json.loads(line) for line in lines_of(places)]
    answers = {
        name: {(r["data"], r["number"]): r["answers"] for r in rows if r["system"] == name}
        for name in ("none", "oracle")
    }
    assert answers["none"] == answers["oracle"]


def test_answers_without_a_score_cost_themselves_and_a_note_counts_them(places, monkeypatch):
    """Regression: a single NaN ended the evaluation, and every resumption of it."""

    def patchy(prompts, answers):
        return [
            nan if prompt == "Name lake 1." or len(answer) % 4 == 0 else float(len(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    monkeypatch.setattr("tests.support.reward_functions.length", patchy)
    names = {"none", "base", "drawn", "scored", "best"}
    tables = [f"[[system]]{table}" for table in SYSTEMS.split("[[system]]")[1:]]
    some = "".join(table for table in tables if table.split('"')[1] in names)
    summary = evaluate(config_of(places, some), places, silent)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines_of(places)]
    lake = [row["rewards"]["reward"] for row in rows if row["prompt"] == "Name lake 1."]
    assert lake == [[None, None]] * len(summary.systems)
    assert summary.cell("lakes", "none", "reward").prompts == 2
    (note,) = [n for n in summary.notes if n.startswith("reward has") and "of none:" in n]
    missing = [score for r in rows if r["system"] == "none" for score in r["rewards"]["reward"]]
    assert f"no score for {missing.count(None)} of 26 answers" in note
    assert evaluate(config_of(places, some), places, silent).cells == summary.cells


def test_a_judge_that_scores_nothing_at_all_is_refused(places, monkeypatch):
    monkeypatch.setattr("tests.support.reward_functions.length", lambda x, y: [nan] * len(y))
    with pytest.raises(RewardError, match="found no score for any of 16"):
        evaluate(config_of(places, NONE), places, silent)
    assert not (places.run / RESULTS).exists()


def test_what_run_does_is_judged_by_its_trials_and_continued(places):
    """Regression: trials were whole answers, of which `run` has never seen the ends."""
    scored = SYSTEMS[SYSTEMS.index('[[system]]\nname = "scored"') :].split("[[system]]")[1]
    system = f"[[system]]{scored}trial_tokens = 1\n"
    evaluate(config_of(places, NONE + system), places, silent)
    rows = [json.loads(line) for line in lines_of(places)]
    plain, own = ([r for r in rows if r["system"] == name] for name in ("none", "scored"))
    lengths = [[len(answer) for row in rows for answer in row["answers"]] for rows in (own, plain)]
    assert sum(lengths[0]) > sum(lengths[1]) / 2, "as long as other answers, not as a trial"
    assert any(True in row["cut"] for row in own)
    assert RhoStarSection(name="x").trial_tokens == RhoStar.trial_tokens


def test_the_best_answers_are_no_worse(finished):
    _, summary = finished
    best, plain = (summary.cell("all", name, "reward") for name in ("best", "none"))
    assert best.mean.value > plain.mean.value


def test_an_interrupted_evaluation_goes_on_and_computes_nothing_twice(
    places, finished, monkeypatch
):
    config = config_of(places)
    calls = []
    answered = runner._answered

    def stopping(portion, *rest):
        calls.append(portion)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return answered(portion, *rest)

    monkeypatch.setattr(runner, "_answered", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, places, silent)
    with (places.run / RESULTS).open("a") as handle:
        handle.write('{"run": "cut sho')  # as a kill in the middle of a line would leave it
    before = len(lines_of(places)) - 1
    notes = []
    evaluate(config, places, notes.append)
    assert any(f"{before} of 133" in note for note in notes)
    assert len(lines_of(places)) == 133
    assert len(calls) == 5 + 31 - 4

    def bare(folder):
        rows = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds",)} for row in rows]

    assert bare(places.run) == bare(finished[0].run)
    evaluate(config, places, silent)
    assert len(calls) == 32, "a finished evaluation answers nothing again"


BOUND = """
[bound]
bundle = "{bundle}"
strength = 0.5
prompts = 3
rewrites = 4
answers = 2
"""


def test_an_interrupted_bound_goes_on_and_computes_nothing_twice(places, monkeypatch):
    config = config_of(places, NONE + BOUND)
    whole = evaluate_bound(config, places, silent)
    lines = (places.run / TERMS).read_text().splitlines(keepends=True)
    assert len(lines) == 3
    (places.run / TERMS).write_text(lines[0] + lines[1][:9])
    again = evaluate_bound(config, places, silent)
    assert again == whole
    assert "How often the judge reward is right is not known" in whole
    assert (places.run / TERMS).read_text() == "".join(lines)
    (places.run / TERMS).write_text(lines[0].replace("variation", "variance"))
    with pytest.raises(InputError, match=r"bound.jsonl lacks the key .* Delete that line"):
        evaluate_bound(config, places, silent)


def test_a_bound_without_its_table_says_what_to_add(places):
    with pytest.raises(InputError, match=r"needs a table \[bound\]"):
        evaluate_bound(config_of(places, NONE), places, silent)


def test_another_configuration_or_model_never_mixes(places, tmp_path):
    config = config_of(places, NONE)
    evaluate(config, places, silent)
    before = lines_of(places)
    with pytest.raises(InputError, match=r"started with seed = 0, found 3"):
        evaluate(config_of(places, NONE, "seed = 3\n"), places, silent)
    other = places.data / "other"
    changed = config_of(places, NONE, "seed = 3\n")
    claim(other, changed)
    shutil.copy(places.run / RESULTS, other / RESULTS)
    with pytest.raises(InputError, match=r"line 1 belongs to another configuration"):
        evaluate(changed, Places(places.data, other, places.store), silent)
    assert lines_of(places) == before


def test_prompts_that_changed_under_their_name_are_refused(places):
    """Holds down: a data file with another row moved prompts between systems."""
    config = config_of(places, NONE)
    evaluate(config, places, silent)
    with (places.data / "lakes.jsonl").open("a") as handle:
        handle.write('{"prompt": "Name lake 9."}\n')
    with pytest.raises(InputError, match="started with other texts of data lakes"):
        evaluate(config, places, silent)


def test_given_rewrites_that_changed_places_are_refused(places):
    """Holds down: only the rewrites were compared, not which prompt each belongs to."""
    config = config_of(
        places,
        NONE + '[[system]]\nname = "g"\nkind = "given"\npath = "given.jsonl"\ndata = ["lakes"]\n',
    )
    evaluate(config, places, silent)
    file = places.data / "given.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["prompt"], rows[1]["prompt"] = rows[1]["prompt"], rows[0]["prompt"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="started with other texts of rewrites g"):
        evaluate(config, places, silent)


def test_a_mistake_that_shows_while_models_load_is_corrected_in_place(places):
    """Holds down: the folder was claimed for a configuration that could never run."""
    config = config_of(places, NONE)
    judge = config.judge[0]
    wrong = replace(judge.reward[0], source="tests.support.reward_functions:lenght")
    with pytest.raises(AlignProError, match="lenght"):
        evaluate(
            replace(config, judge=(replace(judge, reward=(wrong,)),)),
            places,
            silent,
        )
    evaluate(config, places, silent)


def test_an_oracle_for_some_data_sets_says_nothing_about_all(places):
    """Holds down: the oracle's share on one data set stood in the row of all of them."""
    oracle = '[[system]]\nname = "o"\nkind = "oracle"\nsource = "{target}"\ncontext = 2048\n'
    oracle += 'data = ["lakes"]\n'
    told = '[[system]]\nname = "told"\nkind = "instruction"\ntext = "Be brief."\n'
    summary = evaluate(config_of(places, NONE + oracle + told), places, silent)
    found = {versus.data: versus.recovered for versus in summary.versus if versus.system == "told"}
    assert found["all"] is None


def test_folders_inside_a_model_folder_do_not_count(tmp_path):
    """Holds down: a folder with .git in it ended as "Is a directory"."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert list(digests_of(tmp_path)) == ["config.json"]


def test_a_model_that_changed_under_its_name_is_refused(places):
    model = places.data / "model.gguf"
    shutil.copy(TINY_TARGET, model)
    config = config_of(places, NONE)
    config = replace(config, target=replace(config.target, source=str(model)))
    evaluate(config, places, silent)
    with model.open("ab") as handle:
        handle.write(b" ")
    with pytest.raises(InputError, match="started with another target"):
        evaluate(config, places, silent)


@pytest.mark.parametrize(
    ("systems", "problem"),
    [
        (NONE + '[[system]]\nname = "o"\nkind = "oracle"\nsource = "nowhere.gguf"\n', "nowhere"),
        (NONE + '[[system]]\nname = "b"\nkind = "prompter"\nbundle = "missing"\n', "missing"),
        (
            NONE + '[[system]]\nname = "g"\nkind = "given"\npath = "given.jsonl"\n',
            "g has no rewrite of 10 of 10 prompts of rivers",
        ),
    ],
)
def test_what_is_missing_is_named_before_anything_is_answered(places, systems, problem):
    with pytest.raises(AlignProError, match=problem):
        evaluate(config_of(places, systems), places, silent)
    assert not (places.run / RESULTS).exists()


@pytest.mark.parametrize(
    ("systems", "problem"),
    [
        (NONE + NONE, "system names must be unique"),
        (NONE + '[[system]]\nname = "b"\nkind = "best_of"\ndata = ["seas"]\n', "unknown data"),
        # Held down: "all data sets" then spoke for one of them.
        (NONE.replace("kind", 'data = ["lakes"]\nkind'), "must answer all data sets"),
        (NONE.replace('"none"\nkind', '"a|b"\nkind'), "system.0.name must be text"),
        (NONE + '[[data]]\nname = "all"\npath = "p"\nformat = "prompt"\n', "may be named all"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(places, systems, problem):
    with pytest.raises(InputError, match=problem):
        config_of(places, systems)


def test_a_row_without_a_prompt_is_left_out_and_named(places):
    file = places.data / "rivers.jsonl"
    rows = [json.dumps({"prompt": f"Name river {n}."}) for n in range(30)]
    file.write_text("\n".join([*rows[:3], '{"question": "?"}', *rows[3:]]) + "\n")
    prompts = prompts_of(config_of(places, NONE), places)
    assert prompts.notes == [
        "rivers.jsonl: row 4 left out, expected text under 'prompt', found a row with 'question'."
    ]
    assert len(prompts.judged["rivers"]) == 10


@pytest.mark.real
def test_the_quick_evaluation_runs_on_the_small_models(tmp_path):
    config = read_config(QUICK / "eval.toml", EvalConfig)
    data = tuple(replace(data, prompts=2) for data in config.data)
    hints = tmp_path / "hints.toml"  # all of them would take minutes
    hints.write_text('[[hint]]\naim = "a"\ntext = "Be brief."\n[[hint]]\naim = "b"\ntext = "Why?"')
    constant = replace(config.constant, hints=str(hints), first_round=1)
    answers = replace(config.answers, count=2, max_tokens=8)
    few = replace(config, data=data, answers=answers, constant=constant)
    places = Places(QUICK, tmp_path / "out", ModelStore.open(preset="small"))
    summary = evaluate(few, places, silent)
    assert len(summary.systems) == 7
    cell = summary.cell("quick", "ρ_sft", "reward")
    assert cell.kl, "at the temperature of users it is not ρ_sft itself"
    assert summary.difference("learned ρ_θ", "ρ_sft", "reward").prompts == 2
    assert summary.difference("learned ρ_θ", CONSTANT, "reward").prompts == 2
    assert [found.calls for found in summary.equal_calls] == [6, 20]
    assert summary.accuracies[0].data == "ultrafeedback.jsonl"
    learned = [json.loads(line) for line in lines_of(places)]
    assert any(row["sent"][0] != row["prompt"] for row in learned)


def test_an_evaluation_needs_no_torch():
    code = "import sys; import alignpro_lite.eval.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("arguments", [[], ["bound"]])
def test_a_missing_configuration_is_wrong_usage(arguments, capsys):
    assert exit_code_of(["eval", *arguments]) == 2
    assert "--config" in capsys.readouterr().err


def test_options_before_the_command_are_not_lost_in_silence(places, capsys):
    config_of(places, NONE)
    file = str(places.data / "eval.toml")
    assert exit_code_of(["eval", "--config", file, "bound"]) == 2
    assert "eval bound --config" in capsys.readouterr().err
    assert exit_code_of(["eval", "--output", str(places.run), "quick"]) == 2
    assert "eval quick --output" in capsys.readouterr().err


def test_the_command_prints_the_summary_and_names_the_report(places, capsys):
    config_of(places, NONE)
    arguments = ["eval", "--config", str(places.data / "eval.toml")]
    assert exit_code_of([*arguments, "--output", str(places.run)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("# Evaluation")
    assert str(places.run / "report.html") in shown.err


@pytest.mark.parametrize("command", [["bound"], ["quick"], []])
def test_the_preset_says_what_default_means_in_a_configuration(
    places, tmp_path, monkeypatch, capsys, command
):
    """Holds down: `default` was the default preset's model, also for `--models`."""
    own = tmp_path / "models.toml"
    own.write_text(
        '[preset.mine]\nbundle = "b"\ntarget = "t"\nreward = "r"\n'
        '[bundle.b]\nsource = "file:no-bundle"\nfiles = ["a"]\n'
        '[target.t]\nsource = "file:no-target.gguf"\n'
        '[reward.r]\nsource = "file:no-reward"\nfiles = ["a"]\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(own))
    config_of(places, NONE)
    file = places.data / "eval.toml"
    text = file.read_text().replace(f'source = "{TINY_TARGET}"', "") + "\n[bound]\n"
    file.write_text(text, encoding="utf-8")
    config = [] if command == ["quick"] else ["--config", str(file)]
    arguments = ["eval", *command, *config, "--output", str(places.run)]
    assert exit_code_of([*arguments, "--models", "mine"]) == 1
    assert "no-target.gguf" in capsys.readouterr().err
    assert exit_code_of([*arguments, "--models", "nobody's"]) == 1
    assert "No preset is named" in capsys.readouterr().err


def test_the_time_left_is_what_each_system_takes():
    left = TimeLeft({"fast": 10, "slow": 10})
    assert left.seconds is None
    left.add("fast", 5, 5.0)
    assert left.seconds == pytest.approx(15 * 1), "of the slow one nothing is known yet"
    left.add("slow", 5, 50.0)
    assert left.seconds == pytest.approx(5 * 1 + 5 * 10)
    resumed = TimeLeft({"fast": 10, "slow": 10})
    for _ in range(5):
        resumed.add("fast", 1, 1.0)
        resumed.add("slow", 1, 10.0)
    assert resumed.seconds == left.seconds
    assert [duration(s) for s in (7.4, 61, 3725)] == ["7 s", "1 min 1 s", "1 h 2 min"]


def test_the_prompts_of_the_quick_evaluation_are_of_every_kind():
    """Holds down: all of them were open questions, so harm to short answers never showed."""
    config = read_config(QUICK / "eval.toml", EvalConfig)
    found = prompts_of(config, Places(QUICK, QUICK, ModelStore.open(preset="small")))
    for prompts in (found.judged["quick"], found.spare):
        assert {kind_of_prompt(prompt) for prompt in prompts} == set(PROMPT_KINDS)
        assert len(prompts) == 16


JUDGED = """
[target]
{target}
[answers]
count = 2
max_tokens = 4
[[data]]
name = "lakes"
path = "lakes.jsonl"
format = "prompt"
part = "all"
[[judge]]
name = "own"
reward = [{{ kind = "judge", source = "target", weights = {{ judge = 1.0 }} }}]
[pair_judge]
source = "target"
[[system]]
name = "none"
kind = "none"
[[system]]
name = "told"
kind = "instruction"
text = "Be brief."
"""
GGUF = f'kind = "gguf"\nsource = "{TINY_TARGET}"\ncontext = 2048'
ENDPOINT = 'kind = "openai"\nurl = "http://localhost:1/v1"\nmodel = "m"'


def judged_config(places, target) -> EvalConfig:
    file = places.data / "eval.toml"
    file.write_text(JUDGED.format(target=target))
    return read_config(file, EvalConfig)


def test_the_target_judges_an_evaluation_in_the_memory_that_it_has(places, monkeypatch):
    monkeypatch.setattr("alignpro_lite.reward.judge.LEAST_MASS", 0.0)
    monkeypatch.setattr("alignpro_lite.reward.loading.LlamaTarget", None)
    summary = evaluate(judged_config(places, GGUF), places, silent)
    rows = [json.loads(line) for line in lines_of(places)]
    chances = [chance for row in rows for chance in row["rewards"]["own"]]
    assert len(chances) == 2 * 3 * 2
    assert all(0 < chance < 1 for chance in chances)
    assert [model.role for model in summary.models] == ["target"]
    assert any("target prefers told to none" in note for note in summary.notes)


def test_an_endpoint_cannot_judge_and_says_so_before_anything_is_answered(places):
    with pytest.raises(InputError, match="weights are loaded here"):
        evaluate(judged_config(places, ENDPOINT), places, silent)
    config = judged_config(places, ENDPOINT)
    other = replace(config, judge=config_of(places).judge)
    with pytest.raises(InputError, match="pair judge that is the target needs"):
        evaluate(other, places, silent)
    assert not (places.run / RESULTS).exists()

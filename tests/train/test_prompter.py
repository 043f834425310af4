"""Training the prompter from a configuration to a report, unbroken, broken and resumed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from alignpro_lite.errors import InputError, ModelFileError, TrainingError
from alignpro_lite.eval import runner
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.run_folder import claim
from alignpro_lite.prompter.card import read_prompter_card
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry.models_toml import SHIPPED_ADAPTERS
from alignpro_lite.train import checkpoint
from alignpro_lite.train.metrics import Metrics, read_metrics
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter import run as prompter
from alignpro_lite.train.prompter.config import PrompterConfig, PrompterSection
from alignpro_lite.train.prompter.run import template_of
from tests.support import ROOT, TINY_TARGET, training_run
from tests.support.tiny_models import configurations, write_model
from tests.support.training_run import HashingTarget, train, write_run

STEPS = 4
PATIENCE_S = 180


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("training") / "base", configurations()["llama"])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def hashing(monkeypatch):
    """Train against a target whose answers depend only on what it is asked."""

    def use(**options):
        target = HashingTarget(**options)
        monkeypatch.setattr(prompter, "open_target", lambda section, cache: target)
        return target

    return use


def stopping(monkeypatch, step):
    """Stop a run as a kill would: after the metrics of a step, with nothing saved."""
    write = Metrics.write

    def write_and_stop(metrics, at, values):
        write(metrics, at, values)
        if at == step:
            raise Stopped

    monkeypatch.setattr(Metrics, "write", write_and_stop)


class Stopped(BaseException):
    pass


def untimed(run):
    """Metrics without what hangs on the clock."""
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds/")}
        for line in read_metrics(run)
    ]


def latest(run):
    """The newest checkpoint of a run, which must have one."""
    folder = checkpoint.latest(run)
    assert folder is not None
    return folder


def weights(run):
    return load_file(latest(run) / "adapter.safetensors")


def assert_equal_runs(run, expected):
    first, second = weights(run), weights(expected)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert untimed(run) == untimed(expected)
    for file in ("report.md", "adapter/adapter_model.safetensors", "adapter/prompter_card.json"):
        assert (run / file).read_bytes() == (expected / file).read_bytes()
    assert summary_of(run) | {"cost": {}} == summary_of(expected) | {"cost": {}}


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_a_run_against_the_deployed_target_leaves_all_it_promises(base, tmp_path):
    notes, run = [], tmp_path / "run"
    assert train(write_run(tmp_path, base, TINY_TARGET, answers=2), run, notes.append)
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line.keys() >= {"reward", "reward/length", "kl", "residual", "log_z", "loss"}
        assert line.keys() >= {"calls", "answer_tokens", "rewrite_tokens", "gradient"}
        assert line["reward"] == pytest.approx(0.1 * line["reward/length"])
        assert line["failures/target"] == line["failures/reward"] == 0
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)  # ρ_θ is ρ_sft at first
    assert lines[-1]["kl"] != 0
    written = [2 * (2 * 3 - line["failures/empty"]) for line in lines]
    assert [line["calls"] for line in lines] == [sum(written[: n + 1]) for n in range(STEPS)]
    assert "5 prompts to train on, 3 held out, 0 too long." in notes
    assert list((run / "tensorboard").iterdir())
    assert not list(run.glob("*.partial"))
    assert json.loads((run / "config.json").read_text())["objective"]["strength"] == 0.05


def test_the_target_may_judge_the_run_that_it_answers(base, tmp_path, monkeypatch):
    monkeypatch.setattr("alignpro_lite.reward.judge.LEAST_MASS", 0.0)
    monkeypatch.setattr("alignpro_lite.reward.loading.LlamaTarget", None)  # no second copy
    config = write_run(tmp_path, base, TINY_TARGET, steps=1)
    scored = 'kind = "python"\nsource = "tests.support.training_run:length"'
    text = config.read_text().replace(scored, 'kind = "judge"\nsource = "target"')
    config.write_text(text.replace("length = 0.1", "judge = 1.0"))
    run = tmp_path / "run"
    assert train(config, run)
    (line,) = read_metrics(run)
    assert 0 < line["reward/judge"] < 1
    assert line["failures/reward"] == 0
    judged = [cell for cell in summary_of(run)["cells"] if cell["judge"] == "reward"]
    assert judged
    assert all(0 < cell["mean"]["value"] < 1 for cell in judged)


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """An unbroken run against the hashing target."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompter, "open_target", lambda section, cache: HashingTarget())
        patch.setenv("ALIGNPRO_LITE_CACHE", str(folder / "cache"))
        assert train(write_run(folder, base, TINY_TARGET), folder / "run")
    return folder


def test_the_report_holds_what_the_reward_does_not_see(finished):
    found = summary_of(finished / "run")
    systems = [
        *("no prompter", "learned", "untrained", "best of 2 from untrained"),
        *("best constant hint", "question read twice"),
    ]
    assert found["systems"] == systems
    assert found["baseline"] == systems[0]
    assert {(cell["prompts"], cell["answers"]) for cell in found["cells"]} == {(3, 2)}
    assert [versus["system"] for versus in found["versus"]] == systems[1:]
    kl = {cell["system"]: cell["kl"] for cell in found["cells"]}
    assert kl["learned"] is not None
    assert kl["untrained"] == 0
    assert kl["no prompter"] is kl["best of 2 from untrained"] is None
    for name in systems:
        assert found["answers"][name].keys() >= {"words", "repeated"}
        assert found["rewrites"][name].keys() >= {"words", "similarity", "distinct_additions"}
    assert found["rewrites"]["no prompter"]["unchanged"] == 1
    text = (finished / "run/report.md").read_text()
    assert text.count("**Sent:**") == text.count("**No prompter") == 3
    for column in ("Mean reward", "Gain over no prompter", "Win rate", "Variance", "KL, nats"):
        assert column in text
    for column in ("Words sent", "Words answered", "Distinct additions"):
        assert column in text
    assert text.count("\n| learned |") == 6
    for sentence in ("learned beside what needs no training", "asks 3 times for an answer"):
        assert sentence in text
    assert "How often the judge reward is right is not known" in text


def test_the_second_reward_judges_without_having_taught(base, hashing, tmp_path):
    hashing()
    config = write_run(tmp_path, base, TINY_TARGET, steps=1)
    second = '[[second_reward]]\nkind = "python"\nsource = "tests.support.training_run:length"\n'
    config.write_text(config.read_text() + second + "weights = { words = 1.0 }\n")
    assert train(config, tmp_path / "run")
    found = summary_of(tmp_path / "run")
    assert found["judges"] == ["reward", "second_reward"]
    metrics = read_prompter_card(tmp_path / "run/adapter").metrics
    assert metrics["rewards"].keys() == metrics["against_no_prompter"].keys()
    assert metrics["rewards"].keys() == {"reward", "second_reward"}
    assert "judged by second_reward" in (tmp_path / "run/report.md").read_text()


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_whatever_draws_rewrites_draws_them_alike(
    base, hashing, tmp_path, monkeypatch, temperature
):
    """Holds down: the untrained prompter was drawn at temperature 1 beside a trained one at 0.4."""
    hashing()
    drawn, sample = [], Policy.sample

    def noting(policy, prompts, count, sampling):
        drawn.extend((prompt[-1], sampling.temperature) for prompt in prompts)
        return sample(policy, prompts, count, sampling)

    monkeypatch.setattr(Policy, "sample", noting)
    config = write_run(tmp_path, base, TINY_TARGET, steps=1)
    text = config.read_text().replace(
        "max_tokens = 4", f"max_tokens = 4\ntemperature = {temperature}", 1
    )
    config.write_text(text)
    assert train(config, tmp_path / "run")
    assert {how for end, how in drawn if end == "!"} == {temperature}
    found = summary_of(tmp_path / "run")
    kl = {cell["system"]: cell["kl"] for cell in found["cells"]}
    assert (kl["untrained"] == 0) == (temperature == 1), "ρ_sft at 0.4 is not ρ_sft"
    pairs = {(pair["first"], pair["second"]) for pair in found["differences"]}
    assert ("learned", "untrained") in pairs
    assert ("learned", "best constant hint") in pairs


def test_a_run_stopped_while_it_is_measured_answers_nothing_twice(finished, hashing, monkeypatch):
    target, run, answered = hashing(), finished / "stopped-while-measured", runner._answered

    def stopping(lineup, data, system, *rest):
        if system == "untrained":
            raise Stopped
        return answered(lineup, data, system, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_answered", stopping)
        with pytest.raises(Stopped):
            train(finished / "prompter.toml", run)
    assert not (run / "report.md").exists()
    before = target.calls
    assert train(finished / "prompter.toml", run)
    best, constant, twice, pool = 3 * (2 + 2), 3 * 2, 3 * 2, 3
    assert target.calls - before == 3 * 2 + best + constant + twice + pool
    assert_equal_runs(run, finished / "run")


def test_results_of_other_weights_never_mix(finished, hashing, tmp_path):
    hashing()
    config = tmp_path / "prompter.toml"
    config.write_text((finished / "prompter.toml").read_text().replace("seed = 5", "seed = 6"))
    shutil.copy(finished / "prompts.jsonl", tmp_path)
    claim(tmp_path / "run", read_config(config, PrompterConfig))
    shutil.copy(finished / "run/results.jsonl", tmp_path / "run")
    with pytest.raises(InputError, match="belongs to another configuration"):
        train(config, tmp_path / "run")
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()


def test_the_adapter_carries_its_card_for_the_export(finished):
    folder = finished / "run/adapter"
    card = read_prompter_card(folder)
    assert (card.template, card.strength, card.max_tokens) == (AUGMENT, 0.05, 4)
    assert card.reward == "0.1 length"
    assert card.metrics["against_no_prompter"]["reward"]["gain"]
    assert card.metrics["rewards"]["reward"]["kl"] is not None
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json"}
    assert all(tensor.dtype == torch.float16 for tensor in tensors(folder).values())


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stopped_run_ends_where_an_unbroken_one_does(finished, hashing, monkeypatch, step):
    """To the bit, from before the first checkpoint, right at one, and beyond one."""
    hashing()
    run = finished / f"stopped-{step}"
    with monkeypatch.context() as patch:
        stopping(patch, step)
        with pytest.raises(Stopped):
            train(finished / "prompter.toml", run)
    assert (checkpoint.latest(run) is None) == (step < 3)
    assert train(finished / "prompter.toml", run)
    assert_equal_runs(run, finished / "run")


def test_a_kill_while_a_checkpoint_is_written_costs_only_that_checkpoint(
    finished, hashing, monkeypatch
):
    hashing()
    run = finished / "torn"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "publish", torn)
        with pytest.raises(Stopped):
            train(finished / "prompter.toml", run)
    assert checkpoint.latest(run) is None
    assert list(run.glob("checkpoint-*.partial"))
    assert train(finished / "prompter.toml", run)
    assert_equal_runs(run, finished / "run")
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-000004"]


def torn(folder):
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    raise Stopped


def test_a_finished_run_is_left_alone(finished, hashing):
    target, notes, run = hashing(), [], finished / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(finished / "prompter.toml", run, notes.append)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert target.calls == 0
    assert "is done" in notes[-1]


def test_another_configuration_is_refused_by_its_key(finished, hashing):
    target = hashing()
    config = finished / "other.toml"
    text = (finished / "prompter.toml").read_text()
    config.write_text(text.replace("rewrites = 3", "rewrites = 4"))
    with pytest.raises(InputError, match=r"objective.rewrites = 3, found 4") as refused:
        train(config, finished / "run")
    assert "--output" in refused.value.cure
    assert target.calls == 0


def test_damaged_files_of_a_run_are_one_line(finished, hashing, monkeypatch):
    """Truncated by a full disk, say: no traceback, and the cure names a way out."""
    hashing()
    run = finished / "damaged"
    with monkeypatch.context() as patch:
        stopping(patch, 3)
        with pytest.raises(Stopped):
            train(finished / "prompter.toml", run)
    for file in ("optimiser.safetensors", "process-0.json", "adapter.safetensors"):
        path = latest(run) / file
        whole = path.read_bytes()
        path.write_bytes(whole[:20])
        with pytest.raises(ModelFileError, match="cannot be read") as refused:
            train(finished / "prompter.toml", run)
        assert "--output" in refused.value.cure
        path.write_bytes(whole)
    (run / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        train(finished / "prompter.toml", run)


def empty(monkeypatch, chosen):
    """Let the prompter write only its stop token where chosen(number of the rewrite) says so."""
    sample, numbers = Policy.sample, count()

    def sampled(policy, prompts, rewrites, sampling):
        stop = (policy.tokens.stop[0],)
        return [
            [stop if chosen(next(numbers)) else output for output in outputs]
            for outputs in sample(policy, prompts, rewrites, sampling)
        ]

    monkeypatch.setattr(Policy, "sample", sampled)


def in_rewrite_mode(config):
    """A configuration whose empty outputs are no rewrites; an empty hint is one."""
    return config.read_text().replace("[prompter]", '[prompter]\nmode = "rewrite"')


def test_empty_hints_are_learned_from(base, hashing, tmp_path, monkeypatch):
    """They were dropped, so that no prompter could learn to leave a prompt alone."""
    hashing()
    empty(monkeypatch, lambda number: number % 3 == 1)
    config = write_run(tmp_path, base, TINY_TARGET, steps=2)
    assert train(config, tmp_path / "run")
    assert not any(line["failures/empty"] for line in read_metrics(tmp_path / "run"))


def test_the_words_of_an_adapter_are_its_own(base, tmp_path):
    section = PrompterSection(template="small-reference")
    card = read_prompter_card(SHIPPED_ADAPTERS / "small-reference")
    assert template_of(section, tmp_path) == card.template != AUGMENT
    with pytest.raises(InputError, match="of the mode rewrite, found the mode augment"):
        template_of(PrompterSection(template="small-reference", mode="rewrite"), tmp_path)
    with pytest.raises(InputError, match="found none in"):
        template_of(PrompterSection(template="file:nothing"), tmp_path)


def test_items_that_fail_are_counted_and_survived(base, hashing, tmp_path, monkeypatch):
    """Some rewrites empty, some answers missing, some without a score; training ends well."""
    asked = count()
    hashing(fails=lambda text, draw: next(asked) in (3, 8))
    empty(monkeypatch, lambda number: number < 24 and number % 9 == 4)
    config = write_run(tmp_path, base, TINY_TARGET, reward="sometimes_nan")
    config.write_text(in_rewrite_mode(config).replace("seed = 5", "seed = 5\nfailures = 0.9"))
    assert train(config, tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    for kind in ("empty", "target", "reward"):
        assert sum(line[f"failures/{kind}"] for line in lines) > 0
    assert lines[-1]["calls"] == 24 - sum(line["failures/empty"] for line in lines)
    assert all(math.isfinite(value) for line in lines for value in line.values())


@pytest.mark.parametrize("kind", ["empty", "target"])
def test_a_step_in_which_everything_fails_is_survived(base, hashing, tmp_path, monkeypatch, kind):
    """Once nothing was left to pack, score or average, and the run ended in a traceback."""
    seen = count()
    hashing(fails=lambda text, draw: kind == "target" and next(seen) < 6)
    empty(monkeypatch, lambda number: kind == "empty" and number < 6)
    config = write_run(tmp_path, base, TINY_TARGET, steps=3)
    config.write_text(in_rewrite_mode(config).replace("seed = 5", "seed = 5\nfailures = 1"))
    assert train(config, tmp_path / "run")
    first, *others = read_metrics(tmp_path / "run")
    assert first[f"failures/{kind}"] == 6
    assert "reward" not in first
    assert all("reward" in line for line in others)


def test_many_failures_stop_the_run_which_goes_on_once_they_are_mended(
    base, hashing, tmp_path, monkeypatch
):
    hashing()
    config = write_run(tmp_path, base, TINY_TARGET, reward="switched")
    monkeypatch.setattr(training_run, "switched", training_run.always_nan, raising=False)
    with pytest.raises(TrainingError, match="6 of the last 6 answers failed") as stopped:
        train(config, tmp_path / "run")
    assert "are not numbers" in stopped.value.problem
    assert "training.failures" in stopped.value.cure
    assert checkpoint.latest(tmp_path / "run").name == "checkpoint-000001"
    monkeypatch.setattr(training_run, "switched", training_run.length)
    assert train(config, tmp_path / "run")
    assert [line["step"] for line in read_metrics(tmp_path / "run")][-3:] == [2, 3, 4]


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(
    base, hashing, tmp_path, monkeypatch
):
    hashing()
    config = write_run(tmp_path, base, TINY_TARGET)
    monkeypatch.setattr(Policy, "log_probs", nan_after(Policy.log_probs, calls=3))
    with pytest.raises(TrainingError, match="found a norm of nan at step 3"):
        train(config, tmp_path / "run")
    saved = weights(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in saved.values())


def nan_after(log_probs, calls):
    """Steps 1 and 2 ask 1 and 2 times: for the new groups, and for the replayed ones."""
    made = count()

    def odd(policy, trie, temperature):
        values = log_probs(policy, trie, temperature)
        return values * math.nan if next(made) >= calls else values

    return odd


COMMAND = ["-m", "alignpro_lite", "train", "prompter"]


def arguments(config, run):
    return ["--config", str(config), "--output", str(run)]


def environment():
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def started(config, run, step):
    """Start the command line and wait until it has done a step."""
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *arguments(config, run)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while len(read_metrics(run)) < step and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_ctrl_c_saves_and_a_kill_costs_little(base, tmp_path):
    """Interrupted after step 1, killed after step 3, then run to its end."""
    config = write_run(tmp_path, base, TINY_TARGET, reward="patient", steps=8)
    run = tmp_path / "run"
    process = started(config, run, 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "the same command resumes there" in err
    saved = checkpoint.step_of(latest(run))
    assert saved == len(read_metrics(run)) < 8
    process = started(config, run, saved + 2)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    assert train(config, run)
    assert [line["step"] for line in read_metrics(run)] == list(range(1, 9))
    assert train(config, tmp_path / "unbroken")
    ended, expected = weights(run), weights(tmp_path / "unbroken")
    for name, tensor in expected.items():
        torch.testing.assert_close(ended[name], tensor, atol=0.02, rtol=0)


def test_two_processes_share_the_work_and_end_with_the_same_weights(base, tmp_path):
    """Each process gets half of the prompts; gradients, figures and calls are those of both."""
    config = write_run(tmp_path, base, TINY_TARGET, prompts=4, steps=3)
    run = tmp_path / "run"
    # Without a GPU `accelerate launch` needs an MPI; this is what it calls where there is one.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, training_run.__file__, *arguments(config, run)],
        env=environment() | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(run / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    states = [checkpoint.load_state(latest(run), rank) for rank in (0, 1)]
    assert states[0].groups != states[1].groups
    assert states[0].calls == states[1].calls
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["calls"] == 3 * 4 * 3 - sum(line["failures/empty"] for line in lines)


def test_prompts_that_cannot_be_dealt_out_evenly_are_refused(base, hashing, tmp_path, monkeypatch):
    hashing()
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    config = write_run(tmp_path, base, TINY_TARGET, prompts=4)
    with pytest.raises(TrainingError, match="multiple of the 3 processes, found 4") as refused:
        train(config, tmp_path / "run")
    assert "Set objective.prompts to 6" in refused.value.cure

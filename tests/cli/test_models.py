"""`alignpro-lite models` as a user meets it: output, exit codes, cures."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from alignpro_lite import cli
from alignpro_lite.cli import models as models_module
from alignpro_lite.cli.meter import Meter
from alignpro_lite.cli.models import models
from alignpro_lite.registry import Cache, download, load
from alignpro_lite.registry.storage import Progress
from tests.support import TINY_BUNDLE
from tests.support.hub_server import serve

DATA = b"weights " * 50_000
DIGEST = hashlib.sha256(DATA).hexdigest()
TOML = f"""
[target.t]
source = "hf:o/r@v1/t.gguf"
sha256 = "{DIGEST}"
size = {len(DATA)}
licence = "MIT"

[reward.t]
source = "hf:o/r@v1/t.gguf"

[prompter.p]
source = "hf:o/r@v1"
files = ["config.json", "model.bin"]

[bundle.b]
prompter = "p"
mode = "augment"
precision = "int4"

[preset.mine]
bundle = "b"
target = "t"

[target.own]
source = "file:own.gguf"
sha256 = "{DIGEST}"

[reward.own]
source = "file:other.gguf"
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache and a models.toml of this test alone."""
    (tmp_path / "models.toml").write_text(TOML)
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(tmp_path / "models.toml"))
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(download, "RETRY_PAUSES", ())
    monkeypatch.setenv("HF_HUB_CACHE", "/no-cache-of-the-hub")
    for variable in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with serve() as served:
        served.files |= {
            "/o/r/resolve/v1/t.gguf": DATA,
            "/o/r/resolve/v1/config.json": b"{}",
            "/o/r/resolve/v1/model.bin": b"model",
        }
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run one command; return exit code, stdout and stderr."""
    code = cli.exit_code_of(["models", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys, *arguments: str) -> Any:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_list_shows_what_is_installed(capsys, hub):
    assert "target/t " in run(capsys, "list")[1]
    run(capsys, "pull", "target/t")
    listed = {f"{row['kind']}/{row['name']}": row for row in run_json(capsys, "list")}
    assert listed["target/t"]["installed"] is True
    assert listed["target/t"]["files"][0]["sha256"] == DIGEST
    assert listed["prompter/p"]["installed"] is False
    assert "small" in listed["target/smollm2-135m-instruct"]["presets"]
    line = next(row for row in run(capsys, "list")[1].splitlines() if "target/t " in row)
    assert "installed" in line
    assert "MIT" in line
    assert {row["kind"] for row in run_json(capsys, "list", "--kind", "reward")} == {"reward"}


def test_pull_reports_on_stderr_without_control_characters(capsys, hub):
    code, out, err = run(capsys, "pull", "target/t")
    assert (code, out) == (0, "")
    assert "400.0 kB" in err
    assert err.isascii()
    assert all(character.isprintable() or character == "\n" for character in err)


def test_pull_and_rm_free_what_abandoned_downloads_left(capsys, hub, place):
    left = place / "cache/hf/o/r/v0/t.gguf.partial"
    for command in ("pull", "rm"):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"half")
        code, _, err = run(capsys, command, "target/t")
        assert code == 0
        assert "4 B of abandoned downloads freed" in err
        assert not left.exists()


def test_one_download_serves_all_rows_of_a_source(capsys, hub):
    assert run(capsys, "pull", "t")[0] == 0
    assert len(hub.requests) == 1
    assert run(capsys, "path", "t")[1] == run(capsys, "path", "target/t")[1]


def test_path_prints_the_place_or_the_command_that_brings_it(capsys, hub, place):
    code, out, err = run(capsys, "path", "target/t")
    assert (code, out) == (1, "")
    assert "`alignpro-lite models pull target/t`" in err
    run(capsys, "pull", "target/t")
    code, out, _ = run(capsys, "path", "target/t")
    assert Path(out.strip()).read_bytes() == DATA
    assert (place / "cache") in Path(out.strip()).parents


def test_a_name_at_two_places_has_to_be_told_apart(capsys, place):
    (place / "own.gguf").write_bytes(DATA)
    (place / "other.gguf").write_bytes(DATA)
    code, _, err = run(capsys, "path", "own")
    assert code == 1
    assert "target/own" in err


def test_verify_finds_a_flipped_bit_and_its_cure_works(capsys, hub):
    run(capsys, "pull", "t", "p")
    assert run(capsys, "verify")[0] == 0
    path = Path(run(capsys, "path", "target/t")[1].strip())
    path.write_bytes(DATA[:1000] + bytes([DATA[1000] ^ 1]) + DATA[1001:])
    code, out, err = run(capsys, "verify", "t")
    assert code == 1
    assert "altered" in out
    assert DIGEST in err
    keys = "target/t reward/t"
    pulls = " && ".join(f"alignpro-lite models pull {key}" for key in keys.split())
    assert f"alignpro-lite models rm {keys} && {pulls}" in err
    assert run(capsys, "rm", *keys.split())[0] == 0
    assert run(capsys, "pull", *keys.split())[0] == 0
    assert run(capsys, "verify", *keys.split())[0] == 0


def test_a_row_without_digest_does_not_hide_the_digest_of_another(capsys, hub):
    run(capsys, "pull", "target/t")
    path = Path(run(capsys, "path", "target/t")[1].strip())
    path.write_bytes(DATA[:-1] + b"!")
    code, out, _ = run(capsys, "verify")
    assert code == 1
    assert "target/t: altered" in out
    assert "reward/t: unrecorded" in out


def test_verify_json_tells_both_digests(capsys, place):
    (place / "own.gguf").write_bytes(b"other")
    code, out, err = run(capsys, "verify", "target/own", "--json")
    assert code == 1
    assert json.loads(out) == [
        {
            "model": "target/own",
            "path": str(place / "own.gguf"),
            "state": "altered",
            "expected": DIGEST,
            "found": hashlib.sha256(b"other").hexdigest(),
        }
    ]
    assert "Restore your own file" in err


def test_verify_of_what_is_not_installed_names_the_pull(capsys):
    code, _, err = run(capsys, "verify", "target/t")
    assert code == 1
    assert "models pull target/t" in err


def test_rm_frees_the_space_and_names_the_other_rows(capsys, hub, place):
    run(capsys, "pull", "target/t")
    code, _, err = run(capsys, "rm", "target/t")
    assert code == 0
    assert "400.0 kB freed" in err
    assert "reward/t" in err
    assert not (place / "cache/hf").exists()
    assert run(capsys, "rm", "target/t")[0] == 0


def test_rm_never_deletes_the_users_own_file(capsys, place):
    (place / "own.gguf").write_bytes(DATA)
    code, _, err = run(capsys, "rm", "target/own")
    assert code == 1
    assert "never deleted" in err
    assert (place / "own.gguf").exists()


def test_rm_forget_lets_a_changed_source_in(capsys, hub):
    run(capsys, "pull", "prompter/p")
    run(capsys, "rm", "prompter/p")
    hub.files["/o/r/resolve/v1/model.bin"] = b"newer"
    code, _, err = run(capsys, "pull", "prompter/p")
    assert code == 1
    assert "rm --forget prompter/p" in err
    run(capsys, "rm", "--forget", "prompter/p")
    assert run(capsys, "pull", "prompter/p")[0] == 0


def test_pulling_a_built_bundle_pulls_its_prompter_and_says_what_is_next(capsys, hub):
    code, _, err = run(capsys, "pull", "bundle/b")
    assert code == 0
    assert "Build bundle/b with `alignpro-lite export bundle b" in err
    assert run(capsys, "path", "prompter/p")[0] == 0


def test_pulling_a_preset_brings_all_its_models(capsys, hub):
    code, _, err = run(capsys, "pull", "mine")
    assert code == 0
    assert "Build bundle/b with `alignpro-lite export bundle b" in err
    listed = {f"{row['kind']}/{row['name']}": row for row in run_json(capsys, "list")}
    assert listed["target/t"]["installed"]
    assert listed["prompter/p"]["installed"]
    assert listed["target/t"]["presets"] == listed["bundle/b"]["presets"] == ["mine"]
    assert run(capsys, "path", "target/mine")[1] == run(capsys, "path", "target/t")[1]
    assert "Run `alignpro-lite models pull bundle/b" in run(capsys, "path", "bundle/mine")[2]


def test_a_model_of_a_hub_needs_no_row(capsys, hub):
    tree = [{"type": "file", "path": "m-Q8_0.gguf", "size": len(DATA), "lfs": {"oid": DIGEST}}]
    hub.files["/api/models/o/r/tree/main?recursive=true"] = json.dumps(tree).encode()
    hub.files["/o/r/resolve/main/m-Q8_0.gguf"] = DATA
    code, _, err = run(capsys, "path", "hf:o/r:Q8_0")
    assert (code, "`alignpro-lite models pull hf:o/r:Q8_0`" in err) == (1, True)
    code, _, err = run(capsys, "pull", "hf:o/r:Q8_0")
    assert (code, "hf:o/r:Q8_0: done" in err) == (0, True)
    assert Path(run(capsys, "path", "hf:o/r:Q8_0")[1].strip()).read_bytes() == DATA
    assert run_json(capsys, "verify", "hf:o/r:Q8_0")[0]["state"] == "ok"
    assert run_json(capsys, "show", "hf:o/r:Q8_0")[0]["sources"] == ["hf:o/r@main/m-Q8_0.gguf"]
    code, _, err = run(capsys, "rm", "hf:o/r:Q8_0")
    assert (code, "400.0 kB freed" in err) == (0, True)
    assert run(capsys, "path", "hf:o/r:Q8_0")[0] == 1


def serve_reference(hub, data: bytes) -> None:
    """Let hf:o/r:Q8_0 be a file of these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    tree = [{"type": "file", "path": "m-Q8_0.gguf", "size": len(data), "lfs": {"oid": digest}}]
    hub.files["/api/models/o/r/tree/main?recursive=true"] = json.dumps(tree).encode()
    hub.files["/o/r/resolve/main/m-Q8_0.gguf"] = data


def test_what_an_interrupted_pull_of_a_hub_left_is_removed(capsys, hub, place):
    """Regression: `models rm` said that it is not installed, and the bytes stayed for ever."""
    serve_reference(hub, DATA)
    hub.drops = [10**6, 100_000, 0]
    assert run(capsys, "pull", "hf:o/r:Q8_0")[0] == 1
    code, _, err = run(capsys, "rm", "hf:o/r:Q8_0")
    assert (code, "hf:o/r:Q8_0: 100.0 kB freed" in err) == (0, True)
    assert not (place / "cache/hf").exists()
    code, _, err = run(capsys, "rm", "hf:o/r:Q4_0")
    assert (code, "Nothing of hf:o/r:Q4_0 is in " in err) == (1, True)


def test_a_hub_that_changed_after_an_interruption_can_be_accepted(capsys, hub):
    """Regression: the cure of the pull, `models rm --forget`, said that it is not installed."""
    serve_reference(hub, DATA)
    hub.drops = [10**6, 100_000, 0]
    assert run(capsys, "pull", "hf:o/r:Q8_0")[0] == 1
    hub.drops.clear()
    serve_reference(hub, DATA[:-1] + b"!")
    hub.etag = '"two"'
    code, _, err = run(capsys, "pull", "hf:o/r:Q8_0")
    assert (code, "models rm --forget hf:o/r:Q8_0` first" in err) == (1, True)
    assert run(capsys, "rm", "--forget", "hf:o/r:Q8_0")[0] == 0
    assert run(capsys, "pull", "hf:o/r:Q8_0")[0] == 0
    assert run_json(capsys, "verify", "hf:o/r:Q8_0")[0]["state"] == "ok"


def test_a_source_that_fails_is_named_before_the_next_one(capsys, hub, place):
    rows = TOML.replace(
        'source = "hf:o/r@v1/t.gguf"\nsha256',
        'sources = ["hf:gone/r@v1/t.gguf", "hf:o/r@v1/t.gguf"]\nsha256',
    )
    (place / "models.toml").write_text(rows)
    code, _, err = run(capsys, "pull", "target/t")
    assert code == 0
    lines = err.splitlines()
    assert "hf:gone/r: target/t: " in lines[0]
    assert lines[0].endswith("answered 404 Not Found. Next: hf:o/r.")
    assert len(lines) == 4


def test_what_the_hubs_cache_holds_is_not_deleted(capsys, place, monkeypatch):
    snapshot = place / f"hub/models--o--r/snapshots/{'c' * 40}"
    snapshot.mkdir(parents=True)
    (snapshot / "t.gguf").write_bytes(DATA)
    (place / "hub/models--o--r/refs").mkdir()
    (place / "hub/models--o--r/refs/v1").write_text("c" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    assert run(capsys, "path", "target/t")[1].strip() == str(snapshot / "t.gguf")
    assert run(capsys, "verify", "target/t")[0] == 0
    code, _, err = run(capsys, "rm", "target/t")
    assert code == 0
    assert f"target/t stays in the hub's own cache: {snapshot / 't.gguf'}" in err
    assert (snapshot / "t.gguf").read_bytes() == DATA


def test_show_tells_everything_known(capsys):
    code, out, _ = run(capsys, "show", "target/t")
    assert code == 0
    assert "hf:o/r@v1/t.gguf" in out
    shown = run_json(capsys, "show", "bundle/b")
    assert shown[0]["recipe"] == {"prompter": "p", "mode": "augment", "precision": "int4"}


def test_the_cache_option_wins_over_the_variable(capsys, hub, place):
    run(capsys, "pull", "target/t", "--cache", str(place / "elsewhere"))
    assert run(capsys, "path", "target/t")[0] == 1
    code, out, _ = run(capsys, "path", "target/t", "--cache", str(place / "elsewhere"))
    assert code == 0
    assert str(place / "elsewhere") in out


@pytest.mark.parametrize("command", ["pull", "show", "verify", "rm", "path"])
def test_an_unknown_name_lists_near_ones(capsys, command):
    code, _, err = run(capsys, command, "target/smollm2-135m-instruc")
    assert code == 1
    assert "near: target/smollm2-135m-instruct" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["pull"], ["path"], ["rm"], ["list", "--nope"], ["nope"]])
def test_wrong_usage_ends_with_2(capsys, arguments):
    assert run(capsys, *arguments)[0] == 2


def test_a_source_that_is_gone_is_one_line(capsys, hub):
    hub.files.clear()
    code, _, err = run(capsys, "pull", "target/t")
    assert code == 1
    assert "answered 404" in err
    assert "Traceback" not in err


def test_a_broken_models_toml_is_one_line_and_does_not_break_completion(capsys, place):
    (place / "models.toml").write_text("[target.x]\nsource = 'nope'")
    code, _, err = run(capsys, "list")
    assert code == 1
    assert "[target.x]" in err
    assert models_module._complete_name(click.Context(models), click.Argument(["name"]), "t") == []


def test_names_complete(place):
    argument = click.Argument(["name"])
    found = models_module._complete_name(click.Context(models), argument, "target/o")
    assert [item.value for item in found] == ["target/own"]
    found = models_module._complete_name(click.Context(models), argument, "min")
    assert [item.value for item in found] == ["mine"]


class Terminal:
    """A stderr that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_a_terminal_gets_a_live_line_with_rate_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = iter([10.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setenv("COLUMNS", "100")
    with Meter() as meter:
        meter(Progress("x.gguf", 30_000_000, 90_000_000))
        meter(Progress("x.gguf", 40_000_000, 90_000_000))
        meter(Progress("x.gguf", 50_000_000, 90_000_000))
    lines = terminal.text.split("\r")
    assert "33% 30.0 MB of 90.0 MB" in lines[1]
    assert "10.0 MB/s 0:05 left" in lines[2]
    assert terminal.text.endswith("\n")


def test_a_note_stands_on_a_line_of_its_own(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Meter() as meter:
        meter(Progress("x.gguf", 30, 90))
        meter.note("hf:a/b: gone.")
        meter(Progress("x.gguf", 90, 90))
    assert "\nhf:a/b: gone.\n" in terminal.text


def test_the_module_imports_no_network_and_no_engine():
    code = (
        "import sys, alignpro_lite.cli.models; "
        "heavy = {'urllib.request', 'ssl', 'torch', 'onnxruntime', 'llama_cpp', 'numpy'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_verify_finds_a_flipped_bit_in_a_bundle_built_here(capsys, tmp_path):
    cache = Cache.open(tmp_path / "cache")
    folder = cache.path(load().find("bundle", "small"))
    folder.parent.mkdir(parents=True)
    shutil.copytree(TINY_BUNDLE, folder)
    arguments = ["verify", "bundle/small", "--cache", str(cache.root)]
    assert run(capsys, *arguments)[0] == 0
    graph = bytearray((folder / "model.onnx.data").read_bytes())
    graph[1000] ^= 1
    (folder / "model.onnx.data").write_bytes(graph)
    code, out, err = run(capsys, *arguments)
    assert (code, "altered" in out) == (1, True)
    assert "models rm bundle/small && alignpro-lite models pull bundle/small`" in err


def test_a_bundle_of_another_version_does_not_end_the_check_of_the_others(capsys, hub):
    """After an upgrade `models verify` checked nothing but the old bundle."""
    run(capsys, "pull", "mine")
    folder = Cache.open().path(load().find("bundle", "b"))
    shutil.copytree(TINY_BUNDLE, folder)
    sidecar = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(sidecar | {"format": 2}))
    code, out, err = run(capsys, "verify")
    assert code == 1
    assert "bundle/b: unreadable: " in out
    assert "target/t: ok" in out
    assert "Run `alignpro-lite models rm bundle/b && alignpro-lite models pull bundle/b`." in err

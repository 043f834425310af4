"""A frozen app: one folder, which runs where there is no Python and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT, TINY_BUNDLE, TINY_TARGET

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        importlib.util.find_spec("PyInstaller") is None, reason="PyInstaller is not installed"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

APP = """
import sys
from pathlib import Path
from alignpro_lite import AlignedModel, DeviceRequest, Request

target, prompter, cache, where = sys.argv[1:]
with AlignedModel.load(
    Path(target),
    Path(prompter),
    devices=DeviceRequest("cpu"),
    cache=Path(cache),
    isolated=where == "isolated",
) as model:
    result = model.run("Name three rivers.", Request(max_tokens=4))
    print(result.answer_tokens, result.choice.changed, flush=True)
    sys.stdin.read()
"""
SIDECAR = "from alignpro_lite.__main__ import start\n\nstart()\n"
# Two programs that share one folder; neither knows of the package's hooks.
EXTRAS = (
    *(
        "IPython",
        "PIL",
        "PySide6",
        "datasets",
        "fsspec",
        "hypothesis",
        "matplotlib",
        "mypy",
        "nltk",
    ),
    *("openai", "pandas", "playwright", "psutil", "pyarrow", "pydantic", "pytest", "rich", "scipy"),
    *("setuptools", "sklearn", "sympy", "tkinter", "torch", "transformers", "trio", "urllib3"),
)
SPEC = f"""
found = Analysis(["app.py", "sidecar.py"], excludes={EXTRAS})
modules = PYZ(found.pure)


def program(name, other):
    scripts = [script for script in found.scripts if script[0] != other]
    return EXE(modules, scripts, exclude_binaries=True, name=name)


programs = program("app", "sidecar"), program("sidecar", "app")
COLLECT(*programs, found.binaries, found.datas, name="frozen")
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    """A moved folder with both programs, of the package as it is installed from its wheel."""
    work = tmp_path_factory.mktemp("freezing")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", work, ROOT], check=True, capture_output=True)
    (wheel,) = work.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(work / "site")
    for name, text in {"app.py": APP, "sidecar.py": SIDECAR, "frozen.spec": SPEC}.items():
        (work / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--noconfirm", "frozen.spec"],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(work / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    moved = (work / "dist" / "frozen").rename(tmp_path_factory.mktemp("moved") / "My app")
    shutil.rmtree(work)
    return moved


@contextmanager
def started(program: Path, *arguments: str | Path):
    """A frozen program in an empty environment."""
    command = [str(part) for part in (program, *arguments)]
    pipe = subprocess.PIPE
    home = {"PATH": "", "HOME": str(program.parent)}
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=home, cwd="/", text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children_of(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    own = {int(child) for file in listed for child in file.read_text("utf-8").split()}
    return own.union(*(children_of(child) for child in own))


def running(pids: set[int]) -> set[int]:
    """Those that have not ended; one whose parent has not asked for it has."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return {
        pid
        for pid, stat in stats.items()
        if stat.exists() and stat.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    }


def ended(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (alive := running(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive


@pytest.mark.parametrize("where", ["inside", "isolated"])
def test_an_app_answers_and_leaves_no_orphan_when_it_is_killed(frozen, tmp_path, where):
    """The children are the app itself, which must run their code and not open another window."""
    with started(frozen / "app", TINY_TARGET, TINY_BUNDLE, tmp_path, where) as app:
        line = app.stdout.readline()
        assert line.split()[:1] == ["4"], line + app.stderr.read()
        children = children_of(app.pid)
        assert children or where == "inside"
        app.kill()
        app.wait()
        assert ended(children, 5)


@pytest.mark.parametrize("option", ["--parent-pid", "--until-stdin-closes"])
def test_the_sidecar_says_where_it_listens_and_ends_with_the_app(frozen, tmp_path, option):
    models = ("--target", TINY_TARGET, "--prompter", TINY_BUNDLE, "--cache", tmp_path)
    with subprocess.Popen(["sleep", "60"]) as parent:
        follow = (option, str(parent.pid)) if option == "--parent-pid" else (option,)
        with started(frozen / "sidecar", "serve", "--port", "0", *models, *follow) as sidecar:
            line = sidecar.stdout.readline()
            assert line, sidecar.stderr.read()
            assert json.loads(line)["model"] == "tiny"
            processes = {sidecar.pid, *children_of(sidecar.pid)}
            parent.kill()
            parent.wait()
            if option == "--until-stdin-closes":
                sidecar.stdin.close()
            assert ended(processes, 5)


def test_an_app_without_the_variable_takes_its_own_arguments(frozen):
    """Whoever can pass arguments, for example by a link, must not run code by them."""
    code = ("-I", "-X", "utf8", "-c", "print('code')", "[]")
    with started(frozen / "sidecar", *code) as sidecar:
        output, errors = sidecar.communicate(timeout=60)
        assert sidecar.returncode == 2
        assert "code" not in output
        assert "No such option" in errors

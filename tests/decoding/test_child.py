"""Child interpreters: isolated, ended at their deadline and with their parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from alignpro_lite.decoding.child import run_child

HANGS_IN_C = "x = ()\nfor _ in range(64): x = (x, x)\nhash(x)"
"""Holds the interpreter: no other Python thread of the process runs again."""


@pytest.fixture
def script(tmp_path):
    def write(source):
        path = tmp_path / "program.py"
        path.write_text(source, encoding="utf-8")
        return path

    return write


def test_a_program_gets_its_arguments_and_returns_what_it_wrote(script):
    source = "import sys\nprint(sys.argv[1:])\nprint('é', file=sys.stderr)\nsys.exit(3)"
    ended = run_child(script(source), ["a b", "--c"], 60, {})
    assert (ended.code, ended.output, ended.errors) == (3, "['a b', '--c']\n", "é\n")


def test_a_script_may_import_the_modules_beside_it(script, tmp_path):
    (tmp_path / "sibling.py").write_text("NAME = 'beside'", encoding="utf-8")
    assert run_child(script("import sibling; print(sibling.NAME)"), [], 60, {}).output == "beside\n"


@pytest.mark.parametrize("name", ["hashlib", "json", "numpy", "alignpro_lite", "sitecustomize"])
def test_code_in_the_current_folder_is_not_run(script, tmp_path, monkeypatch, name):
    """A probe of a downloaded model once ran the hashlib.py that lay beside it."""
    place = tmp_path / "downloads"
    place.mkdir()
    (place / f"{name}.py").write_text("print('pwned')", encoding="utf-8")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend("")
    monkeypatch.syspath_prepend(str(place))
    ended = run_child(script("import hashlib, json, numpy, alignpro_lite"), [], 60, {})
    assert (ended.code, ended.output) == (0, "")


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT"])
def test_variables_of_python_are_not_read(script, tmp_path, monkeypatch, variable):
    (tmp_path / "hashlib.py").write_text("print('pwned')", encoding="utf-8")
    monkeypatch.setenv(variable, str(tmp_path))
    source = f"import hashlib, os\nprint({variable!r} in os.environ)"
    place = tmp_path / "elsewhere"
    place.mkdir()
    program = place / "program.py"
    program.write_text(source, encoding="utf-8")
    assert run_child(program, [], 60, {}).output == "False\n"


def test_added_variables_are_seen(script):
    source = "import os; print(os.environ['GGML_NO_BACKTRACE'])"
    assert run_child(script(source), [], 60, {"GGML_NO_BACKTRACE": "1"}).output == "1\n"


@pytest.mark.parametrize("source", ["while True: pass", "import time; time.sleep(60)", HANGS_IN_C])
def test_a_child_is_killed_at_its_deadline(script, source):
    started = time.monotonic()
    assert run_child(script(source), [], 2, {}).code is None
    assert time.monotonic() - started < 20


PARENT = """
import pathlib, sys
from alignpro_lite.decoding import child
child._GRACE_SECONDS = 1.0
child.run_child(pathlib.Path(sys.argv[1]), [], float(sys.argv[2]), {})
"""


@pytest.fixture
def family(script, tmp_path):
    """Starts a parent whose child runs a program; the pipe it returns ends when the child does."""
    parents = []

    def start(source, seconds):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        program = script(
            f"p = open({str(pipe)!r}, 'w')\nprint('begun', file=p, flush=True)\n{source}"
        )
        parents.append(subprocess.Popen([sys.executable, "-c", PARENT, program, str(seconds)]))
        assert select.select([reading], [], [], 60)[0]
        time.sleep(0.5)  # until the child is inside its loop
        assert os.read(reading, 100) == b"begun\n"
        return parents[0], reading

    yield start
    for parent in parents:
        parent.kill()
        parent.wait()


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes and signals")
@pytest.mark.parametrize("source", ["while True: pass", "import time; time.sleep(600)"])
def test_a_child_ends_with_its_parent(family, source):
    """Exports and probes once ran on for minutes after their parent was killed."""
    parent, pipe = family(source, 600)
    parent.kill()
    assert select.select([pipe], [], [], 20)[0]
    assert os.read(pipe, 100) == b""


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes and signals")
@pytest.mark.parametrize("signal_name", ["SIGSTOP", "SIGKILL"])
def test_a_child_stuck_in_c_ends_after_its_deadline_without_its_parent(family, signal_name):
    """The probe of a template that never ends ran on while its parent was stopped."""
    parent, pipe = family(HANGS_IN_C, 2)
    parent.send_signal(getattr(signal, signal_name))
    assert select.select([pipe], [], [], 30)[0]
    assert os.read(pipe, 100) == b""

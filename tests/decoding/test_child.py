"""Child interpreters: isolated, ended at their deadline and with their parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignpro_lite.decoding import child
from alignpro_lite.decoding.child import WarmChild, how_it_ended, leave_to_parent, run_child

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


ANSWER = """
import os, sys, threading, time

def answer(request):
    if request == "crash":
        os.abort()
    if request == "raise":
        raise ValueError("odd")
    if request == "fill":
        return len("a" * 10**10)
    if request == "hang":
        x = ()
        for _ in range(64): x = (x, x)
        hash(x)
    if request == "sleep":
        time.sleep(60)
    return [request, os.getpid()]
"""


@pytest.fixture
def warm(tmp_path, monkeypatch):
    (tmp_path / "answering.py").write_text(ANSWER, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    child = WarmChild("answering", 1 << 29)
    child.keep()
    yield child
    child.release()


def test_a_warm_child_answers_every_request_in_one_process(warm):
    replies = [warm.ask(request, 10) for request in ("é", 2, ["\udcff"], "x" * 10**6)]
    assert [reply[0] for reply in replies] == ["é", 2, ["\udcff"], "x" * 10**6]
    assert len({reply[1] for reply in replies}) == 1
    assert replies[0][1] != os.getpid()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ("crash", ChildProcessError),
        ("raise", ChildProcessError),
        ("hang", TimeoutError),
        ("sleep", TimeoutError),
        pytest.param(
            "fill",
            ChildProcessError,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory"),
        ),
    ],
)
def test_a_request_that_ends_the_child_ends_no_other(warm, request_, error):
    (_, before) = warm.ask(1, 10)
    with pytest.raises(error):
        warm.ask(request_, 0.5 if error is TimeoutError else 10)
    reply, after = warm.ask(2, 10)
    assert (reply, after != before) == (2, True)


def test_the_last_line_of_a_child_that_ended_is_told(warm):
    with pytest.raises(ChildProcessError, match="ValueError: odd"):
        warm.ask("raise", 10)


def test_threads_get_the_answers_to_their_own_requests(warm):
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: warm.ask(number, 10), range(50)))
    assert [reply[0] for reply in replies] == list(range(50))


def test_an_interrupted_request_leaves_no_answer_behind(warm, monkeypatch):
    """The answer to a request that Ctrl-C interrupted would be taken for that to the next one."""
    warm.ask(1, 10)
    with monkeypatch.context() as patched:
        patched.setattr(child, "_exchange", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            warm.ask(2, 10)
    assert warm.ask(3, 10)[0] == 3


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_the_terminal_does_not_reach_a_warm_child(warm):
    _, pid = warm.ask(1, 10)
    os.kill(pid, signal.SIGINT)
    assert warm.ask(2, 10) == [2, pid]


def test_a_child_that_nobody_keeps_is_ended(warm):
    warm.keep()
    _, pid = warm.ask(1, 10)
    warm.release()
    assert warm.ask(2, 10) == [2, pid]
    warm.release()
    assert warm._process is None
    assert warm.ask(3, 10)[0] == 3
    warm.keep()


def test_a_program_that_cannot_be_imported_is_an_error_of_the_start():
    with pytest.raises(OSError, match=r"does not start: .*no_such_module"):
        WarmChild("no_such_module", 1 << 29).ask(1, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_a_child_of_its_own(warm):
    """Two processes that write into one pipe would read each other's answers."""
    _, pid = warm.ask(1, 10)
    reading, writing = os.pipe()
    forked = os.fork()
    if not forked:
        _, other = warm.ask(2, 10)
        os.write(writing, str(other).encode())
        warm.release()
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    assert int(os.read(reading, 100)) not in (pid, os.getpid())
    assert warm.ask(3, 10) == [3, pid]


WARM_PARENT = """
import sys
from alignpro_lite.decoding import child
from alignpro_lite.decoding.child import WarmChild
sys.path.append(sys.argv[1])
child = WarmChild("answering", 1 << 29)
print(child.ask(1, 10)[1], flush=True)
if sys.argv[2] == "waits":
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux tells when a process ends")
@pytest.mark.parametrize("what", ["waits", "ends"])
def test_a_warm_child_ends_with_its_parent(warm, tmp_path, what):
    command = [sys.executable, "-c", WARM_PARENT, str(tmp_path), what]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pidfd = os.pidfd_open(int(parent.stdout.readline()))
    if what == "waits":
        parent.kill()
    assert select.select([pidfd], [], [], 20)[0]
    parent.communicate()


def test_how_a_child_ended_has_words_for_every_code():
    """A signal without a name left everybody who waited for the engine process waiting."""
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-signal.SIGKILL) == "SIGKILL"
    assert how_it_ended(-40) == "signal 40"


def test_a_pipe_that_is_closed_already_can_be_left(tmp_path):
    """A fork after the end of an engine process complained of a closed file."""
    with (tmp_path / "a").open("wb") as closed, (tmp_path / "b").open("wb") as opened:
        closed.close()
        leave_to_parent((closed, None, opened))
        assert opened.raw.closed

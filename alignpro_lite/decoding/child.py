"""Child interpreters, for code that may crash, hang or fill the memory of its process.

A child imports nothing from the current folder and reads no PYTHON* variable: a `hashlib.py` that
lies beside a downloaded model is never run. It ends with its parent, and at its deadline even while
C code holds the interpreter.
"""

from __future__ import annotations

import faulthandler
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from alignpro_lite.decoding.cancellation import Cancellation, Stop

_BOOTSTRAP = """
import json, runpy, sys
path, seconds, is_script, program, *arguments = json.loads(sys.argv[1])
sys.path += path
from alignpro_lite.decoding.child import bind
bind(seconds)
sys.argv[1:] = arguments
if is_script:
    import os
    sys.path.insert(0, os.path.dirname(program))
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
_SERVE = """
import json, sys
path, program, n_bytes = json.loads(sys.argv[1])
sys.path += path
from alignpro_lite.decoding.child import serve
serve(program, n_bytes)
"""
CHILD_VARIABLE = "ALIGNPRO_LITE_CHILD"
"""Set in every child; see `__pyinstaller/rthooks`."""
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""For Popen: on Windows a child of an app without a console would open one."""
_START_SECONDS = 60.0
"""How long a warm child may take to start, on a machine that is busy with loading a model."""
_GRACE_SECONDS = 5.0
"""How long after its deadline a child ends by itself, if nobody was left to kill it."""


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Its exit status, negative for a signal as in `subprocess`; None past its deadline.
        output: What it wrote to stdout.
        errors: What it wrote to stderr.
    """

    code: int | None
    output: str
    errors: str


def run_child(
    program: str | Path,
    arguments: Sequence[str],
    seconds: float | None,
    environment: Mapping[str, str],
    cancellation: Cancellation | None = None,
) -> Ended:
    """Run a program in an isolated interpreter and wait for it.

    Args:
        program: A module by its dotted name, or the path of a script, which may import the modules
            beside it.
        arguments: Its `sys.argv[1:]`.
        seconds: Its deadline; None for none.
        environment: Variables to set on top of those of this process.
        cancellation: Kills it.

    Raises:
        OSError: The interpreter cannot be started.
        CancelledError: It was cancelled.
    """
    watched = cancellation or Cancellation()
    watched.check()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            child_command(program, arguments, seconds),
            stdin=subprocess.PIPE,  # stays open as long as this process lives; see `bind`
            stdout=output,
            stderr=errors,
            env=child_environment(environment),
            creationflags=NO_WINDOW,
        )
        try:
            with watched.stops(Stop(child.kill)):
                code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.communicate()
        watched.check()
        return Ended(code, *(_text(file) for file in (output, errors)))


def child_command(
    program: str | Path, arguments: Sequence[str], seconds: float | None
) -> list[str]:
    """The command line that runs a program as `run_child` does."""
    return isolated_command(
        _BOOTSTRAP, [seconds, isinstance(program, Path), str(program), *arguments]
    )


def isolated_command(code: str, told: Sequence[object]) -> list[str]:
    """The command line of an interpreter that runs code, told where to import from and more.

    Args:
        code: Finds the list [sys.path, *told] as JSON in sys.argv[1].
        told: What JSON can hold.

    Raises:
        OSError: There is no interpreter: Python is a part of another program.
    """
    if not sys.executable:
        raise FileNotFoundError("sys.executable names no Python interpreter")
    path = [place for place in sys.path if place and not _is_current_folder(place)]
    return [sys.executable, "-I", "-X", "utf8", "-c", code, json.dumps([path, *told])]


def child_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process without Python's own, and those that are added.

    One more tells a frozen app, whose program `sys.executable` is, that it is to be the child.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, CHILD_VARIABLE: "1", **added}


def bind(seconds: float | None) -> None:
    """In a child: end when the parent does, and soon after a deadline that it did not enforce.

    The parent holds the other end of stdin. A thread waits for its end; the deadline is kept by a
    thread in C, which does not need the interpreter.

    Args:
        seconds: The deadline, from now.
    """
    if seconds is not None:
        faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def how_it_ended(code: int) -> str:
    """The name of the signal that ended a child, or its exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # real-time signals have no name
        return f"signal {-code}"


def leave_to_parent(pipes: Iterable[IO[bytes] | None]) -> None:
    """In a fork: let go of pipes to a child of the parent, whose own ends of them count.

    Nothing is flushed: what is in their buffers is the parent's to send.
    """
    for pipe in pipes:
        if pipe is not None and not pipe.closed:
            cast(io.BufferedWriter, pipe).raw.close()


class WarmChild:
    """A child interpreter that answers one request after another, and waits for the next.

    Its program is a module with a function `answer`, which takes and returns what JSON can hold.
    It is started when it is first needed, and again after a request that it did not survive.
    Every thread may ask; requests wait for each other.
    """

    def __init__(self, program: str, memory_bytes: int) -> None:
        """Describe a child; none is started yet.

        Args:
            program: The module, by its dotted name.
            memory_bytes: How much address space it may use, where the system can limit that.
        """
        self._told = program, memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._keepers = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def keep(self) -> None:
        """Announce requests to come: start the child, without waiting for it, until `release`.

        Raises:
            OSError: The interpreter cannot be started.
        """
        with self._lock:
            self._running()
            self._keepers += 1

    def release(self) -> None:
        """End the child if nobody else keeps it."""
        with self._lock:
            self._keepers -= 1
            if self._keepers <= 0:
                self._end()

    def ask(self, request: object, seconds: float) -> Any:
        """Send a request and wait for the answer.

        Raises:
            TimeoutError: It took longer than `seconds`; the child was killed.
            ChildProcessError: The child ended instead of answering.
            OSError: The child cannot be started.
        """
        with self._lock:
            process = self._running()
            try:
                if not self._is_ready:
                    self._await_start(process)
                frame = json.dumps([seconds, request]).encode() + b"\n"
                return json.loads(_exchange(process, frame, seconds))
            except BaseException:  # whatever happened, the next answer would be that to this one
                self._end()
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                isolated_command(_SERVE, self._told),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment({}),
                creationflags=NO_WINDOW,
            )
        return self._process

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        try:
            _exchange(process, b"", _START_SECONDS)
        except (TimeoutError, ChildProcessError) as error:
            raise OSError(f"the child interpreter does not start: {error}") from error
        self._is_ready = True

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process, self._is_ready = None, False

    def _forget(self) -> None:
        """In a forked process: leave the child to the parent, whose end of its stdin counts."""
        self._lock = threading.Lock()
        if (process := self._process) is not None:
            leave_to_parent((process.stdin, process.stdout, process.stderr))
        self._process, self._is_ready = None, False


def _exchange(process: subprocess.Popen[bytes], frame: bytes, seconds: float) -> bytes:
    """Write to a child and read a line from it; it is killed at the deadline.

    Raises:
        TimeoutError: There was no line in time.
        ChildProcessError: The child ended.
    """
    stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    with _killed_after(seconds, process) as expired:
        try:
            stdin.write(frame)
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
    if expired.is_set():
        raise TimeoutError(f"it took more than {seconds:g} seconds")
    if not line.endswith(b"\n"):
        process.kill()
        lines = process.communicate()[1].decode(errors="replace").split("\n")
        raise ChildProcessError(next(filter(None, reversed(lines)), f"exit {process.returncode}"))
    return line


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill a process if the block is still running after some seconds; tells whether it was."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()


def serve(program: str, memory_bytes: int) -> None:
    """In a warm child: answer requests until the parent closes stdin.

    Args:
        program: The module whose `answer` is asked.
        memory_bytes: See `WarmChild`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the parent
    answer = importlib.import_module(program).answer
    _limit_memory(memory_bytes)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    replies.write(b"ready\n")
    replies.flush()
    for line in requests:
        seconds, request = json.loads(line)
        faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
        replies.write(json.dumps(answer(request)).encode() + b"\n")
        faulthandler.cancel_dump_traceback_later()
        replies.flush()


def _limit_memory(n_bytes: int) -> None:
    if sys.platform == "linux":  # macOS takes the limit and does not keep it, Windows has none
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = n_bytes if most == resource.RLIM_INFINITY else min(n_bytes, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _is_current_folder(place: str) -> bool:
    try:
        return Path(place).samefile(".")
    except OSError:
        return False


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

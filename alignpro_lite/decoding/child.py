"""Child interpreters, for code that may crash, hang or fill the memory of its process.

A child imports nothing from the current folder and reads no PYTHON* variable: a `hashlib.py` that
lies beside a downloaded model is never run. It ends with its parent, and at its deadline even while
C code holds the interpreter.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
) -> Ended:
    """Run a program in an isolated interpreter and wait for it.

    Args:
        program: A module by its dotted name, or the path of a script, which may import the modules
            beside it.
        arguments: Its `sys.argv[1:]`.
        seconds: Its deadline; None for none.
        environment: Variables to set on top of those of this process.

    Raises:
        OSError: The interpreter cannot be started.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            child_command(program, arguments, seconds),
            stdin=subprocess.PIPE,  # stays open as long as this process lives; see `bind`
            stdout=output,
            stderr=errors,
            env=child_environment(environment),
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.communicate()
        return Ended(code, *(_text(file) for file in (output, errors)))


def child_command(
    program: str | Path, arguments: Sequence[str], seconds: float | None
) -> list[str]:
    """The command line that runs a program as `run_child` does."""
    path = [place for place in sys.path if place and not _is_current_folder(place)]
    told = [path, seconds, isinstance(program, Path), str(program), *arguments]
    return [sys.executable, "-I", "-X", "utf8", "-c", _BOOTSTRAP, json.dumps(told)]


def child_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process without Python's own, and those that are added."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, **added}


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


def _is_current_folder(place: str) -> bool:
    try:
        return Path(place).samefile(".")
    except OSError:
        return False


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

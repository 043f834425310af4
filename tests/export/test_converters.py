"""Converters run isolated, end with their parent, and say why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignpro_lite.errors import ExportError, RegistryError
from alignpro_lite.export.converters import run_converter

SLOW = """
import os, sys, time
print(os.getpid(), file=open(sys.argv[1], "w"), flush=True)
while True:
    time.sleep(0.1)
"""
PARENT = """
import sys
from pathlib import Path
from alignpro_lite.export.converters import run_converter
run_converter(Path(sys.argv[1]), [sys.argv[2]], "The converter")
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise ValueError('Error(s):\\n\\tsize mismatch for q_proj [4]')", "mismatch for q_proj"),
        ("import sys; sys.exit('GPTNeo is not supported')", "GPTNeo is not supported"),
        ("print('only on stdout'); raise SystemExit(3)", "only on stdout"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_failure_is_told_with_the_line_that_matters(
    program: str, said: str, tmp_path: Path
) -> None:
    """Regression: the last line was all that was kept."""
    (tmp_path / "converter.py").write_text(program)
    with pytest.raises(ExportError, match=said):
        run_converter(tmp_path / "converter.py", [], "The converter")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize(
    "raised", ["OSError(28, os.strerror(28))", "OSError('512 requested and 40 written')"]
)
def test_a_full_disk_is_not_blamed_on_the_model(raised: str, tmp_path: Path) -> None:
    """Regression: "Check that the model is complete and its architecture is listed"."""
    program = tmp_path / "converter.py"
    program.write_text(f"import os\nraise {raised}")
    with pytest.raises(RegistryError) as caught:
        run_converter(program, [], "The converter")
    assert caught.value.cure.startswith("Free some space")


def test_a_converter_that_was_killed_is_told_so(tmp_path: Path) -> None:
    program = tmp_path / "converter.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ExportError, match="ended by SIGKILL"):
        run_converter(program, [], "The converter")


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process in the POSIX way")
def test_a_converter_ends_with_its_parent(tmp_path: Path) -> None:
    """Regression: the child went on at full load when its parent was killed."""
    program, told = tmp_path / "converter.py", tmp_path / "pid"
    program.write_text(SLOW)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(program), str(told)])
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int(told.read_text())
    parent.kill()
    parent.wait()
    while _is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"

"""What exceptions and programs of others say is kept: the line that differs, in bounded length."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.errors import reason_in, reason_of


def test_the_shapes_that_differ_are_kept() -> None:
    """Regression: only the first line was kept, "Error(s) in loading state_dict for Linear:"."""
    with pytest.raises(RuntimeError) as raised:
        torch.nn.Linear(3, 4).load_state_dict(torch.nn.Linear(5, 4).state_dict())
    reason = reason_of(raised.value)
    assert "size mismatch for weight" in reason
    assert "[4, 5]" in reason
    assert "[4, 3]" in reason
    assert "\n" not in reason


def test_of_many_lines_the_first_and_the_last_are_kept() -> None:
    lines = [f"size mismatch for layer {number}" for number in range(500)]
    reason = reason_of(ValueError("\n\t".join(["Error(s):", *lines])))
    assert reason.startswith("ValueError: Error(s): size mismatch for layer 0 size mismatch")
    assert "more lines) size mismatch for layer 499" in reason
    assert len(reason) < 900


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    reason = reason_of(ValueError(f"Expected one of {', '.join(['x' * 9] * 999)}, found Evil"))
    assert reason.startswith("ValueError: Expected one of xxx")
    assert reason.endswith("found Evil")
    assert len(reason) < 400


def test_what_caused_an_exception_is_told() -> None:
    error = OSError("cannot be loaded")
    error.__cause__ = ValueError("header\nshape [1, 2] is not [3]")
    said = "OSError: cannot be loaded; caused by ValueError: header shape [1, 2] is not [3]"
    assert reason_of(error) == said


def test_an_exception_without_words_is_named() -> None:
    assert reason_of(RuntimeError()) == "RuntimeError"


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=3000), st.text(max_size=3000))
def test_whatever_is_said_it_is_one_bounded_line(text: str, cause: str) -> None:
    error = ValueError(text)
    error.__cause__ = KeyError(cause)
    for reason in (reason_of(error), reason_in(text), reason_in(f"{text}\n{cause}")):
        assert len(reason) < 1400
        assert len(reason.splitlines()) <= 1


PROGRAMS = {
    "raise ValueError('Error(s):\\n\\tsize mismatch\\n\\n  [3] is not [4]')": (
        "ValueError: Error(s): size mismatch [3] is not [4]"
    ),
    "import json\ntry:\n  json.loads('')\nexcept ValueError as e:\n  raise OSError('no') from e": (
        "OSError: no; caused by json.decoder.JSONDecodeError: Expecting value: line 1 column 1 "
        "(char 0)"
    ),
    "try:\n  1 / 0\nexcept ArithmeticError:\n  raise KeyError('width')": "KeyError: 'width'",
    "class A:\n  def __del__(self): 1 / 0\na = A()\nraise ValueError('the failure')": (
        "ValueError: the failure"
    ),
    "import sys, warnings\nwarnings.warn('old')\nraise ValueError('new')": "ValueError: new",
    "import sys\nprint('INFO', file=sys.stderr)\nsys.exit('X is not supported')": (
        "INFO X is not supported"
    ),
    "import argparse\np = argparse.ArgumentParser('p')\np.parse_args(['--x'])": (
        "usage: p [-h] p: error: unrecognized arguments: --x"
    ),
    "pass": "",
}


@pytest.mark.parametrize(("program", "said"), PROGRAMS.items())
def test_the_failure_of_a_program_is_found_in_what_it_wrote(program: str, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert reason_in(ended.stderr) == said

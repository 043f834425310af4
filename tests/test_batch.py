"""Files of prompts: order, bad lines, and resuming after any interruption."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.batch import answer_lines, open_batch
from alignpro_lite.errors import ContextOverflowError, DeviceError, InputError


def shout(number: int, prompt: str) -> dict[str, object]:
    """Answer as a model would; refuses a prompt with `!`."""
    if "!" in prompt:
        raise ContextOverflowError("Too loud.", "Whisper.")
    return {"prompt": prompt, "answer": prompt.upper() + str(number)}


def run(source, output, answer=shout) -> list[dict[str, object]]:
    return list(answer_lines(open_batch(source, output), answer, lambda: None))


@pytest.fixture
def source(tmp_path):
    """A function that writes an input file."""

    def write(*lines: str):
        (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        return tmp_path / "in.jsonl"

    return write


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def records(output) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.read_text("utf-8").split("\n") if line]


def test_answers_keep_the_order_of_the_prompts(source, output):
    def slow_first(number, prompt):
        time.sleep(0.05 if number % 4 == 0 else 0)
        return shout(number, prompt)

    written = run(source(*(f'"p{i}"' for i in range(12))), output, slow_first)
    assert [record["answer"] for record in written] == [f"P{i}{i}" for i in range(12)]
    assert [record["line"] for record in written] == list(range(12))
    assert records(output) == written


def test_several_lines_are_answered_at_once(source, output):
    meeting = threading.Barrier(4, timeout=10)

    def together(number, prompt):
        meeting.wait()
        return shout(number, prompt)

    assert len(run(source(*['"p"'] * 8), output, together)) == 8


def test_strings_objects_ids_and_blank_lines(source, output):
    text = source('"one"', "", '{"prompt": "two", "id": [7]}', "   ", '{"prompt": "", "id": null}')
    assert run(text, output) == [
        {"line": 0, "prompt": "one", "answer": "ONE0"},
        {"line": 1, "id": [7], "prompt": "two", "answer": "TWO1"},
        {"line": 2, "id": None, "prompt": "", "answer": "2"},
    ]


BAD_LINES = [
    "{",
    "plain words",
    "5",
    "null",
    "[]",
    "{}",
    '{"prompt": 5}',
    '"loud!"',
    "[" * 100_000,
    '{"prompt": "x", "id": ' + "1" * 5000 + "}",
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=lambda line: line[:25])
def test_a_bad_line_never_loses_the_others(source, output, bad):
    """Deep nesting (RecursionError) and 5,000-digit numbers (ValueError) ended the whole run."""
    first, broken, last = run(source('"a"', bad, '"b"'), output)
    assert (first["answer"], last["answer"]) == ("A0", "B2")
    assert broken["line"] == 1
    assert broken["input"] == bad
    assert broken["error"]
    assert "answer" not in broken
    assert run(source('"a"', bad, '"b"'), output) == [], "not answered again"


def test_a_failure_that_no_line_caused_ends_the_run_and_a_restart_resumes_it(source, output):
    """A crashed engine used to mark every line that was left as answered with an error."""
    text = source('"a"', '"b"', '"c"')

    def crash(number, prompt):
        if number:
            raise DeviceError("The engine failed.", "Load it again.")
        return shout(number, prompt)

    with pytest.raises(DeviceError):
        run(text, output, crash)
    assert [record["answer"] for record in records(output)] == ["A0"]
    assert [record["answer"] for record in run(text, output)] == ["B1", "C2"]


def test_separators_inside_a_json_string_do_not_end_a_line(source, output):
    """JSON allows U+2028, U+2029 and U+0085 as they are; they cut a line in two."""
    prompt = "a\u2028b\u2029c\x85d"
    for _ in range(2):
        run(source(json.dumps(prompt, ensure_ascii=False), '"next"'), output)
        assert [record["prompt"] for record in records(output)] == [prompt, "next"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path, output):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'\xef\xbb\xbf"a"\r\n"b"\r\n')
    assert [record["prompt"] for record in run(file, output)] == ["a", "b"]


def test_a_lone_surrogate_comes_back_as_it_was(source, output):
    """UTF-8 has no such character; the write ended the run and every restart of it."""
    text = source('{"prompt": "a", "id": "\\ud800"}', '"b"')
    run(text, output)
    assert records(output)[0]["id"] == "\ud800"
    assert run(text, output) == []


def test_a_file_that_is_not_utf8_is_refused_with_its_place(tmp_path, output):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'"a"\n"\xe4"\n')
    with pytest.raises(InputError, match="found byte 0xe4 at 5"):
        open_batch(file, output)
    assert not output.exists()


def test_an_input_without_a_prompt_is_refused(source, output):
    with pytest.raises(InputError, match="found none"):
        open_batch(source("", "  "), output)


LINES = ['"ä one"', '{"prompt": "two 🙂", "id": 7}', "no json", '"loud!"', '"\\ud83d"', '"six"']


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_run_killed_at_any_byte_is_resumed_to_the_same_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("batch")
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("\n".join(LINES), "utf-8")
    run(source, output)
    whole = output.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    output.write_bytes(whole[:at])
    left = run(source, output)
    assert output.read_bytes() == whole
    assert len(left) == len(LINES) - whole[:at].count(b"\n")


@pytest.mark.parametrize(
    "foreign",
    [
        b"notes\n",
        b"notes without an end of line",
        b'{"a": 1}\n',
        b'"text"\n',
        b"\n",
        b"\x00\x01\x02",
        b'{"line": 1, "prompt": "a"}\n',
        b'{"line": 0, "prompt": "other"}\n',
        b'{"line": 0, "prompt": "a"}\n{"line": 0, "prompt": "a"}\n',
        b'{"line": 0, "prompt": "a"}\nnotes',
        b'{"line": 0, "prompt": "a"}\n{"line": 1, "prompt": "b"}\n{"line": 2, "prompt": "c"}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_file_of_something_else_is_refused_and_kept(source, output, foreign):
    """One line without an end was taken for a half-written record and deleted."""
    output.write_bytes(foreign)
    with pytest.raises(InputError, match="does not answer line"):
        open_batch(source('"a"', '"b"'), output)
    assert output.read_bytes() == foreign


def test_the_input_itself_as_output_is_refused_and_kept(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('"the only line"', "utf-8")
    with pytest.raises(InputError):
        open_batch(file, file)
    assert file.read_text("utf-8") == '"the only line"'


def test_nothing_is_written_before_the_first_answer(source, output):
    open_batch(source('"a"'), output)
    assert not output.exists()


def test_ctrl_c_leaves_whole_lines_and_the_run_is_resumed(source, output):
    text = source(*(f'"p{i}"' for i in range(9)))

    def interrupted(number, prompt):
        if number == 5:
            raise KeyboardInterrupt
        return shout(number, prompt)

    with pytest.raises(KeyboardInterrupt):
        run(text, output, interrupted)
    assert [record["line"] for record in records(output)] == [0, 1, 2, 3, 4]
    assert [record["line"] for record in run(text, output)] == [5, 6, 7, 8]


def test_a_reader_that_leaves_loses_nothing_that_was_written(source, output):
    text = source(*(f'"p{i}"' for i in range(9)))
    cancelled = threading.Event()
    reading: Any = answer_lines(open_batch(text, output), shout, cancelled.set)
    next(reading)
    next(reading)
    reading.close()
    assert cancelled.is_set()
    assert [record["line"] for record in records(output)] == [0, 1]
    run(text, output)
    assert [record["line"] for record in records(output)] == list(range(9))

"""Files of prompts: order, bad lines, and resuming after any interruption."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.batch import answer_lines, open_batch
from alignpro_lite.errors import ContextOverflowError, DeviceError, InputError, RegistryError


def shout(number: int, prompt: str) -> dict[str, object]:
    """Answer as a model would; refuses a prompt with `!`."""
    if "!" in prompt:
        raise ContextOverflowError("Too loud.", "Whisper.")
    return {"prompt": prompt, "answer": prompt.upper() + str(number)}


def run(source, output, answer=shout) -> list[dict[str, object]]:
    with open_batch(source, output) as batch:
        return list(answer_lines(batch, answer, lambda: None))


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
    whole = output.read_bytes()
    assert run(source('"a"', bad, '"b"'), output) == [broken], "only that line is tried again"
    assert output.read_bytes() == whole


NESTED_IDS = ["[" * depth + "]" * depth for depth in (101, 850, 900, 950, 980)]


@pytest.mark.parametrize("found_id", ["NaN", "1e999", "[-Infinity]", *NESTED_IDS], ids=len)
def test_an_id_that_json_cannot_hold_is_refused(source, output, found_id):
    """Regression: NaN went through to the output, which was then no JSON; some 950 levels were read
    in the thread of their line and could not be written in another, which ended the run."""
    found = run(source(f'{{"prompt": "a", "id": {found_id}}}', '"b"'), output)
    assert found[0]["error"]
    assert found[1]["answer"] == "B1"
    for line in output.read_text("utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)


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
        run(file, output)
    assert not output.exists()


def test_an_input_without_a_prompt_is_refused(source, output):
    with pytest.raises(InputError, match="found none"):
        run(source("", "  "), output)


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
    complete = whole[:at].split(b"\n")[:-1]
    answered = sum("error" not in json.loads(line) for line in complete)
    left = run(source, output)
    assert output.read_bytes() == whole
    assert len(left) == len(LINES) - answered


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
        run(source('"a"', '"b"'), output)
    assert output.read_bytes() == foreign


def input_itself(file: Path) -> Path:
    return file


def written_otherwise(file: Path) -> Path:
    return file.parent / "other" / ".." / file.name


def symbolic_link(file: Path) -> Path:
    file.with_name("link").symlink_to(file)
    return file.with_name("link")


def link_to_a_link(file: Path) -> Path:
    file.with_name("second").symlink_to(symbolic_link(file))
    return file.with_name("second")


def hard_link(file: Path) -> Path:
    os.link(file, file.with_name("hard"))
    return file.with_name("hard")


def linked_folder(file: Path) -> Path:
    file.parent.joinpath("folder").symlink_to(file.parent, target_is_directory=True)
    return file.parent / "folder" / file.name


@pytest.mark.skipif(sys.platform == "win32", reason="Windows asks for rights to make links")
@pytest.mark.parametrize(
    "name",
    [input_itself, written_otherwise, symbolic_link, link_to_a_link, hard_link, linked_folder],
)
@pytest.mark.parametrize("content", ['"the only line"', '"a"\n', '{"line": 0, '])
def test_the_input_itself_as_output_is_refused_and_kept(tmp_path, name, content):
    """The error advised to delete that file, which was the file of prompts."""
    (tmp_path / "other").mkdir()
    file = tmp_path / "in.jsonl"
    file.write_text(content, "utf-8")
    with pytest.raises(InputError, match="is the file of prompts itself") as caught:
        run(file, name(file))
    assert "delete" not in caught.value.cure
    assert file.read_text("utf-8") == content


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_an_output_that_is_no_file_is_refused_before_it_is_opened(source, tmp_path):
    """Reading a pipe or a terminal to find out what is answered waited for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for output in (tmp_path / "pipe", tmp_path / "link", Path("/dev/null"), tmp_path):
        with pytest.raises(InputError, match="Expected a file for the answers"):
            run(source('"a"'), output)


def test_nothing_is_written_before_the_first_answer_and_no_lock_is_left(source, output):
    with open_batch(source('"a"'), output):
        assert not output.exists()
    assert [path.name for path in output.parent.iterdir()] == ["in.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows asks for rights to make links")
def test_a_second_writer_is_told_at_once_and_by_any_name(source, output):
    """Two runs on one output both answered everything: 120 records for 60 prompts."""
    text = source('"a"', '"b"')
    names = [output, output.parent / "." / output.name, output.with_name("link")]
    with open_batch(text, output) as first:
        answers = answer_lines(first, shout, lambda: None)
        next(answers)
        names[2].symlink_to(output)
        for name in names:
            with pytest.raises(InputError, match="Another run is writing"):
                run(text, name)
        list(answers)
    assert [record["answer"] for record in records(output)] == ["A0", "B1"]
    assert run(text, names[2]) == []


def test_a_second_process_is_told_at_once(source, output):
    text = source('"a"')
    code = (
        "import sys; from pathlib import Path; from alignpro_lite.batch import open_batch\n"
        "with open_batch(*map(Path, sys.argv[1:])): pass"
    )
    with open_batch(text, output):
        second = subprocess.run(
            [sys.executable, "-c", code, text, output], capture_output=True, text=True, check=False
        )
    assert "Another run is writing" in second.stderr


def test_only_lines_that_failed_are_tried_again_and_keep_their_places(source, output):
    """The second run of a batch with bad lines said that all was done."""
    run(source('"a"', "no json", '"loud!"', '"d"'), output)
    asked = []

    def quieter(number, prompt):
        asked.append(number)
        return shout(number, prompt.removesuffix("!"))

    text = source('"a"', '"corrected"', '"loud!"', '"d"', '"new"')
    with open_batch(text, output) as batch:
        assert (batch.answered, batch.failed) == (2, (1, 2))
    assert [record["line"] for record in run(text, output, quieter)] == [1, 2, 4]
    assert sorted(asked) == [1, 2, 4]
    assert [record["answer"] for record in records(output)] == [
        *("A0", "CORRECTED1", "LOUD2", "D3", "NEW4")
    ]
    assert run(text, output) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, DeviceError])
def test_trying_again_loses_nothing_when_it_ends_early(source, output, error):
    bad = ['"a"', '"b!"', '"c!"', '"d"', '"e!"']
    run(source(*bad), output)

    def stop_at_the_last(number, prompt):
        if number == 4:
            raise error() if error is KeyboardInterrupt else error("Down.", "Repair it.")
        return shout(number, prompt.removesuffix("!"))

    with pytest.raises(error):
        run(source(*bad), output, stop_at_the_last)
    found = records(output)
    assert [record["line"] for record in found] == list(range(5))
    assert ["error" in record for record in found] == [False, False, False, False, True]
    assert {path.name for path in output.parent.iterdir()} == {"in.jsonl", "out.jsonl"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX rights")
def test_trying_again_keeps_the_rights_and_the_link_of_the_output(source, output):
    text = source('"a!"', '"b"')
    real = output.with_name("real.jsonl")
    run(text, real)
    real.chmod(0o600)
    output.symlink_to(real)
    run(text, output)
    assert output.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_prompt_that_the_model_sees_otherwise_is_known_again(source, output):
    """`<keep>` is taken out of a prompt; no run of such a file could be resumed."""
    text = source('"<keep>a</keep>"', '"b"')
    run(text, output, lambda number, _: {"prompt": "a", "answer": number})
    assert run(text, output) == []


def test_failed_lines_are_named_by_their_place_in_the_file(source, output):
    with open_batch(source("", '"a"', "  ", '"b"'), output) as batch:
        assert batch.places == (2, 4)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('"a"\n'.encode("utf-16"), "found UTF-16"),
        ('"a"\n'.encode("utf-16-le"), "found a zero byte at 1"),
        ('"a"\n'.encode("utf-32"), "found UTF-32"),
        ('"caf\xe9"\n'.encode("latin-1"), "found byte 0xe9 at 4"),
        (codecs.BOM_UTF8 + b'"\xff"', "found byte 0xff at 4"),
    ],
)
def test_an_input_in_another_encoding_is_one_clear_error(tmp_path, output, content, found):
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=found):
        run(tmp_path / "in.jsonl", output)
    assert not output.exists()


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Let no file grow longer; a disk that is full fails in the same way."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_output_and_a_restart_completes_it(source, output):
    """Regression: closing the file failed again, and that hid the error with its cure."""
    file = source(*(f'"p{number}"' for number in range(9)))
    with longest_file(100), pytest.raises(RegistryError, match=str(output)):
        run(file, output)
    assert output.stat().st_size <= 100
    run(file, output)
    assert [record["line"] for record in records(output)] == list(range(9))


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
    with open_batch(text, output) as batch:
        reading: Any = answer_lines(batch, shout, cancelled.set)
        next(reading)
        next(reading)
        reading.close()
    assert cancelled.is_set()
    assert [record["line"] for record in records(output)] == [0, 1]
    run(text, output)
    assert [record["line"] for record in records(output)] == list(range(9))

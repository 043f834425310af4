"""Files of prompts: one JSON line in, one JSON line out, in order, resumable.

After an interruption, an incomplete last line is cut off and the work continues
after the last complete one.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from alignpro_lite.errors import ContextOverflowError, InputError

IN_FLIGHT = 4
"""Lines worked on at once; their sequences are decoded together."""

AnswerLine: TypeAlias = Callable[[int, str], dict[str, Any]]
"""Answers a line, from its number, which counts from 0, and its prompt."""


@dataclass(frozen=True)
class Batch:
    """A file of prompts, and how many of them are answered.

    Attributes:
        lines: The raw lines of the input, blank ones left out.
        output: The file of answers.
        done: How many lines have been answered.
    """

    lines: tuple[str, ...]
    output: Path
    done: int


def open_batch(input_file: Path, output_file: Path) -> Batch:
    """Read the prompts and find out how many are answered already.

    Raises:
        InputError: The input is not UTF-8 or has no line, or the output belongs
            to other prompts.
    """
    if not output_file.absolute().parent.is_dir():
        raise InputError(
            f"The folder of {output_file} does not exist.", "Make it first, or choose another."
        )
    try:
        text = input_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{input_file} must be UTF-8, found byte 0x{error.object[error.start]:02x} at "
            f"{error.start}.",
            "Convert it first, for example with `iconv -t utf-8`.",
        ) from error
    # Not splitlines: JSON strings may hold U+2028 and similar characters unescaped.
    lines = tuple(line for line in text.split("\n") if line.strip())
    if not lines:
        raise InputError(
            f"{input_file} must hold one prompt per line, found none.",
            'Write lines such as {"prompt": "..."}.',
        )
    return Batch(lines, output_file, _count_done(output_file, lines))


def answer_lines(
    batch: Batch, answer: AnswerLine, cancel: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Answer the lines that are left, several at a time, and write each as it comes.

    Args:
        batch: What `open_batch` found.
        answer: Called from several threads. An InputError or ContextOverflowError that it raises
            becomes the line's `error`.
        cancel: Stops the answers under way; called when the work ends early.

    Yields:
        The records written, in the order of the input.

    Raises:
        AlignProError: Something failed that is not the fault of a line; a restart tries again.
    """
    left = deque(range(batch.done, len(batch.lines)))
    running: deque[Future[dict[str, Any]]] = deque()
    with (
        # A lone surrogate, which JSON can hold and UTF-8 cannot, is escaped as JSON does.
        batch.output.open("a", encoding="utf-8", errors="backslashreplace") as file,
        ThreadPoolExecutor(max_workers=IN_FLIGHT) as pool,
    ):
        try:
            while left or running:
                while left and len(running) < IN_FLIGHT:
                    number = left.popleft()
                    running.append(pool.submit(_record, number, batch.lines[number], answer))
                record = running.popleft().result()
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                yield record
        finally:
            for future in running:
                future.cancel()
            if running:
                cancel()


def _record(number: int, line: str, answer: AnswerLine) -> dict[str, Any]:
    record: dict[str, Any] = {"line": number}
    try:
        value = _parse(line)
        record |= _kept_fields(value)
        return record | answer(number, _prompt_of(value))
    except (InputError, ContextOverflowError) as error:
        return record | {"input": line, "error": str(error)}


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # not only JSONDecodeError: 5,000-digit numbers
        raise InputError(
            f"The line is not JSON ({error}).", "Correct it; a text needs quotation marks."
        ) from error


def _prompt_of(value: Any) -> str:
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise InputError(
            'A line must be a string or an object with a string "prompt", found '
            f"{type(prompt).__name__}.",
            "Correct the line.",
        )
    return prompt


def _kept_fields(value: Any) -> dict[str, Any]:
    """An `id` of the input line goes through to the output."""
    return {"id": value["id"]} if isinstance(value, dict) and "id" in value else {}


def _count_done(output: Path, lines: tuple[str, ...]) -> int:
    """Complete records already written; cuts off an incomplete last one."""
    if not output.exists():
        return 0
    raw = output.read_bytes()
    complete = raw[: raw.rfind(b"\n") + 1]
    records = complete.splitlines()
    for number, record in enumerate(records):
        _check_belongs(output, number, record, lines)
    rest = raw[len(complete) :]
    if rest:
        _check_begins(output, len(records), rest)
        os.truncate(output, len(complete))
    return len(records)


def _check_begins(output: Path, number: int, rest: bytes) -> None:
    """Refuse to cut off anything but the beginning of a record written here."""
    own = f'{{"line": {number}, '.encode()
    if not (rest.startswith(own) or own.startswith(rest)):
        raise _foreign(output, number)


def _check_belongs(output: Path, number: int, raw: bytes, lines: tuple[str, ...]) -> None:
    try:
        record = json.loads(raw)
        source = record.get("input", record.get("prompt"))
        if number < len(lines) and record["line"] == number:
            line = lines[number]
            if source == line or source == _prompt_of(_parse(line)):
                return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        pass
    raise _foreign(output, number)


def _foreign(output: Path, number: int) -> InputError:
    return InputError(
        f"Line {number + 1} of {output} does not answer line {number + 1} of the input.",
        "Pass another --output, or delete that file to start again.",
    )

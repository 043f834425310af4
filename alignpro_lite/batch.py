"""Files of prompts: one JSON line in, one JSON line out, in order, resumable.

After an interruption, an incomplete last line is cut off and the work continues after the last
complete one. Lines that failed are tried again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from alignpro_lite.errors import ContextOverflowError, InputError, NoAnswerError
from alignpro_lite.registry.record import MAX_NESTING, is_nested_deeper
from alignpro_lite.registry.storage import commit, disk_errors, try_locked
from alignpro_lite.registry.text import decode_input

IN_FLIGHT = 4
"""Lines worked on at once; their sequences are decoded together."""

AnswerLine: TypeAlias = Callable[[int, str], dict[str, Any]]
"""Answers a line, from its number, which counts from 0, and its prompt."""


@dataclass(frozen=True)
class Batch:
    """A file of prompts, and what is answered of it.

    Attributes:
        lines: The raw lines of the input, blank ones left out.
        places: The number of each line in the input file, from 1 and blank ones counted.
        output: The file of answers.
        records: What it holds, a line of JSON each, in the order of `lines`.
        failed: Numbers of the records that hold an error, ascending.
    """

    lines: tuple[str, ...]
    places: tuple[int, ...]
    output: Path
    records: tuple[bytes, ...]
    failed: tuple[int, ...]

    @property
    def answered(self) -> int:
        """How many lines have an answer."""
        return len(self.records) - len(self.failed)


@contextmanager
def open_batch(input_file: Path, output_file: Path) -> Iterator[Batch]:
    """Read the prompts and what is answered already; nobody else may write inside the block.

    Raises:
        InputError: The input is not UTF-8 or has no line; the output is the input, is no file,
            belongs to other prompts, or another run writes it.
        RegistryError: A file cannot be read or written.
    """
    with ExitStack() as stack:
        with disk_errors(output_file):
            _check_places(input_file, output_file)
            numbered = _read_lines(input_file)
            output = output_file.resolve()
            lock = output.with_name(f".{output.name}.lock")
            if not stack.enter_context(try_locked(lock)):
                raise InputError(
                    f"Another run is writing {output_file}.",
                    "Wait until it is done, or choose another --output.",
                )
            lines = tuple(numbered.values())
            records = _read_records(output, lines)
        failed = tuple(n for n, record in enumerate(records) if "error" in json.loads(record))
        yield Batch(lines, tuple(numbered), output, records, failed)


def answer_lines(
    batch: Batch, answer: AnswerLine, cancel: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Answer the lines that are left, several at a time, and write each as it comes.

    Args:
        batch: What `open_batch` found.
        answer: Called from several threads. An InputError, ContextOverflowError or
            NoAnswerError that it raises becomes the line's `error`.
        cancel: Stops the answers under way; called when the work ends early.

    Yields:
        The records written, in the order of the input; first those of lines that had failed.

    Raises:
        RegistryError: The output cannot be written.
        AlignProError: Something failed that is not the fault of a line; a restart tries again.
    """
    if batch.failed:
        yield from _answer_failed(batch, answer, cancel)
    rest = range(len(batch.records), len(batch.lines))
    with closing(_answers(batch.lines, rest, answer, cancel)) as answers:
        for record in answers:
            # Opened for each line: on a full disk, one left open fails again as it closes.
            with disk_errors(batch.output), batch.output.open("ab") as file:
                file.write(_as_line(record))
            yield record


def _answer_failed(
    batch: Batch, answer: AnswerLine, cancel: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Replace the records of lines that had failed, in one step, also if the work ends early."""
    records = list(batch.records)
    try:
        with closing(_answers(batch.lines, batch.failed, answer, cancel)) as answers:
            for record in answers:
                records[record["line"]] = _as_line(record)
                yield record
    finally:
        with disk_errors(batch.output):
            partial = batch.output.with_name(f".{batch.output.name}.partial")
            partial.write_bytes(b"".join(records))
            shutil.copymode(batch.output, partial)
            commit(partial, batch.output)


def _answers(
    lines: tuple[str, ...], numbers: Iterable[int], answer: AnswerLine, cancel: Callable[[], None]
) -> Generator[dict[str, Any]]:
    """The records of some lines, in order, several worked on at a time."""
    left = deque(numbers)
    running: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(max_workers=IN_FLIGHT) as pool:
        try:
            while left or running:
                while left and len(running) < IN_FLIGHT:
                    number = left.popleft()
                    running.append(pool.submit(_record, number, lines[number], answer))
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
            if running:
                cancel()


def _as_line(record: dict[str, Any]) -> bytes:
    # A lone surrogate, which JSON can hold and UTF-8 cannot, is escaped as JSON does.
    return (json.dumps(record, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _record(number: int, line: str, answer: AnswerLine) -> dict[str, Any]:
    record: dict[str, Any] = {"line": number}
    try:
        value = _parse(line)
        record |= _kept_fields(value)
        prompt = _prompt_of(value)
        # As it is in the input, by which a later run knows the record; marks in it may be gone.
        return record | answer(number, prompt) | {"prompt": prompt}
    except (InputError, ContextOverflowError, NoAnswerError) as error:
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
    """An `id` of the input line goes through to the output.

    Raises:
        InputError: It has a number that Python reads and JSON does not have, or is nested so deep
            that it may be read here and not be written elsewhere.
    """
    if not isinstance(value, dict) or "id" not in value:
        return {}
    if is_nested_deeper(value["id"], MAX_NESTING) or not _is_finite(value["id"]):
        raise InputError(
            f'The "id" of a line must be finite and have at most {MAX_NESTING} levels.',
            "Correct the line; a string or a number is best.",
        )
    return {"id": value["id"]}


def _is_finite(value: Any) -> bool:
    """Whether a value that was read has only numbers that JSON has."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _check_places(input_file: Path, output_file: Path) -> None:
    """Refuse an output that would destroy something, or that is no file."""
    if not output_file.absolute().parent.is_dir():
        raise InputError(
            f"The folder of {output_file} does not exist.", "Make it first, or choose another."
        )
    if not output_file.exists():
        return
    if not output_file.is_file():
        raise InputError(
            f"Expected a file for the answers, found that {output_file} is something else.",
            "Choose another --output.",
        )
    if output_file.samefile(input_file):
        raise InputError(
            f"{output_file} is the file of prompts itself.", "Choose another --output."
        )


def _read_lines(file: Path) -> dict[int, str]:
    """The lines that are not blank, by their numbers in the file, which count from 1."""
    text = decode_input(file.read_bytes(), str(file)).replace("\r\n", "\n").replace("\r", "\n")
    # Not splitlines: JSON strings may hold U+2028 and similar characters unescaped.
    lines = enumerate(text.split("\n"), start=1)
    numbered = {number: line for number, line in lines if line.strip()}
    if not numbered:
        raise InputError(
            f"{file} must hold one prompt per line, found none.",
            'Write lines such as {"prompt": "..."}.',
        )
    return numbered


def _read_records(output: Path, lines: tuple[str, ...]) -> tuple[bytes, ...]:
    """Complete records already written; cuts off an incomplete last one."""
    if not output.exists():
        return ()
    *records, rest = output.read_bytes().split(b"\n")
    for number, record in enumerate(records):
        _check_belongs(output, number, record, lines)
    if rest:
        _check_begins(output, len(records), rest)
        os.truncate(output, output.stat().st_size - len(rest))
    return tuple(record + b"\n" for record in records)


def _check_begins(output: Path, number: int, rest: bytes) -> None:
    """Refuse to cut off anything but the beginning of a record written here."""
    own = f'{{"line": {number}, '.encode()
    if not (rest.startswith(own) or own.startswith(rest)):
        raise _foreign(output, number)


def _check_belongs(output: Path, number: int, raw: bytes, lines: tuple[str, ...]) -> None:
    """Refuse what does not answer a line; one that failed may have been corrected since."""
    try:
        record = json.loads(raw)
        belongs = number < len(lines) and record["line"] == number
        if belongs and ("error" in record or record["prompt"] == _prompt_of(_parse(lines[number]))):
            return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        pass
    raise _foreign(output, number)


def _foreign(output: Path, number: int) -> InputError:
    return InputError(
        f"Line {number + 1} of {output} does not answer line {number + 1} of the input.",
        "Choose another --output.",
    )

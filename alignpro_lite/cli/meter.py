"""How far a download or a check of files has come, on stderr."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

import click

from alignpro_lite.cli.output import one_line
from alignpro_lite.hardware.memory import format_bytes
from alignpro_lite.registry.storage import Progress

_REDRAW_SECONDS = 0.1


class Meter:
    """Draws progress on stderr: a live line in a terminal, else one line at start and end."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._started = self._drawn = 0.0
        self._first = 0
        self._last = Progress("", 0, None)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(interrupted=error is not None)

    def __call__(self, progress: Progress) -> None:
        """Note progress, and draw it if it is time."""
        now = time.monotonic()
        if progress.label != self._last.label:
            self._finish(interrupted=False)
            self._started, self._first = now, progress.done
            if not self._live and progress.done != progress.total:
                click.echo(f"{progress.label}: {_amount(progress)}", err=True)
        self._last = progress
        if self._live and (now - self._drawn >= _REDRAW_SECONDS or progress.done == progress.total):
            self._drawn = now
            line = self._line(now)[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r{line}\x1b[K", nl=False, err=True)

    def note(self, text: str) -> None:
        """Say something in between, on a line of its own."""
        self._finish(interrupted=True)
        click.echo(one_line(text), err=True)

    def _finish(self, interrupted: bool) -> None:
        if not self._last.label:
            return
        if self._live:
            click.echo(err=True)
        elif self._last.done:
            state = "stopped at" if interrupted else "done,"
            seconds = time.monotonic() - self._started
            done = format_bytes(self._last.done)
            click.echo(f"{self._last.label}: {state} {done} in {seconds:.1f} s", err=True)
        self._last = Progress("", 0, None)

    def _line(self, now: float) -> str:
        rate = (self._last.done - self._first) / max(now - self._started, 1e-3)
        line = f"{_amount(self._last)} {format_bytes(int(rate))}/s"
        if self._last.total is not None and rate > 0:
            left = int((self._last.total - self._last.done) / rate)
            line += f" {left // 60}:{left % 60:02} left"
        return f"{line}  {self._last.label}"


def _amount(progress: Progress) -> str:
    if progress.total is None:
        return format_bytes(progress.done) if progress.done else ""
    percent = 100 * progress.done // max(progress.total, 1)
    return f"{percent:3}% {format_bytes(progress.done)} of {format_bytes(progress.total)}"

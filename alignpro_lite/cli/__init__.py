"""The `alignpro-lite` command: parse, call the library, print.

No module of this folder imports an engine at the top, so `--help` is instant. Exceptions become
exit codes here and nowhere else: 0 done, 1 failed with one line, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys

import click

from alignpro_lite.cli import chat, doctor, evaluate, export, models, rewrite, run, serve, train
from alignpro_lite.cli.output import one_line
from alignpro_lite.errors import AlignProError, without_secrets

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alignpro-lite", message="%(prog)s %(version)s")
def cli() -> None:
    """Rewrite a prompt with a small model so that a frozen local model answers it better.

    Everything runs offline, except `models pull` and a target endpoint that you configure.
    """


for _command in (
    run.rewrite_and_answer,
    chat.chat,
    rewrite.show_rewrites,
    serve.serve_models,
    models.models,
    train.train,
    export.export,
    evaluate.evaluation,
    doctor.doctor,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit the process with the contract's exit code."""
    _prepare_streams()
    code = exit_code_of(sys.argv[1:])
    if code == EXIT_INTERRUPTED:
        # At once: a native call may still run on another thread, and would not survive an
        # interpreter that takes its time to leave.
        os._exit(code)
    sys.exit(code)


def _prepare_streams() -> None:
    """Replace closed streams, which Python sets to None; UTF-8 in and out whatever the locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - for the whole run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are not UTF-8 stay recognisable, for an error that says which they are.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline=None)


def exit_code_of(arguments: list[str]) -> int:
    """Run one command line.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit code.
    """
    try:
        cli.main(arguments, prog_name="alignpro-lite", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        click.UsageError(without_secrets(error.format_message()), error.ctx).show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted.", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`). Point stdout at nothing, so that the
        # interpreter's own flush at exit stays silent too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (click.ClickException, AlignProError, OSError, MemoryError) as error:
        line = one_line(without_secrets(_describe(error)))
        click.echo(f"Error: {line}", err=True)
        return EXIT_FAILED
    return 0


def _describe(error: Exception) -> str:
    """What is wrong and its cure."""
    match error:
        case click.ClickException():
            return error.format_message()
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            cure = "Check the path, its permissions and the free space."
            return f"{where}{error.strerror or error}. {cure}"
        case MemoryError():
            return "There is not enough memory. Free some, or use a smaller model, input or --ctx."
    return str(error)

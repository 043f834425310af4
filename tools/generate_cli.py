"""Write docs/cli.md from the commands' own --help; `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from alignpro_lite.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH = 96


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Command line",
        "Generated from `--help` by `make docs`; a test checks that it has not drifted.",
    ]
    for path, text in help_texts(cli, "alignpro-lite", None):
        level = "##" if path.count(" ") < 2 else "###"
        parts.append(f"{level} {path}\n\n```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def help_texts(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    """The help of a command and, below it, of its subcommands."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "color": False}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            if subcommand is not None:
                yield from help_texts(subcommand, child, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

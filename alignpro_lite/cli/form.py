"""Options about the form of an answer, and what is reported of its tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignpro_lite.cli.options import grouped
from alignpro_lite.errors import InputError
from alignpro_lite.registry.text import decode_input

if TYPE_CHECKING:
    from alignpro_lite.decoding.constraint import Constraint
    from alignpro_lite.rewriting.request import Request


@dataclass(frozen=True)
class ConstraintOptions:
    """What an answer must be."""

    json_schema: Path | None
    grammar: Path | None

    def applied(self, request: Request) -> Request:
        """A request with these options.

        Raises:
            click.UsageError: Two forms are asked for.
            InputError: A file cannot be used, or what it says cannot be kept.
        """
        from alignpro_lite.decoding.checking import require_keepable

        constraint = self._constraint()
        if constraint is not None:
            require_keepable(constraint)
        return replace(request, constraint=constraint)

    def _constraint(self) -> Constraint | None:
        from alignpro_lite.decoding.constraint import Gbnf, JsonSchema

        if self.json_schema and self.grammar:
            raise click.UsageError("--json-schema and --grammar do not go together.")
        if self.json_schema:
            return JsonSchema(_read_json(self.json_schema))
        return Gbnf(_read(self.grammar)) if self.grammar else None


@dataclass(frozen=True)
class FormOptions(ConstraintOptions):
    """What an answer must be, and how many alternatives to its tokens are listed."""

    log_probs: int | None

    def applied(self, request: Request) -> Request:
        """A request with these options; see `ConstraintOptions.applied`."""
        return replace(super().applied(request), log_probs=self.log_probs)


def _read(file: Path) -> str:
    try:
        return decode_input(file.read_bytes(), str(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).", "Check it.") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read(file))
    except (ValueError, RecursionError) as error:  # not only JSONDecodeError: 5,000-digit numbers
        raise InputError(f"{file} must hold a JSON schema ({error}).", "Correct it.") from error


_CONSTRAINTS = (
    click.option(
        "--json-schema",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="The answer is JSON that is valid under the schema in this file. The prompt is then "
        "rewritten only if you ask for that.",
    ),
    click.option(
        "--grammar",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="The answer is a text of the grammar in this file, which is in llama.cpp's GBNF.",
    ),
)
constraint_options = grouped("constraint", ConstraintOptions, *_CONSTRAINTS)
"""Adds the options of a form, which reach the command as `constraint: ConstraintOptions`."""
form_options = grouped(
    "form",
    FormOptions,
    *_CONSTRAINTS,
    click.option(
        "--log-probs",
        type=click.IntRange(min=0, max=20),
        metavar="N",
        help="With --json or --input, list the log-probability of each token of the answer and of "
        "the N most likely ones.",
    ),
)
"""Adds these options, which reach the command as `form: FormOptions`."""

"""Write docs/configuration-keys.md from the configuration records; `make docs` runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from msgspec import Struct, inspect
from msgspec.inspect import Field, StructType, VarTupleType

from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.registry.allowed import in_words, parts
from alignpro_lite.registry.record import Record
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.reference.config import ReferenceConfig
from alignpro_lite.train.reward.config import RewardConfig

PAGE = Path(__file__).parents[1] / "docs" / "configuration-keys.md"
FILES: dict[str, type[Record]] = {
    "reward.toml": RewardConfig,
    "reference.toml": ReferenceConfig,
    "prompter.toml": PrompterConfig,
    "oracle.toml": OracleConfig,
    "eval.toml": EvalConfig,
}


@dataclass(frozen=True)
class Table:
    """A TOML table.

    Attributes:
        heading: How it is written, such as [training].
        meaning: What it is for.
        record: What it may hold.
    """

    heading: str
    meaning: str
    record: StructType


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Keys of the configurations",
        "Generated from the configuration records by `make docs`; a test checks that it has not "
        "drifted. An unknown key is refused. [training.md](training.md) and "
        "[evaluation.md](evaluation.md) show them at work.",
    ]
    for name, kind in FILES.items():
        record = record_type(kind)
        parts.append(f"## {name}")
        if not all(inner_records(field.type) for field in record.fields):
            parts.append(f"At the top:\n\n{rows(record)}")
        for table in tables(record, ""):
            parts.append(f"### {table.heading}\n\n{table.meaning}\n\n{rows(table.record)}")
    return "\n\n".join(parts) + "\n"


def record_type(kind: type[Record]) -> StructType:
    """What msgspec knows about a record."""
    return cast(StructType, inspect.type_info(kind))


def tables(record: StructType, prefix: str) -> Iterator[Table]:
    """The tables that a record holds, each followed by those inside it."""
    meanings = attributes(record.cls)
    for field in record.fields:
        path = f"{prefix}{field.name}"
        heading = f"`[[{path}]]`" if isinstance(field.type, VarTupleType) else f"`[{path}]`"
        inner = inner_records(field.type)
        for table in inner:
            if len(inner) == 1:
                yield Table(heading, meanings[field.name] + " Required." * field.required, table)
            else:
                kind = f"{heading} with kind = {literal(table.tag)}"
                yield Table(kind, summary(table.cls), table)
            yield from tables(table, f"{path}.")


def inner_records(allowed: inspect.Type) -> list[StructType]:
    """The records that a key may hold; none if it is a plain value."""
    items = allowed.item_type if isinstance(allowed, VarTupleType) else allowed
    return [part for part in parts(items) if isinstance(part, StructType)]


def rows(record: StructType) -> str:
    """The keys of a table as a Markdown table."""
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    if record.tag_field:
        lines.append(f"| `{record.tag_field}` | {literal(record.tag)} | required | Which kind. |")
    meanings = attributes(record.cls)
    for field in record.fields:
        held = "tables, see below" if inner_records(field.type) else in_words(field.type)
        cell = held.replace("|", "\\|")
        lines.append(f"| `{field.name}` | {cell} | {default(field)} | {meanings[field.name]} |")
    return "\n".join(lines)


def default(field: Field) -> str:
    """The default of a key; that of a table is what its own keys say."""
    if field.required:
        return "required"
    return "see below" if isinstance(field.default, Record) else literal(field.default)


def literal(value: object) -> str:
    """A value as TOML has it; a key without one is left out."""
    return "none" if value is None else f"`{json.dumps(value)}`"


def summary(kind: type[Struct]) -> str:
    """What the docstring of a record says after the name of its table, as a sentence."""
    text = (kind.__doc__ or "").partition("\n")[0].partition(": ")[2]
    return text[:1].upper() + text[1:]


def attributes(kind: type[Struct]) -> dict[str, str]:
    """What the docstrings of a record and its bases say about each field.

    Raises:
        ValueError: A field has no line there, or a line has no field.
    """
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = (base.__doc__ or "").partition("Attributes:\n")[2]
        found = re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", text, re.MULTILINE)
        meanings |= {name: " ".join(meaning.split()) for name, meaning in found}
    if odd := meanings.keys() ^ set(kind.__struct_fields__):
        raise ValueError(
            f"the docstring and the fields of {kind.__name__} differ: {', '.join(sorted(odd))}"
        )
    return meanings


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Write docs/configuration-keys.md from the configuration models; `make docs` runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.experiment.config import Section
from alignpro_lite.train.oracle_config import OracleConfig
from alignpro_lite.train.prompter_config import PrompterConfig
from alignpro_lite.train.reward_config import RewardConfig

PAGE = Path(__file__).parents[1] / "docs" / "configuration-keys.md"
FILES: dict[str, type[Section]] = {
    "reward.toml": RewardConfig,
    "prompter.toml": PrompterConfig,
    "oracle.toml": OracleConfig,
    "eval.toml": EvalConfig,
}

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "table",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A TOML table.

    Attributes:
        heading: How it is written, such as [training].
        meaning: What it is for.
        schema: Its JSON schema.
    """

    heading: str
    meaning: str
    schema: Schema


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Keys of the configurations",
        "Generated from the configuration models by `make docs`; a test checks that it has not "
        "drifted. An unknown key is refused. [training.md](training.md) and "
        "[evaluation.md](evaluation.md) show them at work.",
    ]
    for name, kind in FILES.items():
        schema = kind.model_json_schema()
        parts.append(f"## {name}")
        if not all(map(references, schema["properties"].values())):
            parts.append(f"At the top:\n\n{rows(schema)}")
        for table in tables(schema, schema["$defs"], ""):
            parts.append(f"### {table.heading}\n\n{table.meaning}\n\n{rows(table.schema)}")
    return "\n\n".join(parts) + "\n"


def tables(schema: Schema, known: Schema, prefix: str) -> Iterator[Table]:
    """The tables that a schema holds, each followed by those inside it."""
    meanings = attributes(schema)
    for key, value in schema["properties"].items():
        path, needed = f"{prefix}{key}", key in schema.get("required", ())
        is_array = value.get("type") == "array"
        heading = f"`[[{path}]]`" if is_array else f"`[{path}]`"
        names = references(value)
        for name in names:
            inner = known[name]
            kind = inner["properties"].get("kind", {})
            kinds = [kind["const"]] if "const" in kind else kind.get("enum", [])
            if len(names) == 1:
                yield Table(heading, meanings[key] + " Required." * needed, inner)
            else:
                said = " or ".join(map(literal, kinds))
                yield Table(f"{heading} with kind = {said}", summary(inner), inner)
            yield from tables(inner, known, f"{path}.")


def references(value: Schema) -> list[str]:
    """Names of the tables that a key may hold; none if it is a plain value."""
    inner = value.get("items", value)
    options = inner.get("oneOf") or inner.get("anyOf") or [inner]
    return [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]


def rows(schema: Schema) -> str:
    """The keys of a table as a Markdown table."""
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    meanings = attributes(schema)
    for key, value in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else given(value["default"])
        lines.append(f"| `{key}` | {allowed(value)} | {default} | {meanings[key]} |")
    return "\n".join(lines)


def allowed(value: Schema) -> str:
    """What a key may hold, in words."""
    if references(value):
        return "tables, see below"
    if "anyOf" in value:
        return " or ".join(allowed(one) for one in value["anyOf"] if one.get("type") != "null")
    if "const" in value:
        return literal(value["const"])
    if "enum" in value:
        return ", ".join(map(literal, value["enum"]))
    if "prefixItems" in value:
        return f"list of {len(value['prefixItems'])}, each a {allowed(value['prefixItems'][0])}"
    if "items" in value:
        return f"list of {allowed(value['items'])}"
    if "patternProperties" in value:
        ((pattern, inner),) = value["patternProperties"].items()
        return f"table of names like `{pattern}`, each a {allowed(inner)}"
    bounds = [f"{sign} {value[key]}" for key, sign in _BOUNDS.items() if key in value]
    form = f" like `{value['pattern']}`" if "pattern" in value else ""
    return ", ".join([_TYPES[value["type"]] + form, *bounds])


def given(default: object) -> str:
    """The default of a key; that of a table is what its own keys say."""
    return "see below" if isinstance(default, dict) else literal(default)


def literal(value: object) -> str:
    """A value as TOML has it; a key without one is left out."""
    return "none" if value is None else f"`{json.dumps(value)}`"


def summary(schema: Schema) -> str:
    """What the docstring of a model says after the name of its table, as a sentence."""
    text: str = schema["description"].partition("\n")[0].partition(": ")[2]
    return text[:1].upper() + text[1:]


def attributes(schema: Schema) -> dict[str, str]:
    """What the docstring of a model says about each field.

    Raises:
        ValueError: A field has no line there, or a line has no field.
    """
    text = schema["description"].partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    meanings = {name: " ".join(meaning.split()) for name, meaning in found}
    if meanings.keys() != schema["properties"].keys():
        odd = ", ".join(sorted(meanings.keys() ^ schema["properties"].keys()))
        raise ValueError(f"the docstring and the fields of {schema['title']} differ: {odd}")
    return meanings


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""A name means one thing: whoever meets `Estimate` knows which it is without looking it up."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("alignpro_lite", "export")
    for path in (ROOT / folder).rglob("*.py")
)
ASKED = "answer"
"""What the program of every warm child is called by; see `WarmChild`."""


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def defined_names(module: ast.Module) -> Iterator[str]:
    """Names that a module defines at its top level, except type variables and what it imports."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not makes_type_variable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (name for target in targets for name in ast.walk(target)):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.id


def makes_type_variable(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in ("TypeVar", "ParamSpec")


def variables(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Names that are assigned or are parameters anywhere in a module, with their lines."""
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def test_no_public_name_is_defined_in_two_modules():
    """Two things of one name are mistaken for each other in imports, searches and reviews."""
    modules = defaultdict(set)
    for path in SOURCES:
        for name in defined_names(tree(path)):
            # What a hook must be called is PyInstaller's word.
            if not name.startswith("_") and name != ASKED and "__pyinstaller" not in str(path):
                modules[name].add(str(path))
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_variable_is_called_one(path):
    """`one` says nothing about what a thing is."""
    assert [line for name, line in variables(tree(path)) if name == "one"] == []

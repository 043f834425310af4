"""The rooms of the package and which may import which; docs/architecture.md draws the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

LAYERS = (
    "cli",
    "serve",
    "train",
    "eval",
    "export",
    "experiment",
    "measure",
    "top",
    "rewriting",
    "reward",
    "assembly",
    "prompter",
    "target",
    "pretrained",
    "decoding",
    "hardware",
    "registry",
    "gguf",
    "errors",
)
"""Top to bottom: a room imports rooms further down, never further up. `top` is the modules of the
package folder itself; errors.py is at the bottom."""

RUNTIMES = {
    "llama_cpp": {"alignpro_lite/decoding/llamacpp.py"},
    "onnxruntime": {"alignpro_lite/decoding/ort.py"},
}
"""The one file that may import each native runtime."""

MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ("alignpro_lite", "export")
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py") or path.parent.name != "alignpro_lite"
)


def room_of(module: str) -> str:
    """The room of a dotted module name."""
    room = module.split(".")[1]
    return room if room in LAYERS else "top"


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "alignpro_lite":
            yield from (f"alignpro_lite.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_imports_a_room_above_it(path):
    parts = path.with_suffix("").parts
    own = LAYERS.index("export" if parts[0] == "export" else room_of(".".join(parts)))
    for module in imported_modules(path):
        if module.startswith("alignpro_lite."):
            assert LAYERS.index(room_of(module)) >= own, f"{path} imports {module}"


def test_every_room_has_its_layer():
    folders = {path.name for path in (ROOT / "alignpro_lite").iterdir() if path.is_dir()}
    data = {"adapters", "graphs", "known_good", "__pycache__", "__pyinstaller"}
    assert folders - data == set(LAYERS) - {
        "top",
        "errors",
        "export",
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_native_runtime_is_imported_in_one_file(runtime):
    importing = {
        str(path)
        for path in MODULES
        if any(m.split(".")[0] == runtime for m in imported_modules(path))
    }
    assert importing == RUNTIMES[runtime]

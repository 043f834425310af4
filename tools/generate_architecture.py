"""Write the generated parts of docs/architecture.md from the code; `make docs` runs it.

They stand between `<!-- generated: NAME -->` and `<!-- end -->`; the rest is written by hand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.test_layers import LAYERS, MODULES, RUNTIMES, imported_modules, room_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
TOP = "The public API and what joins the rooms."
DATA = (
    Path("alignpro_lite/models.toml"),
    Path("alignpro_lite/eval/hints.toml"),
    Path("alignpro_lite/eval/quick/eval.toml"),
)
"""Files that ship with the package and are read by people too."""

FILES = sorted({*MODULES, *DATA, Path("alignpro_lite/__main__.py")})


def page() -> str:
    """The whole page as Markdown."""
    parts = {"rooms": rooms, "runtimes": runtimes, "files": files}

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        lines = "\n".join(parts[name]())
        return f"<!-- generated: {name} -->\n\n{lines}\n\n<!-- end -->"

    text = PAGE.read_text(encoding="utf-8")
    return re.sub(r"(?s)<!-- generated: (\w+) -->.*?<!-- end -->", filled, text)


def rooms() -> Iterator[str]:
    """Every room, top to bottom, with its job and the rooms that it imports."""
    yield "| room | job | imports |"
    yield "|---|---|---|"
    for room in LAYERS:
        imported = {
            room_of(module)
            for path in MODULES
            if home(path) == room
            for module in imported_modules(path)
            if module.startswith("alignpro_lite.")
        }
        below = ", ".join(f"`{other}`" for other in LAYERS if other in imported - {room})
        yield f"| `{room}` | {job(room)} | {below or 'nothing'} |"


def runtimes() -> Iterator[str]:
    """The one file that may import each native runtime."""
    yield "| native runtime | imported only in |"
    yield "|---|---|"
    for runtime, paths in RUNTIMES.items():
        yield f"| `{runtime}` | {', '.join(f'`{path}`' for path in sorted(paths))} |"


def files() -> Iterator[str]:
    """The files of every room, with the first line of their docstrings."""
    for room in LAYERS:
        inside = [path for path in FILES if home(path) == room and path.name != "__init__.py"]
        yield from (f"### {room}", "", "| file | what it is |", "|---|---|")
        yield from (f"| `{path.as_posix()}` | {first_line(path)} |" for path in inside)
        yield ""


def home(path: Path) -> str:
    """The room that a file is in."""
    return "export" if path.parts[0] == "export" else room_of(".".join(path.with_suffix("").parts))


def job(room: str) -> str:
    """What a room is for, in the words of its package."""
    if room == "top":
        return TOP
    places: Sequence[Path] = (
        Path("alignpro_lite", room, "__init__.py"),
        Path(room, "__init__.py"),
        Path("alignpro_lite", f"{room}.py"),
    )
    return first_line(next(path for path in places if (ROOT / path).exists()))


def first_line(path: Path) -> str:
    """The first line of a module's docstring, or of a TOML file's comment."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".toml":
        line = text.splitlines()[0].removeprefix("# ")
    else:
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    if not line:
        raise ValueError(f"{path} has no docstring: say in its first line what the module is for.")
    return line.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

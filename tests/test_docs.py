"""The documents say what the program does: generated pages, executed snippets, files that exist."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from alignpro_lite.cli import cli
from alignpro_lite.errors import InputError
from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.experiment.config import read_config
from alignpro_lite.registry.record import Origin, Record, parse
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.reference.config import ReferenceConfig
from alignpro_lite.train.reward.config import RewardConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL_MODELS = str(ROOT / "tests" / "data" / "small.toml")
ENVIRONMENT = os.environ | {
    "ALIGNPRO_LITE_MODELS": SMALL_MODELS,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
CONFIGURATIONS: dict[str, type[Record]] = {
    "reward.toml": RewardConfig,
    "second-reward.toml": RewardConfig,
    "reference.toml": ReferenceConfig,
    "reference-small.toml": ReferenceConfig,
    "prompter.toml": PrompterConfig,
    "oracle.toml": OracleConfig,
    "eval.toml": EvalConfig,
    "eval-bpo.toml": EvalConfig,
    "eval-controls.toml": EvalConfig,
    "eval-paper.toml": EvalConfig,
    "eval-tasks.toml": EvalConfig,
    "prompter-default.toml": PrompterConfig,
    "prompter-tasks.toml": PrompterConfig,
}


def fenced(language: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [block for path in DOCUMENTS for block in pattern.findall(path.read_text("utf-8"))]


def page_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


COMMANDS = [
    line.removeprefix("$ ")
    for block in fenced("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize(
    ("generator", "name"),
    [
        ("generate_architecture.py", "architecture.md"),
        ("generate_cli.py", "cli.md"),
        ("generate_config.py", "configuration-keys.md"),
    ],
)
def test_a_generated_page_has_not_drifted(generator, name):
    page = runpy.run_path(str(ROOT / "tools" / generator))["page"]
    assert page_of(name) == page(), "run `make docs`"


@pytest.mark.parametrize("snippet", fenced("toml"))
def test_every_configuration_in_the_documents_is_allowed(snippet):
    """A snippet names its file in its first line and may leave out what configs/ has."""
    name = snippet.splitlines()[0].removeprefix("# ")
    whole = tomllib.loads((ROOT / "configs" / name).read_text("utf-8"))
    parse(CONFIGURATIONS[name], whole | tomllib.loads(snippet), Origin(Path(name), InputError))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name
)
def test_the_shipped_configurations_are_allowed(path):
    read_config(path, CONFIGURATIONS[path.name])


SHOWN = [
    shown
    for path in DOCUMENTS
    for shown in re.findall(
        r"alignpro-lite ([a-z][^\n`#]*)", path.read_text("utf-8").replace("\\\n", " ")
    )
]


def test_every_option_in_the_documents_exists():
    """Also of commands that no test runs, because they need a network, data or hours."""
    unknown = []
    for shown in SHOWN:
        command: click.Command = cli
        words = shown.split()
        while isinstance(command, click.Group) and words:
            inner = command.get_command(click.Context(command), words[0])
            if inner is None:
                break
            command = inner
            del words[0]
        options = command.get_params(click.Context(command))
        known = {name for option in options for name in option.opts + option.secondary_opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        unknown += [f"{shown}: {name}" for name in used - known]
    assert not unknown
    assert len(SHOWN) > 100


@pytest.mark.real
@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_command_works(command, tmp_path):
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.real
@pytest.mark.parametrize("snippet", fenced("python"))
def test_every_python_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", SMALL_MODELS)
    exec(compile(snippet, "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.real
def test_the_examples_run(tmp_path):
    for example in sorted((ROOT / "examples").glob("*.py")):
        done = subprocess.run(
            [sys.executable, example],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_every_file_is_in_the_architecture():
    listed = re.findall(r"^\| `([\w/.-]+)` \|", page_of("architecture.md"), re.MULTILINE)
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("alignpro_lite", "export")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".toml") and path.name != "__init__.py"
    }
    assert files <= set(listed)


def test_every_file_that_a_document_names_exists():
    """A path with a folder in it, from the root or from alignpro_lite/."""
    path = re.compile(r"(?<![\w/:.-])(?:[\w-]+/)+[\w-]+\.py\b")
    for document in DOCUMENTS:
        for name in path.findall(document.read_text("utf-8")):
            assert any((ROOT / root / name).exists() for root in ("", "alignpro_lite")), (
                f"{document.name}: {name}"
            )


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def anchors(text: str) -> set[str]:
    """What a forge makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text("utf-8")):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(target.read_text("utf-8")), (
                f"{path.name}: {link}"
            )

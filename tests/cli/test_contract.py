"""What every command promises: exit codes, stdout and stderr, and a start without engines."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

import alignpro_lite
from alignpro_lite import AlignedModel
from alignpro_lite.cli import cli, exit_code_of
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.errors import AlignProError, CancelledError, InputError
from alignpro_lite.target.question import DEFAULT_SAMPLING
from tests.support import TINY_TARGET

COMMAND = [sys.executable, "-c", "from alignpro_lite.cli import main; main()"]
COMMANDS = sorted(cli.commands)
HEAVY = {"numpy", "torch", "onnxruntime", "llama_cpp", "transformers", "jinja2", "tokenizers"}


def shell(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options
    )


@pytest.fixture
def command(monkeypatch):
    """Add a command `probe` that does what a test says, and run it."""

    def run(body, *arguments: str) -> int:
        monkeypatch.setitem(cli.commands, "probe", click.Command("probe", callback=body))
        return exit_code_of(["probe", *arguments])

    return run


def raising(error: BaseException):
    def body() -> None:
        raise error

    return body


def test_done_is_0(command, capsys):
    assert command(lambda: click.echo("answer")) == 0
    assert capsys.readouterr() == ("answer\n", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("No text found.", "Pass some."), "Error: No text found. Pass some."),
        (CancelledError(), "Error: The model was closed during generation. Load it again."),
        (click.ClickException("odd"), "Error: odd"),
        (click.FileError("f.txt", "gone"), "Error: Could not open file 'f.txt': gone"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.jsonl"),
            "Error: out.jsonl: No space left on device. "
            "Check the path, its permissions and the free space.",
        ),
        (
            OSError("no number"),
            "Error: no number. Check the path, its permissions and the free space.",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_1_with_one_line_on_stderr(command, capsys, error, line):
    assert command(raising(error)) == 1
    assert capsys.readouterr() == ("", line + "\n")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\x1b[31mb\x07", "a\\x1b[31mb\\x07"),
        ("\x9b2J\x00", "\\x9b2J\\x00"),
        ("caf\udce9.gguf", "caf\\udce9.gguf"),
        *[(as_it_is, as_it_is) for as_it_is in ("caf\u00e9", "\U0001f469\u200d\U0001f467", "\\d")],
    ],
    ids=ascii,
)
def test_no_error_gives_orders_to_the_terminal(command, capsys, written, shown):
    """A chat template could colour, clear or rename the terminal with its refusal."""
    assert command(raising(InputError(f"Refused: {written}.", "Try again."))) == 1
    assert capsys.readouterr().err == f"Error: Refused: {shown}. Try again.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), EOFError()])
def test_an_interruption_is_130(command, capsys, error):
    assert command(raising(error)) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "Interrupted." in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["no-such-command"],
        *([name, "--no-such-option"] for name in COMMANDS),
        ["run", "hi", "--max-tokens", "0"],
        ["run", "hi", "--max-tokens", "many"],
        ["run", "hi", "--mode", "shout"],
        ["run", "hi", "--device", "tpu"],
        ["run", "hi", "--input", "only.jsonl"],
        ["run", "hi", "--output", "only.jsonl"],
        ["run", "hi", "--input", __file__, "--output", "out.jsonl"],
        ["run", "one", "two"],
        ["run", "hi", "--samples", "0"],
        ["run", "hi", "--samples", "some"],
        ["run", "hi", "--samples", "auto"],
        ["run", "hi", "--reward", "default", "--lambda", "0"],
        ["run", "hi", "--reward", "default", "--lambda", "-1"],
        ["run", "hi", "--reward", "default", "--answers", "0"],
        ["run", "hi", "--reward", "default", "--budget", "much"],
        ["run", "hi", "--reward", "default", "--budget", "0"],
        ["run", "hi", "--reward", "default", "--budget", "-3s"],
        ["run", "hi", "--reward", "default", "--return", "both"],
        ["run", "hi", "--guard", "strict"],
        ["run", "hi", "--guard", "off"],
        ["run", "hi", "--guard"],
        ["run", "hi", "--no-guard"],
        ["run", "hi", "--reward", "default", "--guard", "loose"],
        ["run", "hi", "--lambda", "1"],
        ["run", "hi", "--budget", "100"],
        ["run", "hi", "--explain", "--input", __file__, "--output", "out.jsonl"],
        ["rewrite", "hi", "--count", "0"],
        ["rewrite", "hi", "--count", "17"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(capsys, arguments):
    assert exit_code_of(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_is_0_and_goes_to_stdout(capsys, arguments):
    assert exit_code_of([*arguments, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: alignpro-lite")
    assert err == ""


def test_the_version_is_that_of_the_package(capsys):
    assert exit_code_of(["--version"]) == 0
    assert capsys.readouterr().out == f"alignpro-lite {version('alignpro-lite')}\n"


@pytest.mark.parametrize("command", [["run", "hi"], ["rewrite", "hi"], ["chat"], ["doctor"]])
def test_a_preset_that_there_is_not_is_1_and_near_ones_are_named(capsys, tmp_path, command):
    assert exit_code_of([*command, "--models", "smal", "--cache", str(tmp_path)]) == 1
    assert "No preset is named 'smal' (near: small)" in capsys.readouterr().err


def test_the_preset_says_which_models_are_missing(capsys, tmp_path, monkeypatch):
    rows = """
    [target.mine]
    source = "file:mine.gguf"
    [preset.own]
    bundle = "small"
    target = "mine"
    """
    (tmp_path / "models.toml").write_text(rows)
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(tmp_path / "models.toml"))
    arguments = ["run", "hi", "--models", "own", "--cache", str(tmp_path)]
    assert exit_code_of(arguments) == 1
    assert "target/mine should be at" in capsys.readouterr().err
    assert exit_code_of([*arguments, "--target", str(TINY_TARGET)]) == 1
    assert "bundle/small is not installed" in capsys.readouterr().err
    with pytest.raises(AlignProError, match="target/mine should be at"):
        AlignedModel.load(models="own", cache=tmp_path)


def test_exit_codes_reach_the_shell(tmp_path):
    assert shell("--help").returncode == 0
    assert shell("--no-such-option").returncode == 2
    failed = shell("run", "hi", "--target", "no-such-model", "--cache", str(tmp_path))
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith("Error: ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"", "needs text"), (b" \n\n", "needs text"), (b"ab\xff", "found byte 0xff at 2")],
)
@pytest.mark.parametrize("name", ["run", "rewrite"])
def test_a_bad_prompt_on_stdin_is_1_before_any_model_is_looked_for(name, stdin, words, tmp_path):
    asked = subprocess.run(
        [*COMMAND, name, "--cache", str(tmp_path)], input=stdin, capture_output=True, timeout=60
    )
    assert asked.returncode == 1
    assert asked.stdout == b""
    assert words in asked.stderr.decode()
    assert asked.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells can close a stream")
@pytest.mark.parametrize(
    ("line", "code"), [("run <&-", 1), ("--help >&-", 0), ("--no-such-option 2>&-", 2)]
)
def test_a_closed_stream_gives_no_traceback(line, code):
    """Python sets a closed stream to None, on which `isatty` and `flush` failed."""
    program = f'"{sys.executable}" -c "from alignpro_lite.cli import main; main()" {line}'
    ended = subprocess.run(program, shell=True, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
@pytest.mark.parametrize("size", [10, 1_000_000], ids=["at the end", "while printing"])
def test_a_reader_that_leaves_gives_no_traceback(size):
    body = (
        "import click; from alignpro_lite.cli import cli, main\n"
        f"cli.add_command(click.Command('probe', callback=lambda: click.echo('x' * {size})))\n"
        "main()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", body, "probe"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert ended.returncode == 1
    assert ended.stderr == b""


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running code."""
    script = f"{code}\nimport sys; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import alignpro_lite",
        "from alignpro_lite import AlignProError, Message",
        "from alignpro_lite.cli import cli",
        "from alignpro_lite.cli import exit_code_of; exit_code_of(['--help'])",
        *(
            f"from alignpro_lite.cli import exit_code_of; exit_code_of(['{name}', '--help'])"
            for name in COMMANDS
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    allowed = {"jinja2"} if "Message" in code else set()
    assert modules_after(code) & HEAVY <= allowed


def test_the_runtime_never_imports_torch():
    everything = "import alignpro_lite as a; [getattr(a, name) for name in a.__all__]"
    assert not modules_after(everything) & {"torch", "transformers", "onnx", "optimum"}


def test_every_public_name_resolves_and_is_listed():
    for name in alignpro_lite.__all__:
        public = getattr(alignpro_lite, name)  # values and unions of classes have no name
        assert getattr(public, "__name__", name) == name
    assert dir(alignpro_lite) == sorted(alignpro_lite.__all__)
    assert "no_such_name" not in dir(alignpro_lite)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = alignpro_lite.no_such_name


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(alignpro_lite.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    aliases = [
        alias
        for imported in ast.walk(block)
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    ]
    assert all(alias.name == alias.asname for alias in aliases)
    assert {alias.name for alias in aliases} == set(alignpro_lite.__all__)


def test_the_package_is_typed():
    assert (Path(alignpro_lite.__file__).parent / "py.typed").exists()


def test_every_error_has_a_problem_and_a_cure():
    error = InputError("What is wrong.", "What to do.")
    assert isinstance(error, AlignProError)
    assert (error.problem, error.cure) == ("What is wrong.", "What to do.")
    assert str(error) == "What is wrong. What to do."


@pytest.mark.parametrize("prompt", ["", " \n\t ", "\ud800", "ok \udcff"])
def test_a_prompt_that_no_model_can_read_is_refused(prompt):
    with pytest.raises(InputError):
        check_prompt(prompt)


@pytest.mark.parametrize("arguments", [["--protect", "("], ["--protect", "a*"]])
def test_a_pattern_that_cannot_be_used_is_named(arguments, capsys):
    assert exit_code_of(["run", *arguments, "hello"]) == 1
    assert "A pattern to protect must" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p"])
def test_help_tells_how_answers_are_drawn(name):
    """No page and no help said it."""
    (option,) = (option for option in cli.commands["run"].params if option.name == name)
    assert isinstance(option, click.Option)
    assert option.show_default == str(getattr(DEFAULT_SAMPLING, name))

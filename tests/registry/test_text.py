"""Text comes in as UTF-8, with or without a byte-order mark, through every door."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.cli.options import UTF8_TEXT, read_prompt
from alignpro_lite.errors import AlignProError, InputError, RegistryError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.record import Origin, Record, read_json
from alignpro_lite.registry.text import decode_text

OTHERS = [
    ("caf\xe9".encode("latin-1"), "byte 0xe9 at 3"),
    (codecs.BOM_UTF8 + b"caf\xe9", "byte 0xe9 at 6"),
    ("café".encode("utf-16"), "UTF-16"),
    ("café".encode("utf-16-be"), "a zero byte at 0"),
    ("cafe".encode("utf-16-le"), "a zero byte at 1"),
    (codecs.BOM_UTF16_BE + "café".encode("utf-16-be"), "UTF-16"),
    ("café".encode("utf-32"), "UTF-32"),
    ("日本".encode("shift-jis"), "byte 0x93 at 0"),
    (b"\xed\xa0\x80", "byte 0xed at 0"),
    (b"cafe\0", "a zero byte at 4"),
]


@given(st.text().filter(lambda text: "\0" not in text and not text.startswith("\ufeff")))
def test_utf8_with_and_without_a_mark_is_the_same_text(text):
    raw = text.encode("utf-8", "replace")
    assert decode_text(raw) == decode_text(codecs.BOM_UTF8 + raw) == raw.decode()


@pytest.mark.parametrize(("raw", "found"), OTHERS)
def test_other_encodings_are_named(raw, found):
    with pytest.raises(ValueError, match=found):
        decode_text(raw)


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_a_value_error(raw):
    with contextlib.suppress(ValueError):
        assert "\0" not in decode_text(raw)


class Settings(Record):
    name: str


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_mark_before_toml_and_json_is_no_part_of_it(tmp_path, mark):
    """Editors on Windows write it; it was a syntax error in line 1."""
    toml, models, table = (tmp_path / name for name in ("a.toml", "models.toml", "a.json"))
    toml.write_bytes(mark + 'name = "café"\r\n'.encode())
    models.write_bytes(mark + b"[target.x]\nsource = 'file:x.gguf'\n")
    table.write_bytes(mark + b'{"a": 1}')
    assert read_config(toml, Settings) == Settings("café")
    assert load_files([models]).find("target", "x")
    assert read_json(Origin(table, InputError), "folder") == {"a": 1}


@pytest.mark.parametrize(("raw", "found"), OTHERS)
def test_files_in_other_encodings_are_one_clear_error(tmp_path, raw, found):
    file = tmp_path / "file"
    file.write_bytes(raw)
    for read in (
        lambda: read_config(file, Settings),
        lambda: load_files([file]),
        lambda: read_json(Origin(file, RegistryError), "folder"),
    ):
        with pytest.raises(AlignProError, match=found) as caught:
            read()
        assert str(file) in caught.value.problem


@pytest.mark.parametrize(("raw", "found"), OTHERS)
def test_stdin_in_another_encoding_is_one_clear_error(monkeypatch, raw, found):
    stdin = SimpleNamespace(isatty=lambda: False, buffer=SimpleNamespace(read=lambda: raw))
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(InputError, match=found):
        read_prompt(None)


def test_a_mark_on_stdin_is_no_part_of_the_prompt(monkeypatch):
    raw = codecs.BOM_UTF8 + "café\r\n".encode()
    stdin = SimpleNamespace(isatty=lambda: False, buffer=SimpleNamespace(read=lambda: raw))
    monkeypatch.setattr("sys.stdin", stdin)
    assert read_prompt(None) == "café"


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are bytes on POSIX only")
@pytest.mark.parametrize(
    "environment",
    [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["usual", "ascii"],
)
def test_an_argument_is_utf8_in_any_locale(environment):
    code = (
        "import click, json; from alignpro_lite.cli.options import UTF8_TEXT\n"
        "@click.command()\n@click.argument('texts', nargs=-1, type=UTF8_TEXT)\n"
        "def show(texts): print(json.dumps(texts))\nshow()"
    )
    arguments = [b"caf\xc3\xa9", codecs.BOM_UTF8 + b"x", b"plain"]
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        check=True,
    )
    assert json.loads(shown.stdout) == ["café", "x", "plain"]


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are bytes on POSIX only")
@pytest.mark.parametrize("raw", [b"caf\xe9", b"\xff\xfeh", b"\xed\xa0\x80"])
def test_an_argument_in_another_encoding_is_one_clear_error(raw):
    with pytest.raises(InputError, match="expected UTF-8 text, found"):
        UTF8_TEXT.convert(os.fsdecode(raw), click.Option(["--system"]), None)

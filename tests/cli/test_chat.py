"""What a line of a chat is, a command or text, and how it comes in."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from alignpro_lite.cli.chat import Conversation, _read_line
from alignpro_lite.errors import InputError
from alignpro_lite.rewriting.request import Request

CHAT = """
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from alignpro_lite import cli
from alignpro_lite.cli import chat, options
thinking = SimpleNamespace(values=lambda position: {})
model = SimpleNamespace(
    plan=SimpleNamespace(notes=()), target=SimpleNamespace(thinking=thinking)
)
options.ModelOptions.load = lambda *_, **__: nullcontext(model)
chat.Conversation._answer = lambda self, prompt: print(ascii(prompt), flush=True)
sys.argv = ["alignpro-lite", "chat"]
cli.main()
"""


@pytest.fixture
def conversation(monkeypatch):
    """A chat and the list of what it sent to the model."""
    model: Any = None
    talk = Conversation(model, Request())
    sent: list[str] = []
    monkeypatch.setattr(Conversation, "_answer", lambda _, prompt: sent.append(prompt))
    return talk, sent


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("/etc/hosts: what is it?", "/etc/hosts: what is it?"),
        ("/etc/hosts", "/etc/hosts"),
        ("/usr is what?", "/usr is what?"),
        ("/r/python or /r/learnpython?", "/r/python or /r/learnpython?"),
        ("/\\ is a mountain", "/\\ is a mountain"),
        ("/* a comment */", "/* a comment */"),
        ("/größe: was ist das?", "/größe: was ist das?"),
        ("//help", "/help"),
        ("//help me, please", "/help me, please"),
        ("//reset", "/reset"),
        ("// a comment in C", "/ a comment in C"),
        ("/// a comment in C", "// a comment in C"),
        (" /reset", " /reset"),
        (" /etc", " /etc"),
        ("what is /etc?", "what is /etc?"),
        ("  indented", "  indented"),
    ],
)
def test_text_that_begins_with_a_slash_is_sent(conversation, line, text):
    """Every line that began with / was taken for a command, and nothing helped."""
    talk, sent = conversation
    talk.take(line)
    assert sent == [text]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("/rest", "Did you mean /reset"),
        ("/RESET", "Did you mean /reset"),
        ("/hlep", "Did you mean /help"),
        ("/qiut", "Did you mean /quit"),
        ("/sav talk.json", "Did you mean /save"),
        ("/rewite off", "Did you mean /rewrite"),
        ("/model", "no command /model"),
        ("/clear", "no command /clear"),
        ("/?", "no command /?"),
        ("/", "no command /;"),
        ("/reset the router, how?", "/reset stands alone"),
        ("/quit smoking, how?", "/quit stands alone"),
        ("/help me", "/help stands alone"),
        ("/rewrite this in French", "/rewrite takes on or off"),
    ],
)
def test_what_may_be_a_command_is_asked_about_and_can_be_sent(conversation, line, meant):
    talk, sent = conversation
    with pytest.raises(InputError) as caught:
        talk.take(line)
    assert meant in caught.value.problem
    assert sent == []
    assert caught.value.cure.endswith(f"type /{line}")
    talk.take(f"/{line}")
    assert sent == [line]


def piped(stdin: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", CHAT],
        input=stdin,
        capture_output=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [{}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}],
    ids=str,
)
def test_a_pipe_is_read_as_utf8_in_any_locale(environment):
    """`café` became `cafÃ©`, and a byte-order mark a part of the prompt."""
    text = "\ufeffcafé 🙂\r\n\ufeffzwei\n/quit\nnot read".encode()
    ended = piped(text, **environment)
    assert ended.stdout.decode().splitlines() == [r"'caf\xe9 \U0001f642'", "'zwei'"]
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("stdin", "found"),
    [
        ("café\nnext\n".encode("latin-1"), b"found byte 0xe9 at 3"),
        ("café\n".encode("utf-16"), b"found UTF-16"),
        ("cafe\n".encode("utf-16-le"), b"found a zero byte at 1"),
        ("caf\udc80\n".encode("utf-8", "surrogatepass"), b"found byte 0xed at 3"),
    ],
)
def test_a_pipe_in_another_encoding_ends_with_one_clear_line(stdin, found):
    ended = piped(b"first\n" + stdin if not stdin.startswith(b"\xff\xfe") else stdin)
    assert ended.returncode == 1
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith(b"Error")]
    assert found in error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal():
    import pty

    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CHAT], stdin=child, stdout=child, stderr=child, close_fds=True
    )
    os.close(child)
    seen = b""
    for typed, answer in (
        ("/etc/hosts: café?\n".encode(), rb"'/etc/hosts: caf\xe9?'"),
        (b"/hlep\n", b"Did you mean /help?"),
        (b"//quit\n", b"'/quit'"),
    ):
        os.write(parent, typed)
        seen = b""
        deadline = time.monotonic() + 10
        while answer not in seen:
            ready, _, _ = select.select([parent], [], [], deadline - time.monotonic())
            assert ready, seen
            seen += os.read(parent, 4096)
    os.write(parent, b"/quit\n")
    assert process.wait(20) == 0
    os.close(parent)


def test_in_a_terminal_a_bad_byte_ends_the_line_and_not_the_chat(monkeypatch, capsys):
    typed = iter(["caf\udce9", "next"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert _read_line() == "next"
    assert "found byte 0xe9 at 3" in capsys.readouterr().err

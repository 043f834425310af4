"""examples/desktop: a window on a virtual display, and its neighbours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.support import ROOT, TINY_BUNDLE, TINY_TARGET

DESKTOP = ROOT / "examples" / "desktop"
SESSION = ROOT / "tests" / "support" / "desktop_session.py"
MODELS = f"""
[target.tiny]
source = "file:{TINY_TARGET}"

[bundle.tiny]
source = "file:{TINY_BUNDLE}"

[preset.tiny]
bundle = "tiny"
target = "tiny"
description = "For tests"
"""


@contextmanager
def virtual_display():
    """The variables of a display of its own; without Xvfb, of none that anybody could see."""
    if shutil.which("Xvfb") is None:
        yield {"QT_QPA_PLATFORM": "offscreen"}
        return
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1200x900x24", "-nolisten", "tcp"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as server:
        try:
            yield {"QT_QPA_PLATFORM": "xcb", "DISPLAY": f":{server.stdout.readline().strip()}"}
        finally:
            server.terminate()


@pytest.fixture
def conversation(monkeypatch):
    monkeypatch.syspath_prepend(str(DESKTOP))
    import conversation

    return conversation


def test_a_window_loads_rewrites_asks_stops_and_restores(tmp_path):
    # Qt needs libraries of the system, such as libEGL, that a server may lack.
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    models = tmp_path / "models.toml"
    models.write_text(MODELS, encoding="utf-8")
    places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"), str(tmp_path))
    places |= {"ALIGNPRO_LITE_MODELS": str(models), "ALIGNPRO_LITE_CACHE": str(tmp_path / "cache")}
    file, picture = tmp_path / "conversation.json", tmp_path / "window.png"
    with virtual_display() as display:
        done = subprocess.run(
            [sys.executable, SESSION, file, picture],
            env=os.environ | places | display | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["platform"] == display["QT_QPA_PLATFORM"]
    assert "loading" in told["stages"]
    # Regression: without a reward, two rewrites could be asked for, and every prompt failed then.
    assert told["choices"] == [
        {"enabled": [False, False], "asked": [1, None], "helped": True},
        {"enabled": [True, True], "asked": [4, 0.1], "helped": False},
    ]
    assert told["turns"][0][0] == "Name three rivers in Europe."
    assert all(answer for _, answer in told["turns"])
    assert any("in Europe" in text for text in told["texts"])
    assert picture.stat().st_size > 5000


def test_a_conversation_is_restored_and_an_unreadable_file_is_kept(conversation, tmp_path):
    file = tmp_path / "folder" / "conversation.json"
    kept = conversation.Conversation(file)
    kept.add(conversation.Turn("a", "b", "why", [("added", "b")], "answer"))
    restored = conversation.Conversation(file)
    assert [turn.answer for turn in restored.turns] == ["answer"]
    assert [message.content for message in restored.history()] == ["b", "answer"]
    file.write_text("[{", encoding="utf-8")
    assert conversation.Conversation(file).turns == []
    assert file.with_suffix(".unreadable").read_text("utf-8") == "[{"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_electron_app_starts_the_sidecar_and_ends_it(tmp_path):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    command = tmp_path / "sidecar"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m alignpro_lite "$@"\n', "utf-8")
    command.chmod(0o755)
    options = ["--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE), "--device", "cpu"]
    quoted = json.dumps
    code = f"""
        const {{ startSidecar, endSidecar }} = require({quoted(str(DESKTOP / "electron-main"))});
        const {{ child, ready }} = startSidecar({quoted(str(command))}, {quoted(options)});
        ready.then(async told => {{
            const answer = await fetch(told.url + "/health");
            await endSidecar(child);
            console.log(answer.status, child.exitCode, child.signalCode, told.model);
        }});
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["node", "-e", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["200", "0", "null", "tiny"], done.stderr


TK = """
import sys
from functools import partial
from pathlib import Path
import tk_chat
from alignpro_lite import AlignedModel, DeviceRequest

class TinyModel:
    def load():
        return AlignedModel.load(*map(Path, sys.argv[1:]), devices=DeviceRequest("cpu"))

def when(condition, step):
    window.after(50, *((step,) if condition() else (when, condition, step)))

def is_idle():
    return window.stream is None and window.shown.empty()

def ask(prompt):
    window.entry.insert(0, prompt)
    window.ask()

def answered():
    print(len(window.history), flush=True)
    ask("Name a lake.")
    window.stream.cancel()
    when(is_idle, stopped)

def stopped():
    shown = window.text.get("1.0", "end")
    told = all(message.content for message in window.history)
    print(told, "Name a lake." in shown, flush=True)
    window.destroy()

def start():
    ask("Name a river.")
    when(is_idle, answered)

tk_chat.AlignedModel = TinyModel
tk_chat.Request = partial(tk_chat.Request, max_tokens=8)
window = tk_chat.TkChat()
when(lambda: window.model is not None, start)
window.mainloop()
"""


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed")
def test_the_tk_window_answers_and_stops():
    """Regression: a prompt that was stopped at once entered the history, with an empty answer."""
    pytest.importorskip("tkinter")
    paths = f"{ROOT}{os.pathsep}{DESKTOP}"
    with virtual_display() as display:
        done = subprocess.run(
            [sys.executable, "-c", TK, TINY_TARGET, TINY_BUNDLE],
            env=os.environ | display | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout.split() == ["2", "True", "True"], done.stderr


def test_the_page_gets_an_answer_of_the_sidecar():
    """It once named no model, which the server wants."""
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("uvicorn")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed")
    command = [
        *(sys.executable, "-m", "alignpro_lite", "serve", "--port", "0", "--cors-origin", "null"),
        *("--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE), "--device", "cpu"),
        *("--max-tokens", "8"),
    ]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        playwright.sync_playwright() as driver,
    ):
        try:
            told = json.loads(server.stdout.readline())
            opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = opened.new_page()
            place = ",".join((told["url"], told["token"], told["model"]))
            page.goto(f"{(DESKTOP / 'page.html').as_uri()}#{place}")
            page.fill("#prompt", "Name a river.")
            page.click("#button")
            page.wait_for_function("history.length === 2")
            assert page.text_content(".user") == "Name a river."
            assert page.text_content(".answer")
            # An empty answer is no turn: the target would read that the assistant said nothing.
            empty = {"body": "data: [DONE]\n\n", "headers": {"Access-Control-Allow-Origin": "*"}}
            page.route("**/v1/chat/completions", lambda route: route.fulfill(**empty))
            page.fill("#prompt", "And lakes?")
            page.click("#button")
            page.wait_for_function("document.querySelectorAll('.note')[1].textContent === ''")
            assert page.evaluate("history.length") == 2
        finally:
            server.kill()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", ["electron-main.js", "page.html"])
def test_the_scripts_are_javascript(name, tmp_path):
    text = (DESKTOP / name).read_text("utf-8")
    script = tmp_path / "script.js"
    script.write_text(re.sub(r".*<script>|</script>.*", "", text, flags=re.DOTALL), "utf-8")
    done = subprocess.run(["node", "--check", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["electron-main.js", "page.html", "tk_chat.py"])
def test_the_neighbours_are_short(name):
    assert len((DESKTOP / name).read_text("utf-8").splitlines()) < 80

"""What an app may rely on: the library leaves the process, its memory and the disk alone."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, CancelledError, DeviceRequest, Request
from alignpro_lite.errors import DeviceError
from tests.support import ROOT, TINY_BUNDLE, TINY_TARGET

PROMPT = "How do I stay safe online?"
SHORT = Request(max_tokens=4)
LONG = Request(max_tokens=1500, rewrite="off")

APP = """
import logging, os, signal, sys, threading
from pathlib import Path

def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}

def state():
    logs = logging.root.level, list(logging.root.handlers)
    return dict(os.environ), handlers(), os.getcwd(), logs

before = state()
from alignpro_lite import AlignedModel, DeviceRequest, Request, RhoStar

reward = "tests.support.reward_functions:length"
with AlignedModel.load(
    *map(Path, sys.argv[1:3]), reward, devices=DeviceRequest("cpu"), cache=Path(sys.argv[3])
) as model:
    request = Request(max_tokens=8, rho_star=RhoStar(samples=2, strength=1.0, trial_tokens=4))
    for event in model.stream("How do I stay safe online?", request).events():
        pass
    model.stream("Again?", request).cancel()
assert state() == before, "the process was changed"
alive = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
assert not alive, alive
"""


def load() -> AlignedModel:
    return AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu"))


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """An app that uses the library from loading to closing, and the folders that it could see."""
    folders = {
        name: tmp_path_factory.mktemp(name) for name in ("home", "temporary", "work", "cache")
    }
    home, temporary = str(folders["home"]), str(folders["temporary"])
    places = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), home)
    places |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
    done = subprocess.run(
        [sys.executable, "-c", APP, str(TINY_TARGET), str(TINY_BUNDLE), str(folders["cache"])],
        cwd=folders["work"],
        env=os.environ | places | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, folders


def test_nothing_is_printed_and_the_process_stays_as_it_was(app):
    """Environment, signal handlers, working folder, logging and threads."""
    done, _ = app
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_written_outside_the_cache(app):
    _, folders = app
    assert {name: files_in(folders[name]) for name in ("home", "temporary", "work")} == {
        "home": set(),
        "temporary": set(),
        "work": set(),
    }
    assert files_in(folders["cache"])


def test_close_gives_the_memory_back_though_the_model_is_still_referred_to():
    model = load()
    list(model.stream(PROMPT, SHORT))
    held = [weakref.ref(model.target._model), weakref.ref(model.prompter._session)]
    model.close()
    gc.collect()
    assert [reference() for reference in held] == [None, None]
    model.close()


def test_close_ends_an_iteration_with_a_typed_error():
    model = load()
    pieces = iter(model.stream(PROMPT, LONG))
    next(pieces)
    closer = threading.Thread(target=model.close)
    closer.start()
    with pytest.raises(CancelledError):
        list(pieces)
    closer.join()


@pytest.mark.parametrize("what", ["run", "rewrite"])
def test_a_closed_model_refuses_with_a_typed_error(what):
    model = load()
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        getattr(model, what)(PROMPT)


def test_threads_that_ask_at_once_get_what_each_would_get_alone(tiny_model):
    prompts = [f"What is {number} + 1?" for number in range(8)]
    found: dict[str, str] = {}

    def ask(prompt: str) -> None:
        found[prompt] = tiny_model.run(prompt, SHORT).choice.prompt

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict(zip(prompts, prompts, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["run", "rewrite", "close"])
def test_a_model_survives_a_fork_and_the_fork_gets_an_error(tiny_model, what):
    tiny_model.run(PROMPT, SHORT)
    forked = os.fork()
    if not forked:
        signal.alarm(30)  # ends the process if it hangs
        code = 20
        try:
            tiny_model.close() if what == "close" else getattr(tiny_model, what)(PROMPT)
            code = 30
        except DeviceError as error:
            code = 10 if "forked" in str(error) else 21
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
    assert status == (30 if what == "close" else 10)
    assert tiny_model.run(PROMPT, SHORT).finish_reason != "cancelled"

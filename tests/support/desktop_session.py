"""Drive the window of examples/desktop as a user does, and print what came of it as JSON.

Usage: desktop_session.py CONVERSATION_FILE PICTURE; models.toml has a preset `tiny`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "desktop"))

import chat
import engine
from PySide6.QtCore import QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QPlainTextEdit, QPushButton

from alignpro_lite import AlignedModel, Request, Rewritten
from alignpro_lite.rewriting.draw import chosen_by_user
from tests.support.scripted_models import FakePrompter

SECONDS = 120


class Scripted(FakePrompter):
    def close(self):
        """There is nothing to close."""


class TinyModel:
    """The tiny target with a prompter that always says the same."""

    @staticmethod
    def load(*, models, on_progress, cancellation, reward, isolated):
        found = AlignedModel.load(models=models, on_progress=on_progress, cancellation=cancellation)
        assert reward is None
        assert isolated
        prompter: Any = Scripted(["Name three rivers, in one line."])
        return AlignedModel(found.target, prompter, found.plan)


def wait_until(condition):
    """Let the window work until something is so."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the window does not come so far"
        QTest.qWait(10)


def ask(window, prompt):
    QTest.keyClicks(window.composer, prompt)
    QTest.keyClick(window.composer, Qt.Key.Key_Return)


def drive(file, picture):
    QSettings().setValue("model", "tiny")
    window = chat.ChatWindow(file)
    stages = set()
    window.engine.progressed.connect(lambda progress: stages.add(progress.stage))
    window.show()
    wait_until(window.button.isEnabled)

    window.settings.approve.setChecked(True)
    ask(window, "Name three rivers.")
    wait_until(lambda: window.findChild(QPlainTextEdit, "approval"))
    window.grab().save(str(picture))
    window.findChild(QPlainTextEdit, "approval").setPlainText("Name three rivers in Europe.")
    (approve,) = (b for b in window.findChildren(QPushButton) if b.text() == "Send this")
    QTest.mouseClick(approve, Qt.MouseButton.LeftButton)
    wait_until(lambda: window.button.text() == "Send")
    QTest.qWait(50)
    # The event that follows an approval once opened a second box, which nobody waited for.
    assert window.findChild(QPlainTextEdit, "approval") is None

    stop_at_the_approval(window)
    window.settings.approve.setChecked(False)
    window.settings.rewrite.setChecked(False)
    ask(window, "Go on.")
    QTest.mouseClick(window.button, Qt.MouseButton.LeftButton)
    wait_until(lambda: window.button.text() == "Send")

    choices = choose_among_rewrites(window)
    stop_before_the_next_event()
    window.close()

    again = chat.ChatWindow(file)
    texts = shown_by(again)
    again.close()
    return {
        "platform": QApplication.platformName(),
        "stages": sorted(stages),
        "choices": choices,
        "turns": [[turn.sent, turn.answer] for turn in again.conversation.turns],
        "texts": texts,
    }


def stop_at_the_approval(window):
    """Regression: a rewrite that nobody approved entered the conversation, with an empty answer."""
    before = window.conversation.history()
    assert len(before) == 2
    ask(window, "And lakes?")
    wait_until(lambda: window.findChild(QPlainTextEdit, "approval"))
    QTest.mouseClick(window.button, Qt.MouseButton.LeftButton)
    wait_until(lambda: window.button.text() == "Send")
    assert window.conversation.history() == before
    assert "Stopped." in shown_by(window)


def choose_among_rewrites(window):
    """What the bar lets choose, without a reward and with one, and what is asked of the models."""
    settings, told = window.settings, []
    settings.samples.setValue(4)
    settings.strength.setValue(-10)
    for has_reward in (False, True):
        settings.has_reward = has_reward
        settings.refresh()
        rho_star = settings.request(window.conversation).rho_star
        told.append(
            {
                "enabled": [settings.samples.isEnabled(), settings.strength.isEnabled()],
                "asked": [rho_star.samples, rho_star.strength],
                "helped": any("make reward" in text for text in shown_by(settings)),
            }
        )
    return told


class SlowlyCancelled:
    """A stream with a changed prompt, which keeps whether it was cancelled before it went on."""

    def __init__(self):
        self.is_cancelled = False
        self.seen = None

    def cancel(self):
        time.sleep(0.1)  # whoever is let go too early goes on now
        self.is_cancelled = True

    def events(self):
        yield Rewritten(chosen_by_user("a", "b", None))
        self.seen = self.is_cancelled


def stop_before_the_next_event():
    """Regression: a stop let a waiting rewrite go before its stream was cancelled."""
    stream, models = SlowlyCancelled(), engine.Engine()
    only: Any = type("OneStream", (), {"stream": lambda *_: stream, "close": lambda _: None})()
    models._model = only
    suggested: list[str] = []
    models.suggested.connect(suggested.append)
    models.ask("a", Request(), approve=True)
    wait_until(lambda: suggested)
    models.stop()
    wait_until(lambda: stream.seen is not None)
    models.close()
    assert stream.seen


def shown_by(widget):
    return [label.text() for label in widget.findChildren(QLabel)]


if __name__ == "__main__":
    engine_module: Any = engine
    engine_module.AlignedModel = TinyModel
    app = QApplication([])
    app.setOrganizationName("tests")
    app.setApplicationName("desktop")
    app.setStyle("Fusion")
    app.setStyleSheet(chat.STYLE)
    try:
        print(json.dumps(drive(*map(Path, sys.argv[1:]))))
    finally:  # a window that is left open keeps the process
        for widget in app.topLevelWidgets():
            widget.close()

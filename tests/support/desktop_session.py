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

from alignpro_lite import AlignedModel
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

    ask(window, "And lakes?")
    wait_until(lambda: window.findChild(QPlainTextEdit, "approval"))
    QTest.mouseClick(window.button, Qt.MouseButton.LeftButton)
    wait_until(lambda: window.button.text() == "Send")
    assert window.conversation.turns[-1].answer == ""

    window.settings.approve.setChecked(False)
    window.settings.rewrite.setChecked(False)
    ask(window, "Go on.")
    QTest.mouseClick(window.button, Qt.MouseButton.LeftButton)
    wait_until(lambda: window.button.text() == "Send")

    window.settings.strength.setValue(-10)
    strength = window.settings.request(window.conversation).rho_star.strength
    shown = window.settings.lam
    window.close()

    again = chat.ChatWindow(file)
    texts = [label.text() for label in again.findChildren(QLabel)]
    again.close()
    turns = [turn.sent for turn in again.conversation.turns]
    return {
        "platform": QApplication.platformName(),
        "stages": sorted(stages),
        "strength": strength,
        "shown": shown,
        "sent": turns,
        "texts": texts,
    }


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

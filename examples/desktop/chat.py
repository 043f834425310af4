"""A chat window: every prompt is rewritten before a local model answers it.

pip install "alignpro-lite[cpu]" PySide6-Essentials
python examples/desktop/chat.py
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from conversation import Conversation, Turn
from engine import Engine
from PySide6.QtCore import QSettings, QStandardPaths, Qt, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from alignpro_lite import (
    Candidates,
    Done,
    Progress,
    Reasoning,
    Request,
    Rewriting,
    Rewritten,
    RhoStar,
    Text,
)
from alignpro_lite.registry import ModelStore

STYLE = (Path(__file__).with_name("style.qss")).read_text("utf-8")
STAGES = {
    "fetching": "Downloading",
    "assembling": "Preparing",
    "trying": "Trying",
    "loading": "Loading",
}
NO_REWARD = (
    "A choice among rewrites, and λ, need the reward of the model. “make reward” builds the "
    "default one once, see README.md; then start again."
)
ONE_REWRITE = "λ chooses among two rewrites or more."
WEIGHED = "Near 0 takes the best one; a large λ trusts the prompter."
MARKS = {
    "kept": "{}",
    "removed": '<span style="color:#c2554d; text-decoration:line-through">{}</span>',
    "added": '<span style="color:#2e8b57">{}</span>',
}


class Label(QLabel):
    """Text that wraps and can be selected."""

    def __init__(self, name: str, text: str = "", form: Qt.TextFormat = Qt.TextFormat.PlainText):
        super().__init__(text, objectName=name, wordWrap=True, textFormat=form)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)


class Composer(QPlainTextEdit):
    """Where a prompt is written; Enter sends it, Shift+Enter begins a line."""

    sent = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Send at Enter."""
        is_enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if is_enter and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.sent.emit()
        else:
            super().keyPressEvent(event)


class TurnView(QWidget):
    """A turn: the prompt, its rewrite with the difference, and the answer."""

    decided = Signal(str)

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._prompt, self._text = turn.prompt, ""
        self._approval: QWidget | None = None
        card = QFrame(objectName="prompt")
        self._card = QVBoxLayout(card)
        self._shown, self._note = Label("shown", turn.prompt), Label("note")
        for widget in (self._shown, self._note):
            self._card.addWidget(widget)
        self._note.hide()
        self._answer = Label("answer", form=Qt.TextFormat.MarkdownText)
        layout = QVBoxLayout(self)
        layout.setSpacing(14)
        aside = QHBoxLayout()
        aside.setContentsMargins(110, 0, 0, 0)
        aside.addWidget(card)
        layout.addLayout(aside)
        layout.addWidget(self._answer)
        if turn.sent:
            self.show_changes(turn)
            self.add_text(turn.answer)

    def note(self, text: str) -> None:
        """Say in one line what is going on."""
        self._note.setText(text)
        self._note.show()

    def show_changes(self, turn: Turn) -> None:
        """Show what was sent as a difference to the prompt, and why."""
        done = "Sent as it is" if turn.sent == turn.prompt else "Rewritten"
        self.note(f"{done}: {turn.reason}")
        marked = (MARKS[kind].format(escape(text)) for kind, text in turn.changes)
        self._shown.setTextFormat(Qt.TextFormat.RichText)
        self._shown.setText("".join(marked).replace("\n", "<br>"))

    def ask_approval(self, suggested: str) -> None:
        """Let the user edit the rewrite, or keep the prompt."""
        self._approval = box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 4, 0, 0)
        editor = QPlainTextEdit(suggested, objectName="approval")
        editor.setFixedHeight(104)
        layout.addWidget(editor)
        buttons = QHBoxLayout()
        buttons.addStretch()
        layout.addLayout(buttons)

        def decide(text: str) -> None:
            self.end_approval()
            self.decided.emit(text)

        for name, text, choose in (
            ("", "Send mine", lambda: self._prompt),
            ("primary", "Send this", editor.toPlainText),
        ):
            button = QPushButton(text, objectName=name)
            button.clicked.connect(lambda _=False, choose=choose: decide(choose()))
            buttons.addWidget(button)
        self._card.addWidget(box)
        editor.setFocus()

    def end_approval(self) -> None:
        """Ask no more."""
        if self._approval is not None:
            self._approval.deleteLater()
            self._approval = None

    def add_text(self, text: str) -> None:
        """Append a piece of the answer."""
        self._text += text
        self._answer.setText(self._text)


class Settings(QWidget):
    """The bar at the side: which models, and how prompts are rewritten."""

    def __init__(self) -> None:
        super().__init__(objectName="side")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedWidth(252)
        self.model = QComboBox()
        self.about, self.state = Label("hint"), Label("hint")
        self.bar = QProgressBar(textVisible=False)
        self.rewrite = QCheckBox("Rewrite prompts", checked=True)
        self.approve = QCheckBox("Ask me before one is sent")
        self.samples = QSpinBox(minimum=1, maximum=8, value=1)
        self.strength = QSlider(Qt.Orientation.Horizontal, minimum=-20, maximum=10, value=0)
        self._strength_name, self._hint = QLabel(), Label("hint")
        self.fresh = QPushButton("New conversation")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 20, 20, 20)
        layout.setSpacing(9)
        candidates = QHBoxLayout()
        for widget in (QLabel("Rewrites to choose from"), self.samples):
            candidates.addWidget(widget)
        layout.addWidget(QLabel("Model", objectName="title"))
        for widget in (self.model, self.about, self.bar, self.state):
            layout.addWidget(widget)
        layout.addSpacing(14)
        layout.addWidget(QLabel("Rewriting", objectName="title"))
        for widget in (self.rewrite, self.approve):
            layout.addWidget(widget)
        layout.addLayout(candidates)
        for widget in (self._strength_name, self.strength, self._hint):
            layout.addWidget(widget)
        layout.addStretch()
        layout.addWidget(self.fresh)
        self.has_reward = False
        self.strength.valueChanged.connect(self.refresh)
        self.samples.valueChanged.connect(self.refresh)
        self.refresh()
        presets = ModelStore.open().registry.presets
        for name, preset in presets.items():
            self.model.addItem(name, preset.description)

    @property
    def lam(self) -> float:
        """λ, from 0.01 to 10."""
        return float(f"{10 ** (self.strength.value() / 10):.2g}")

    @property
    def count(self) -> int:
        """How many rewrites to choose from; without a reward nothing could choose."""
        return int(self.samples.value()) if self.has_reward else 1

    def refresh(self) -> None:
        """Show λ, which matters only where a reward chooses among several rewrites, and say so."""
        self.samples.setEnabled(self.has_reward)
        self._strength_name.setText(f"λ = {self.lam:g}")
        for widget in (self.strength, self._strength_name):
            widget.setEnabled(self.count > 1)
        several = WEIGHED if self.count > 1 else ONE_REWRITE
        self._hint.setText(several if self.has_reward else NO_REWARD)

    def request(self, conversation: Conversation) -> Request:
        """How to answer the next prompt."""
        return Request(
            history=conversation.history(),
            rewrite="on" if self.rewrite.isChecked() else "off",
            rho_star=RhoStar(
                samples=self.count,
                strength=self.lam if self.has_reward else None,
                guard="off",  # the approve switch is the guard
            ),
        )


class ChatWindow(QWidget):
    """The whole window."""

    def __init__(self, file: Path) -> None:
        super().__init__(windowTitle="Align-Pro chat")
        self.resize(1000, 700)
        self.conversation, self.engine, self.settings = Conversation(file), Engine(), Settings()
        self.composer = Composer(placeholderText="Ask something …", objectName="composer")
        self.composer.setFixedHeight(76)
        self.button = QPushButton("Send", objectName="primary")
        self._turn: TurnView | None = None
        self._lay_out()
        self._connect()
        for turn in self.conversation.turns:
            self._add(TurnView(turn))
        self.settings.model.setCurrentText(str(QSettings().value("model", "default")))
        self._load()

    def _lay_out(self) -> None:
        inner = QWidget(objectName="turns")
        self._turns = QVBoxLayout(inner)
        self._turns.setContentsMargins(28, 20, 28, 20)
        self._turns.setSpacing(10)
        self._turns.addStretch()
        self._scroll = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        self._scroll.setWidget(inner)
        bar = self._scroll.verticalScrollBar()
        bar.rangeChanged.connect(lambda _, bottom: bar.setValue(bottom))
        bottom = QHBoxLayout()
        bottom.setContentsMargins(28, 0, 28, 22)
        bottom.setSpacing(12)
        bottom.addWidget(self.composer)
        bottom.addWidget(self.button, alignment=Qt.AlignmentFlag.AlignBottom)
        right = QVBoxLayout()
        right.setSpacing(0)
        right.addWidget(self._scroll)
        right.addLayout(bottom)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.settings)
        layout.addLayout(right)

    def _connect(self) -> None:
        self.composer.sent.connect(self.send)
        self.button.clicked.connect(lambda: self.engine.stop() if self._turn else self.send())
        QShortcut(QKeySequence("Escape"), self, self.engine.stop)
        self.settings.model.activated.connect(self._load)
        self.settings.fresh.clicked.connect(self._begin_anew)
        self.engine.progressed.connect(self._show_progress)
        self.engine.loaded.connect(self._show_loaded)
        self.engine.happened.connect(self._show_event)
        self.engine.suggested.connect(self._ask_approval)
        self.engine.failed.connect(self._show_failure)
        self.engine.stopped.connect(lambda: self._show_failure("Stopped."))

    def _load(self) -> None:
        settings = self.settings
        QSettings().setValue("model", settings.model.currentText())
        settings.about.setText(settings.model.currentData())
        self.button.setEnabled(False)
        self.engine.load(settings.model.currentText())

    def _show_progress(self, progress: Progress) -> None:
        self.settings.bar.show()
        self.settings.bar.setRange(0, 1000 if progress.total else 0)  # 0 to 0: it moves to and fro
        self.settings.bar.setValue(1000 * progress.done // (progress.total or 1))
        share = f" {progress.done / progress.total:.0%}" if progress.total else ""
        self.settings.state.setText(f"{STAGES[progress.stage]} …{share}")

    def _show_loaded(self, has_reward: bool) -> None:
        self.settings.bar.hide()
        self.settings.state.setText("Ready")
        self.settings.has_reward = has_reward
        self.settings.refresh()
        self.button.setEnabled(True)
        self.composer.setFocus()

    def send(self) -> None:
        """Ask what the composer holds."""
        prompt = self.composer.toPlainText().strip()
        if not prompt or self._turn is not None or not self.button.isEnabled():
            return
        self.composer.clear()
        self.button.setText("Stop")
        self.settings.fresh.setEnabled(False)
        self._turn = self._add(TurnView(Turn(prompt)))
        self._turn.decided.connect(self.engine.decide)
        request = self.settings.request(self.conversation)
        self.engine.ask(prompt, request, self.settings.approve.isChecked())

    def _add(self, turn: TurnView) -> TurnView:
        self._turns.insertWidget(self._turns.count() - 1, turn)
        return turn

    def _show_event(self, event: object) -> None:
        if (turn := self._turn) is None:
            return
        match event:
            case Rewriting():
                turn.note("Rewriting …")
            case Candidates(drawn, rated, of):
                turn.note(f"Rewriting: {drawn} of {of} drawn, {rated} rated …")
            case Rewritten(choice):
                changes = [(change.kind, change.text) for change in choice.certificate.changes]
                turn.show_changes(Turn(choice.prompt, choice.sent, choice.reason, changes))
            case Reasoning():
                turn.note("Thinking …")
            case Text(text):
                turn.add_text(text)
            case Done(result):
                if result.answer:
                    self.conversation.add(Turn.of(result))
                else:  # the target must not read a prompt that nobody approved or answered
                    turn.note("Stopped." if result.finish_reason == "cancelled" else "No answer.")
                self._end_turn()

    def _ask_approval(self, suggested: str) -> None:
        if self._turn is not None:
            self._turn.ask_approval(suggested)

    def _show_failure(self, message: str) -> None:
        if self._turn is not None:
            self._turn.note(message)
            self._end_turn()
        else:
            self.settings.bar.hide()
            self.settings.state.setText(message)

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.end_approval()
        self._turn = None
        self.button.setText("Send")
        self.settings.fresh.setEnabled(True)
        self.composer.setFocus()

    def _begin_anew(self) -> None:
        self.conversation.clear()
        while self._turns.count() > 1:
            self._turns.takeAt(0).widget().deleteLater()

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """End the models before the window goes."""
        self.engine.close()
        super().closeEvent(event)


def main() -> int:
    """Open the window and run until it is closed."""
    app = QApplication(sys.argv)
    app.setOrganizationName("alignpro-lite")
    app.setApplicationName("desktop-chat")
    app.setStyle("Fusion")
    app.setStyleSheet(STYLE)
    place = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.AppDataLocation)
    window = ChatWindow(Path(place) / "conversation.json")
    window.show()
    return int(app.exec())


if __name__ == "__main__":
    sys.exit(main())

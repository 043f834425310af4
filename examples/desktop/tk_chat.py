"""A chat window with nothing but Tk: the model works on threads, the window reads a queue."""

from __future__ import annotations

import queue
import threading
import tkinter as tk
from tkinter.scrolledtext import ScrolledText

from alignpro_lite import AlignedModel, AlignProError, Done, Message, Request, Rewritten, Text
from alignpro_lite.stream import AlignedStream


class TkChat(tk.Tk):
    """Ask at the bottom, read above; Escape stops an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.title("Align-Pro chat")
        self.text = ScrolledText(self, wrap="word", padx=14, pady=14, font="TkTextFont")
        for tag, colour in (("prompt", "#3b6fd8"), ("note", "#808080")):
            self.text.tag_config(tag, foreground=colour)
        self.text.pack(fill="both", expand=True)
        self.entry = tk.Entry(self, font="TkTextFont")
        self.entry.pack(fill="x", padx=14, pady=14)
        self.entry.bind("<Return>", lambda _: self.ask())
        self.bind("<Escape>", lambda _: self.stream.cancel() if self.stream else None)
        self.history: list[Message] = []
        self.shown: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.model: AlignedModel | None = None
        self.stream: AlignedStream | None = None
        self.text.insert("end", "Loading …\n", "note")
        threading.Thread(target=self.load, daemon=True).start()
        self.poll()

    def load(self) -> None:
        """On a thread: load the models."""
        try:
            self.model = AlignedModel.load()
            self.shown.put(("Ready.\n", "note"))
        except AlignProError as error:
            self.shown.put((f"{error}\n", "note"))

    def ask(self) -> None:
        """Answer what the entry holds."""
        if (prompt := self.entry.get().strip()) and self.model and not self.stream:
            self.entry.delete(0, "end")
            self.shown.put((f"{prompt}\n", "prompt"))
            self.stream = self.model.stream(prompt, Request(history=tuple(self.history)))
            threading.Thread(target=self.read, args=(self.stream,), daemon=True).start()

    def read(self, stream: AlignedStream) -> None:
        """On a thread: hand an answer to the window piece by piece."""
        try:
            for event in stream.events():
                match event:
                    case Rewritten(choice) if choice.changed:
                        self.shown.put((f"→ {choice.sent}\n", "note"))
                    case Text(text):
                        self.shown.put((text, ""))
                    case Done(result) if result.answer:
                        self.history.append(Message("user", result.choice.sent))
                        self.history.append(Message("assistant", result.answer))
        except AlignProError as error:
            self.shown.put((str(error), "note"))
        self.shown.put(("\n", ""))
        self.stream = None

    def poll(self) -> None:
        """In the window's own thread: show what has come meanwhile."""
        while not self.shown.empty():
            self.text.insert("end", *self.shown.get())
            self.text.see("end")
        self.after(30, self.poll)


if __name__ == "__main__":
    TkChat().mainloop()

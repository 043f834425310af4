"""Whose rewrites tell the target what to answer."""

from __future__ import annotations

from alignpro_lite.eval.leaks import leak_notes
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.reward.exchange import TaskReference

SUM, ORDER = "What is 3 times 600?", "Write one line."
REFERENCES = {SUM: TaskReference("gsm8k", "#### 1800"), ORDER: TaskReference("ifeval", "[]")}


def row(system: str, prompt: str, *hints: str) -> ResultRow:
    sent = tuple(f"{prompt}\n\n{hint}" for hint in hints)
    scores = {"right": (1.0,) * len(sent)}
    return ResultRow("sums", system, 0, prompt, sent, ("y",) * len(sent), scores, (), "", 0.0, ())


def test_a_system_that_tells_the_answer_is_named_with_its_share():
    records = [
        row("honest", SUM, "Work in steps.", "Check it."),
        row("knowing", SUM, "It is 1,800.", "Work in steps."),
        row("knowing", ORDER, "1800", "[]"),
        row("knowing", "No reference, 1800?", "1800", "1800"),
    ]
    (note,) = leak_notes(records, REFERENCES)
    assert note.startswith("1 of 6 prompts that knowing sent give the right answer away")

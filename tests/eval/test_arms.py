"""The controls that every evaluation has, whatever its configuration leaves out."""

from __future__ import annotations

import pytest

from alignpro_lite.eval.arms import BASELINE, CONSTANT, TWICE, with_controls
from alignpro_lite.eval.config import (
    AnySystem,
    ConstantSystemSection,
    GivenSection,
    InstructionSection,
    NoPrompterSection,
    PrompterSystemSection,
    ReadTwiceSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.systems import read_twice

NONE = NoPrompterSection(name="none")
LEARNED = PrompterSystemSection(name="p")


def names(systems):
    return [section.name for section in with_controls(systems)]


@pytest.mark.parametrize(
    "judged",
    [
        LEARNED,
        RhoStarSection(name="p"),
        ReferenceSystemSection(name="p"),
        GivenSection(name="p", path="rewrites.jsonl"),
    ],
)
def test_whatever_rewrites_is_held_against_what_anybody_could_write(judged):
    """Holds down: RE2 was no system, and given rewrites had no constant hint beside them."""
    assert names([judged]) == [BASELINE, "p", CONSTANT, TWICE]


def test_what_rewrites_nothing_needs_a_baseline_alone():
    assert names([InstructionSection(name="told", text="Be brief.")]) == [BASELINE, "told"]
    assert names([NONE]) == ["none"]


def test_what_is_there_is_not_added():
    own = [NONE, LEARNED, ConstantSystemSection(name="c"), ReadTwiceSection(name="r")]
    assert names(own) == ["none", "p", "c", "r"]


def test_a_name_that_is_taken_gets_a_number():
    told = InstructionSection(name=CONSTANT, text="Be brief.")
    assert names([NONE, LEARNED, told])[-2:] == [f"{CONSTANT} 2", TWICE]


def test_controls_answer_what_the_prompters_answer():
    some: list[AnySystem] = [
        NONE,
        PrompterSystemSection(name="p", data=("a",)),
        RhoStarSection(name="q", data=("b", "a")),
    ]
    assert [section.data for section in with_controls(some)[-2:]] == [("a", "b")] * 2
    everything: list[AnySystem] = [*some, LEARNED]
    assert [section.data for section in with_controls(everything)[-2:]] == [(), ()]


def test_the_question_is_read_twice():
    assert read_twice(" Why?\n") == "Why?\nRead the question again: Why?"

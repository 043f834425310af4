"""Thoughts and answers are told apart, wherever the pieces are cut and whatever the tags are."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.decoding.reasoning import (
    FORMATS,
    ReasoningSplitter,
    Reply,
    begins_inside,
    reasoning_format,
    split_reply,
    split_stream,
)
from alignpro_lite.decoding.text import StopStrings

THINK = reasoning_format("{{ '<think>' }}")
ANSWER_TAGS = reasoning_format("<think></think><answer></answer>")
CHANNELS = reasoning_format("<|channel|>analysis<|message|><|channel|>final<|message|><|end|>")
HEADER = re.compile(r"(?s)(<\|start\|>|<\|channel\|>|to=)((?!<\|message\|>).)*(<\|message\|>|$)")
"""More than a tag, in which a model names a tool."""
GEMMA = reasoning_format("<|channel>thought<channel|>")


def reply(text, known=THINK, *, inside=False):
    found = split_reply(text, known, inside=inside)
    return found.reasoning, found.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", ("Hm.", "Yes.")),
        (" \n<think>Hm.</think>Yes. ", ("Hm.", "Yes. ")),
        ("<think>\n\n</think>\n\nYes.", ("", "Yes.")),
        ("<think>a</think>\n<think>b</think>c", ("a\n\nb", "c")),
        ("<think>a\n</think>\n<think>b\n\n</think><think>c</think>d", ("a\n\nb\n\nc", "d")),
        ("<think>\n</think><think>a</think>b", ("a", "b")),
        ("Yes.", ("", "Yes.")),
        ("  Yes.\n", ("", "  Yes.\n")),
        ("", ("", "")),
        (" \n", ("", " \n")),
        # Behind the first word of an answer, tags are text.
        ("Write <think>x</think>.", ("", "Write <think>x</think>.")),
        ("<think>a</think>The tag </think> ends <think>.", ("a", "The tag </think> ends <think>.")),
        ("<thin", ("", "<thin")),
        ("<think>a</thin", ("a</thin", "")),
        ("</think>Yes.", ("", "</think>Yes.")),
    ],
)
def test_a_thought_stands_before_the_answer(text, expected):
    assert reply(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nHm.\n</think>\n\nYes.", ("Hm.", "Yes.")),
        ("</think>Yes.", ("", "Yes.")),
        ("Hm.", ("Hm.", "")),
        ("<think>Hm.</think>Yes.", ("Hm.", "Yes.")),  # some open it once more
    ],
)
def test_a_prompt_may_open_the_thought(text, expected):
    assert reply(text, inside=True) == expected


@pytest.mark.parametrize(
    ("known", "text", "expected"),
    [
        (
            CHANNELS,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Y",
            ("Hm.", "Y"),
        ),
        (CHANNELS, "<|channel|>final<|message|>Yes.<|end|>", ("", "Yes.")),
        (CHANNELS, "Yes.", ("", "Yes.")),
        (
            CHANNELS,
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary"
            "<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c",
            ("a\n\nb", "c"),
        ),
        (
            CHANNELS,
            "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{}<|call|>",
            ("{}", ""),
        ),
        (CHANNELS, " to=functions.add<|channel|>commentary json<|message|>{}", ("{}", "")),
        (
            CHANNELS,
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant to=functions.add<|channel|>"
            "commentary <|constrain|>json<|message|>{}",
            ("a\n\n{}", ""),
        ),
        (CHANNELS, "<|channel|>final <|constrain|>json<|message|>{}", ("", "{}")),
        (CHANNELS, "<|channel|>commentary to=func", ("", "")),
        (CHANNELS, "<|start|>assistant", ("", "")),
        (CHANNELS, "to", ("", "to")),
        (GEMMA, "<|channel>thought\nHm.<channel|>Yes.", ("Hm.", "Yes.")),
        (ANSWER_TAGS, "<think>Hm.</think>\n<answer>\nYes.</answer>", ("Hm.", "Yes.")),
        (ANSWER_TAGS, "<answer>Yes.</answer>\n", ("", "Yes.")),
        (ANSWER_TAGS, "<think>Hm.</think>Yes.</answer>", ("Hm.", "Yes.</answer>")),
        (None, "<think>Hm.</think>Yes.", ("", "<think>Hm.</think>Yes.")),
    ],
)
def test_other_formats(known, text, expected):
    assert reply(text, known) == expected


def test_a_model_without_tags_in_its_template_may_write_them():
    """A model that is asked about a tag of that name answers with it."""
    assert reasoning_format("{{ messages[0].content }}<|im_end|>") is None
    assert reasoning_format("<|user|>{{ messages[0].content }}<|end|>") is None  # Phi-3
    assert reasoning_format(None) is None


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.openings[0])
def test_every_format_is_found_in_a_template_that_writes_it(known):
    assert reasoning_format("\n".join(known.tags)) == known
    begins = (*known.openings, *known.separators, *(known.answer or ())[:1])
    assert not any(a != b and b.startswith(a) for a in begins for b in begins)


def test_a_prompt_that_ends_with_the_tag_opens_a_thought():
    def inside(prompt, known=THINK):
        return begins_inside([ord(letter) for letter in prompt], known, spelled)

    def spelled(tokens):
        return "".join(map(chr, tokens))

    assert inside("assistant\n<think>\n")
    assert not inside("<think>\n\n</think>\n\n")
    assert not inside("a <think><end>\n")
    assert not inside("<think>", None)


@pytest.mark.parametrize(
    ("text", "inside", "thought_only"),
    [
        ("<think>Hm", False, True),
        ("<think>Hm.</think>\n", False, True),
        ("<think>Hm.</think>Yes", False, False),
        ("", True, True),
        ("", False, False),
        ("Yes", False, False),
    ],
)
def test_a_thought_without_an_answer_is_told(text, inside, thought_only):
    assert split_reply(text, THINK, inside=inside).thought_only is thought_only


known_formats = st.sampled_from([THINK, ANSWER_TAGS, CHANNELS, GEMMA, None, *FORMATS])


@st.composite
def replies(draw):
    """A format, and a text that is made of its tags, beginnings of them, and other text."""
    known = draw(known_formats)
    tags = list(known.tags) if known else ["<think>", "</think>"]
    parts = st.one_of(
        st.sampled_from(tags),
        st.sampled_from(tags).flatmap(lambda tag: st.sampled_from([tag[:-1], tag[:3], tag[1:]])),
        st.text(" \n<>|/[]aé", max_size=4),
    )
    return known, "".join(draw(st.lists(parts, max_size=8)))


def fed(pieces, known, inside, stops=()):
    """What comes of pieces: the reasoning and the answer, not stripped."""
    splitter, watcher = ReasoningSplitter(known, inside=inside), StopStrings(stops)
    passages = list(split_stream(pieces, splitter, watcher))
    assert all(passage.text for passage in passages)
    thought = "".join(passage.text for passage in passages if passage.is_thought)
    answer = "".join(passage.text for passage in passages if not passage.is_thought)
    return thought, answer, splitter.thought_only, watcher.found


@given(replies(), st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_any_split_of_a_reply_gives_the_same_thought_and_answer(case, places, inside):
    known, text = case
    borders = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    for stops in ((), ("a",), ("<", "é")):
        whole = fed([text], known, inside, stops)
        assert fed(pieces, known, inside, stops) == whole
        assert fed(list(text), known, inside, stops) == whole


@given(replies(), st.booleans())
def test_nothing_is_lost_but_tags_and_white_space(case, inside):
    known, text = case
    thought, answer, _, _ = fed([text], known, inside)
    left = HEADER.sub("", text)
    for tag in sorted(known.tags if known else (), key=len, reverse=True):
        left = left.replace(tag, "")
    letters = sum(map((thought + answer).count, "aé"))
    assert letters >= sum(map(left.count, "aé"))


@given(replies(), st.booleans())
def test_only_what_may_begin_a_tag_is_held_back(case, inside):
    """Everything else is shown with the character that it ends with."""
    known, text = case
    splitter = ReasoningSplitter(known, inside=inside)
    tags = known.tags if known else ()
    for place in range(len(text)):
        splitter.feed(text[place])
        held = splitter._held.lstrip()
        in_header = known and known.header_end and HEADER.fullmatch(held)
        assert any(tag.startswith(held) and tag != held for tag in tags) or in_header or not held


def test_stop_strings_look_at_the_answer_alone():
    text = "<think>1. END 2.</think>one END two"
    assert fed(list(text), THINK, False, ["END"]) == ("1. END 2.", "one ", False, True)


def test_a_whole_reply_is_split_like_a_stream():
    assert split_reply("<think>\n Hm. \n</think>\nYes.", THINK) == Reply("Hm.", "Yes.", False)

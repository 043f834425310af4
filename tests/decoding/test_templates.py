"""Templates of every kind: their text is that of transformers, and it is known who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.markers import Rendered
from alignpro_lite.errors import InputError
from tests.support.chat_templates import FRAGMENTS, MARKERS, TEMPLATES

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
TALK = [
    Message("system", "Be kind.\n"),
    Message("user", " Why? /no_think\n\nTell me. "),
    Message("assistant", "<think>\nHm.\n</think>\n\nBecause."),
    Message("user", "And\r\n\r\nthen?"),
    Message("assistant", "<think>Then?</think>So."),
]
CONVERSATIONS = {"answered": TALK, "asked": TALK[:-1], "no system": TALK[1:], "short": TALK[1:2]}
fragments = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map("".join)
conversations = st.lists(fragments, min_size=1, max_size=4).map(
    lambda contents: [
        Message("assistant" if place % 2 else "user", content)
        for place, content in enumerate(contents)
    ]
)


def of_transformers(template: str, messages: list[Message], **variables: object) -> str:
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    (text,), _ = utilities.render_jinja_template(
        [turns],
        chat_template=template,
        add_generation_prompt=messages[-1].role != "assistant",
        **NAMES,
        **variables,
    )
    return text


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_text_is_that_of_transformers(template, messages):
    """Messages were placeholders while a template rendered: it could not test, cut or trim them."""
    rendered = render(template, messages, NAMES)
    assert rendered.text == of_transformers(template, messages)
    assert rendered.doubtful == ""


@pytest.mark.parametrize("thinks", [True, False])
def test_variables_reach_the_template(thinks):
    template = TEMPLATES["last thought"]
    variables = {"enable_thinking": thinks, "messages": "none"}
    rendered = render(template, TALK[1:2], NAMES, variables)
    assert rendered.text == of_transformers(template, TALK[1:2], enable_thinking=thinks)
    assert rendered.text.endswith("<think>\n\n</think>") != thinks


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(deadline=None, max_examples=20)
@given(messages=conversations)
def test_a_hostile_conversation_is_rendered_as_transformers_does(template, messages):
    rendered = render(template, messages, NAMES)
    assert rendered.text == of_transformers(template, messages)
    assert rendered.doubtful == ""


@pytest.mark.parametrize("kind", ["plain", "role between brackets", "trim", "generation", "json"])
@settings(deadline=None, max_examples=20)
@given(messages=conversations)
def test_every_marker_of_a_conversation_is_told_from_the_templates_own(kind, messages):
    """A template that reads no message writes the same markers, whatever the messages say."""
    markers = [*MARKERS, NAMES["bos_token"]]
    rendered = render(TEMPLATES[kind], messages, NAMES)
    harmless = render(TEMPLATES[kind], [Message(turn.role, "x") for turn in messages], NAMES)
    assert texts(rendered, rendered.find(markers).own) == texts(
        harmless, [found.span() for found in re.finditer(alternatives(markers), harmless.text)]
    )


@pytest.mark.parametrize(
    ("template", "content", "own"),
    [
        ("<think>{{ messages[0].content | replace('<img>', '') }}", "</thi<img>nk>", ["<think>"]),
        ("{{ messages[0].content.replace('a', '<think>') }}", "</think>a", ["<think>"]),
        ("<{{ messages[0].content }}", "think>", []),
        ("{{ messages[0].content + '>' }}", "<think", []),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}</think>", "<think>", ["</think>"]),
        ("{{ messages[0].content.split('-') | join('</think>') }}", "<think>-a", ["</think>"]),
        ("{% set x %}<think>{{ messages[0].content }}{% endset %}{{ x }}", "<think>", ["<think>"]),
        ("{{ ('</think>' ~ messages[0].content)[:-7] }}", "<think></think>", ["</think>"]),
        ("{{ ['<think>', messages[0].content] | tojson }}", "<think>", ["<think>"]),
        (
            "{% filter upper %}{{ messages[0].content }}{% endfilter %}<think>",
            "[inst]",
            ["<think>"],
        ),
        ("{{ messages[0].content }}{{ '<THINK>' | lower }}", "<think>", ["<think>"]),
        (
            "{% set t = '<think></think>' %}{{ t.split('</think>')[0] }}{{ messages[0].content }}",
            "</think>",
            ["<think>"],
        ),
    ],
)
def test_what_a_template_makes_of_a_message_is_the_messages(template, content, own):
    rendered = render(template, [Message("user", content)], {})
    assert texts(rendered, rendered.find(MARKERS).own) == own


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (TEMPLATES["switch"], "<|im_/no_thinkend|>" + chr(0x40041) + chr(0x80041)),
        ("{{ 'a' | upper }}{{ messages[0].content.replace('-', '') }}<|im_end|>", "<|im_-end|>"),
        ("{{ 'a' | upper }}{{ messages[0].content | lower }}<|im_end|>", "<|IM_END|>"),
    ],
)
def test_a_marker_that_a_template_makes_of_a_message_it_changes_is_refused(template, content):
    """Holds down: where both shades were taken, or of no use, it counted as the template's own."""
    rendered = render(template, [Message("user", content)], NAMES)
    assert rendered.doubtful
    with pytest.raises(InputError, match="has a meaning for this model"):
        rendered.find(["<|im_end|>"])
    harmless = render(template, [Message("user", content.replace("|", ""))], NAMES)
    assert texts(harmless, harmless.find(["<|im_end|>"]).own) == ["<|im_end|>"]


def test_the_clock_stands_still_while_a_conversation_is_rendered():
    """Holds down: renderings that are compared told different times, so all was doubtful."""
    template = "{{ strftime_now('%H:%M:%S.%f') }}<|im_start|>{{ messages[0].content }}"
    rendered = render(template, [Message("user", "<|im_start|>")], NAMES)
    assert rendered.doubtful == ""
    assert len(rendered.find(["<|im_start|>"]).own) == 1


def texts(rendered: Rendered, spans: Iterable[tuple[int, int]]) -> list[str]:
    return [rendered.text[start:end] for start, end in spans]


def alternatives(markers: list[str]) -> str:
    return "|".join(map(re.escape, markers))

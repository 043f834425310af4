"""Which rewrites are never used."""

from __future__ import annotations

import pytest

from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.language import changed_language
from alignpro_lite.rewriting.refusal import refusal_of
from alignpro_lite.rewriting.spans import protect

MINE = "mine in 5 m"


def rewrite_of(output, finish="stop"):
    return Rewrite(output.strip(), output, (1,), -1.0, -1.0, finish)


@pytest.mark.parametrize(
    ("output", "finish", "kind", "reason"),
    [
        ("better in 5 m", "length", "rambling", "the rewrite rambled past its limit"),
        ("bet", "cancelled", "cancelled", "cancelled"),
        ("  \n", "stop", "empty", "the rewrite was empty"),
        ("better in 5 km", "stop", "span", "the rewrite did not keep 5 m"),
    ],
)
def test_a_rewrite_that_is_not_whole_or_breaks_a_span_is_refused(output, finish, kind, reason):
    refusal = refusal_of(protect(MINE), rewrite_of(output, finish))
    assert refusal is not None
    assert (refusal.kind, refusal.reason) == (kind, reason)


@pytest.mark.parametrize("prompt", [MINE, "Sure! Here is what? ", "Why is it?", "日本の川は？"])
def test_the_prompt_itself_is_never_refused(prompt):
    """The empty hint was refused, so that no prompter could learn when to add nothing."""
    assert refusal_of(protect(prompt), Rewrite(prompt, "", (1,), -1.0, -1.0, "stop")) is None


def test_a_whole_rewrite_that_keeps_every_span_is_not():
    assert refusal_of(protect(MINE), rewrite_of("better in 5 m")) is None


HINT = "Write a thorough explanation of the most important points, each in a full paragraph."
PROMPTS = {
    "de": "Wie bleibe ich online sicher, und worauf muss ich achten?",
    "es": "¿Cómo puedo estar seguro en línea y qué debo evitar?",
    "fr": "Comment puis-je rester en sécurité sur internet ?",
    "ja": "日本の川を三つ挙げてください。",
    "zh": "请用三句话解释为什么天空是蓝色的。",
    "ru": "Как оставаться в безопасности в интернете?",
    "hi": "मैं ऑनलाइन कैसे सुरक्षित रहूँ?",
}


@pytest.mark.parametrize("language", PROMPTS)
def test_a_rewrite_in_another_language_is_refused(language):
    refusal = refusal_of(protect(PROMPTS[language]), rewrite_of(HINT))
    assert refusal is not None
    assert refusal.reason == f"the prompt is in {language}, the rewrite in en"


@pytest.mark.parametrize("language", PROMPTS)
def test_a_rewrite_in_the_same_language_is_not(language):
    assert changed_language(PROMPTS[language], PROMPTS[language]) is None


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        (PROMPTS["es"], "Explica cada paso con palabras sencillas."),
        (PROMPTS["hi"], "तीन उदाहरण दीजिए।"),
        ("كيف أبقى آمنا على الإنترنت وماذا يجب أن أتجنب؟", "كن موجزا."),
        ("How do I stay safe online?", "Explain each step."),
    ],
)
def test_a_short_hint_is_not_taken_for_a_related_language(prompt, hint):
    """Regression: a hint in Spanish was refused as Galician, one in Hindi as Nepali, and "Explain
    each step." as Gaelic, because only the prompt was asked whether it may be in that language."""
    assert changed_language(prompt, hint) is None


@pytest.mark.parametrize(
    "prompt",
    [
        "hi",
        "Puns.",
        "Write a haiku",
        "How do I stay safe online?",
        "Rank Java, C++ and Rust",
        "def add(first, second):\n    return first + second",
        'Translate "Guten Morgen, wie geht es Ihnen heute?" into English',
        "What does `nicht wahr` mean, and who says „das ist mir völlig wurscht“ in a letter?",
    ],
)
def test_short_texts_code_and_quotes_do_not_count_as_another_language(prompt):
    assert refusal_of(protect(prompt), rewrite_of(f"{prompt} {HINT}")) is None


def test_an_english_rewrite_of_arabic_is_refused_whatever_its_dialect():
    assert changed_language("اكتب رسالة قصيرة إلى صديقي عن السفر", HINT) is not None
    assert changed_language("اكتب رسالة قصيرة", "اكتب رسالة واضحة وقصيرة إلى صديق") is None

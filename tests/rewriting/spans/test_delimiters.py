"""Quotes, brackets, formulas and code in backticks, in every script's own signs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.rewriting.spans import protect
from tests.support.changed_spans import require_noticed


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Zitat »Hallo Welt« hier", "Zitat »Hallo Mond« hier"),
        ("Han sa ”hej du” igår", "Han sa ”hej då” igår"),
        ("”hej”", "”haj”"),
        ('Say "a\nb" now', 'Say "a\nc" now'),
        ("“one\ntwo”", "“one\ntoo”"),
        ("'one\ntwo' is", "'one\ntoo' is"),
        ("『雪国』を", "『雪山』を"),
        ("‘don’t go’ said", "‘don’t come’ said"),
        ("‚ja‘ sagte", "‚nein‘ sagte"),
        ("« oui oui » dit", "« non oui » dit"),
        ("’hej’ sa", "’haj’ sa"),
        ("＂你好＂", "＂您好＂"),
        ('„Tak" powiedział', '„Nie" powiedział'),
        ('"C:\\Program Files\\x y.txt"', '"C:\\Program Files\\x z.txt"'),
        ("```js\na\n```", "```js\nb\n```"),
        ("~~~\nabc", "~~~\nabd"),
        ("``a ` b``", "``a ` c``"),
        ("Fix: ```x=1``` ok", "Fix: ```x=2``` ok"),
        ("````\n```\nx\n```\n````", "````\n```\ny\n```\n````"),
        ("solve $a + b$", "solve $a - b$"),
        ("\\(a b\\)", "\\(a c\\)"),
        ("\\[ a b \\]", "\\[ a c \\]"),
        ("$$ a b $$", "$$ a c $$"),
        ("\\begin{align} a b \\end{align}", "\\begin{align} a c \\end{align}"),
        ('{"a": "b c"}', '{"a": "b d"}'),
        ("{name} is", "{nom} is"),
        ("{{ x y }}", "{{ x z }}"),
        ("[insert name here]", "[insert date here]"),
        ("${A B}", "${A C}"),
        ("<code>a b</code>", "<code>a c</code>"),
        ("“He said 'x y' and left”", "“He said 'x z' and left”"),
        ('"""doc a"""', '"""doc b"""'),
        ("Er sagte: »Ja!« Dann »Nein!« laut", "Er sagte: »Ja!« Dann »Ja!« laut"),
        ("<<a b>> x", "<<a c>> x"),
        ("``LaTeX quote''", "``LaTeX quota''"),
        ("“one\n\n“two” three", "“one\n\n“tow” three"),
        ("'https://x.y/z'", "'https://x.y/y'"),
        ("`a`", "`b`"),
        ("{% if a %}", "{% if b %}"),
        ("{{#each x}}", "{{#each y}}"),
    ],
)
def test_a_change_between_delimiters_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Er rief ,,Hallo Welt'' laut", "Er rief ,,Hallo Mond'' laut"),
        ("Er rief ,,Hallo Welt“", "Er rief ,,Hallo Mond“"),
        (',,Ala ma kota" rzekł', ',,Ala ma psa" rzekł'),
        ("He wrote ''hello world'' there", "He wrote ''hello moon'' there"),
    ],
)
def test_a_change_between_commas_or_apostrophes_for_quotes_is_noticed(prompt, rewrite):
    """Regression: quotes as they are typed without a key for them were not known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Solve x'' = y and y'' = x", "Solve x'' = y, and also y'' = x"),
        ("compare '' and '' here", "Compare '' and '' in code"),
        ('a,,b is " odd', 'Why is a,,b " odd'),
    ],
)
def test_two_commas_or_apostrophes_that_quote_nothing_protect_nothing(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()


PAIRS = "“” „“ «» »« ”” ‘’ ‚‘ ‹› 「」 『』 《》 〈〉 ❝❞ \"\" '' ＂＂ `` [] {} 【】 $$"


@given(st.sampled_from(re.findall(r"\S\S", PAIRS)), st.text("abcdef ,.\n", max_size=30))
def test_whatever_stands_between_delimiters_is_a_span(pair, inside):
    opens, closes = pair
    inside = re.sub(r"\n\s*\n", "\n", f"a{inside}b")
    prompt = f"so {opens}{inside}{closes} and more"
    protected = protect(prompt)
    assert any(f"{opens}{inside}{closes}" in span.text for span in protected.spans)
    assert protected.broken_by(prompt.replace(inside, f"x{inside}"))


@given(st.text("`~\n a"), st.sampled_from(["```", "~~~", "````"]))
def test_a_fence_without_end_protects_the_rest(inside, fence):
    opened = inside.replace("`", "").replace("~", "")
    protected = protect(f"Fix:\n{fence}py\n{opened} x")
    assert protected.spans[-1].text == f"{fence}py\n{opened} x"

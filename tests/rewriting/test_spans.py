"""Protected spans: found in any script, kept by honest rewrites; no broken one gets through."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.errors import InputError
from alignpro_lite.rewriting.spans import compile_patterns, protect

SPECIAL = [
    "```py\nx = 1\r\n```",
    "`ls -la /tmp`",
    "``a`b``",
    "https://example.com/a?b=1#c",
    "bob.smith@mail.example.org",
    "/usr/local/bin/run.sh",
    "C:\\Users\\x\\notes.txt",
    "src/main.py",
    "15 km",
    "3.5%",
    "$1,000",
    "20 minutes",
    "-4°C",
    "1e-5",
    "٣٥ كم",
    "١٢",
    "15元",
    "３０",
    '"To be or not"',
    "“smart quotes”",
    "«guillemets»",
    "「引用」",
    "'single quoted'",
    "A) red B) blue C) green",
    "\nA. one\nB. two\nC. three\n",
    "snake_case_name",
    "v1.2.3",
]
PLAIN = [
    "please",
    "explain",
    "why",
    "the",
    "sky",
    "请",
    "解释",
    "اشرح",
    "🎉",
    "и",
    "почему",
    "don't",
]


def sentence(source):
    """A prompt with one to three special pieces, and those pieces."""
    pieces = source.sample(SPECIAL, source.randint(1, 3))
    words = [source.choice(PLAIN) for _ in range(source.randint(1, 6))]
    for piece in pieces:
        words.insert(source.randint(0, len(words)), piece)
    newline = source.choice([" ", " ", "\n", "\r\n"])
    return newline.join(words), pieces


def damaged(source, piece):
    """The piece with one character changed, lost, added or repeated."""
    place = source.randrange(len(piece))
    return source.choice(
        [
            piece[:place] + piece[place + 1 :],
            piece[:place] + source.choice("7xz.") + piece[place:],
            piece[:place] + source.choice("7xz") + piece[place + 1 :],
            piece.swapcase(),
            piece[::-1],
            piece.replace("\r\n", "\n"),
            "",
        ]
    )


def adversarial(source, prompt, pieces):
    """A rewrite that breaks one of the pieces, and which."""
    victim = source.choice(pieces)
    other = source.choice(["Now: ", "", "请 "])
    return other + prompt.replace(victim, damaged(source, victim), 1), victim


def stands_alone(piece, text):
    """The test's own idea of being kept: the characters, not inside a longer word or number."""
    core = piece.strip()
    before = "(?<![A-Za-z0-9])" if core[0].isalnum() else ""
    after = "(?![A-Za-z0-9])" if core[-1].isalnum() else ""
    return bool(re.search(before + re.escape(core) + after, text))


def test_over_ten_thousand_adversarial_rewrites_no_broken_span_gets_through():
    source = random.Random(0)
    rejected = 0
    for _ in range(10_000):
        prompt, pieces = sentence(source)
        rewrite, victim = adversarial(source, prompt, pieces)
        broken = protect(prompt).broken_by(rewrite)
        rejected += bool(broken)
        if not broken:
            assert stands_alone(victim, rewrite), (prompt, rewrite, victim)
    assert rejected > 8000


def test_ten_thousand_prompts_are_kept_by_themselves_and_by_guidance():
    source = random.Random(1)
    for _ in range(10_000):
        prompt, _ = sentence(source)
        protected = protect(prompt)
        assert protected.spans
        assert protected.broken_by(prompt) == ()
        assert protected.broken_by(f"{prompt.rstrip()}\n\nStay on topic in 3 sentences.") == ()


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Mail bob@x.org, about 15 km at 3.5%.", ["bob@x.org", "15 km", "3.5%"]),
        ("价格是15元，请说“你好”。", ["15元", "“你好”"]),
        ("احسب ٣٥ كم", ["٣٥ كم"]),
        ("don't touch the users' files", []),
        ("don't touch 'my files'", ["'my files'"]),
        ("See (https://a.b/c_(d)?x=1).", ["https://a.b/c_(d)?x=1"]),
        ("Is it A) a cat B) a dog?", ["A) a cat B) a dog?"]),
        ("Pick\r\n1. red\r\n2. blue\r\nnow", ["1. red\r\n2. blue"]),
        ("Read `a b` and ``c`d``", ["`a b`", "``c`d``"]),
        ("~~~\ncode without end", ["~~~\ncode without end"]),
        ("Say hello, e.g. loudly!", []),
        ("I want <keep>New York</keep> <keep></keep>", ["New York"]),
        ("🎉👍🏽 party", []),
        ("", []),
    ],
)
def test_what_is_protected(prompt, found):
    assert [span.text for span in protect(prompt).spans] == found


@pytest.mark.parametrize(
    "rewrite", ["It is 115 km", "at 15 km/h", "1.15 km", "15 kmh", "15", "fifteen km", ""]
)
def test_a_number_is_kept_only_as_it_stands(rewrite):
    assert [span.text for span in protect("It is 15 km.").broken_by(rewrite)] == ["15 km"]


def test_a_number_in_code_does_not_stand_for_the_one_outside():
    """Regression: the 15 inside the code was counted instead of the lost one."""
    protected = protect("Use 15 and `ls 15`.")
    assert [span.text for span in protected.broken_by("Use `ls 15`.")] == ["15"]


def test_markers_are_taken_out_and_what_they_hold_stays():
    protected = protect("Tell <keep>the cat</keep>, 我喜欢<keep>北京</keep>烤鸭")
    assert protected.prompt == "Tell the cat, 我喜欢北京烤鸭"
    assert [protected.prompt[span.start : span.end] for span in protected.spans] == [
        "the cat",
        "北京",
    ]
    assert protected.broken_by("the cat 北京烤鸭") == ()
    assert [span.text for span in protected.broken_by("the category 北京")] == ["the cat"]


def test_patterns_of_the_user_also_hold_within_words():
    patterns = compile_patterns(["foo", r"[A-Z]{3}"])
    protected = protect("The foobar of NASA", patterns)
    assert [span.text for span in protected.spans] == ["foo", "NAS"]
    assert protected.broken_by("foobar NASA") == ()
    assert len(protected.broken_by("bar ESA")) == 2


@pytest.mark.parametrize(("pattern", "problem"), [("(", "regular expression"), ("a*", "also")])
def test_a_pattern_that_cannot_be_used_is_refused(pattern, problem):
    with pytest.raises(InputError, match=problem):
        compile_patterns([pattern])


@given(st.text(max_size=200))
def test_any_text_keeps_itself_and_spans_are_where_they_say(text):
    protected = protect(text)
    assert protected.broken_by(protected.prompt) == ()
    for span in protected.spans:
        assert protected.prompt[span.start : span.end] == span.text
        assert span.text


@pytest.mark.parametrize("piece", ["a. ", "'a ", "`", '"', "<keep>", "~~~\n", "1 ", "A) b B) "])
def test_long_input_takes_no_endless_time(piece):
    begun = time.monotonic()
    protected = protect(piece * 3000)
    protected.broken_by(protected.prompt)
    assert time.monotonic() - begun < 20

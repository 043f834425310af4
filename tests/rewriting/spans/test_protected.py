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
from tests.support.changed_spans import require_noticed

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

SHOUTED = {"20 minutes": "20 MINUTES"}
"""Pieces that are the same in capitals."""

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
            kept = stands_alone(victim, rewrite) or stands_alone(
                SHOUTED.get(victim, victim), rewrite
            )
            assert kept, (prompt, rewrite, victim)
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


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("whats 3 million times 2", "What is 3 million times 2?"),
        ("sum up https://a.b/c_(d)", "Summarise https://a.b/c_(d), in short."),
        ("fix: x = [1, 2]", "Fix this code: `x = [1, 2]`"),
        ("translate: I have 15 apples", 'Translate the sentence "I have 15 apples" into French.'),
        ("Is it A) a cat B) a dog?", "Decide which it is:\nA) a cat B) a dog?"),
        ("Is it A) a cat B) a dog?", "Is it A) a cat B) a dog? Explain your choice."),
        ("In 3 lines, sum up https://a.b/c", "Summarise https://a.b/c in 3 lines."),
        ("the users' files aren't there", "Where are the users' files? They aren't there."),
        ("Give 5 tips", "Give 5 short, useful tips."),
        ("Was war am 5. März?", "Erkläre, was am 5. März war."),
        ("Πώς να μάθω κολύμπι;", "Εξήγησε πώς μαθαίνω κολύμπι."),
        ("solve x + 2 = 5", "Solve the equation x + 2 = 5, step by step."),
        ("I saw cats on fire", "Describe cats that are on fire"),
        ("Explain 三个 examples", "Explain these 三个 examples in detail"),
    ],
)
def test_an_honest_rewrite_keeps_every_span(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("It costs $5, not $7", "It costs $7, not $5"),
        ("5 and again 5", "5 and again"),
        ("`a` before `b`", "`b` before `a`"),
        ("Use 15 and `ls 15`.", "Use `ls 15` and `ls 15`."),
        ("How much is 3", "How much is 3 million"),
        ("A. red B. blue", "A. red B. blue C. green"),
        ("| a | b |\n| c | d |", "| a | b |\n| c | d |\n| e | f |"),
    ],
)
def test_spans_stay_in_order_and_are_neither_lost_nor_extended(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite)


@given(st.text("A)B.1 2:\n[]①“”\"'`$\\/|,;3million<keep>yesor", max_size=120))
def test_any_mixture_of_signs_keeps_itself(text):
    protected = protect(text)
    assert protected.broken_by(protected.prompt) == ()


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_python_cannot_compile_is_refused(pattern):
    """Regression: OverflowError and RecursionError came through."""
    with pytest.raises(InputError, match="regular expression"):
        compile_patterns([pattern])


SHAPES = [
    *("a", "a. ", "'a ", "`", "` ", '"', '" "', "“", "[", "[] ", "{", "<a ", "<keep>", "("),
    *(
        " ",
        "\t",
        "\n",
        "1",
        "1 ",
        "1-",
        "two ",
        "https://a.b/c?d=1&",
        "http://",
        "--a ",
        "-a ",
        ".env ",
        "> a\n",
        ",,a ",
        "''a ",
        "/a",
        "\\",
        "~~~\n",
    ),
    *("@", "#a ", "a=", "$a ", "A) b B) ", "- x\n", "    x\n", "|\n", "a,b\n", "a  b\n", "yes or "),
    *("a - ", "a + ", "a = b/ ", "aB", "a::"),
    *("中", "中/", "三", "한 ", "ก", "\u0301", "😀", "\\begin{", "<code></code>"),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_prompt_of_any_shape_takes_no_long_time(shape):
    """Regression: 50,000 letters took 3 s and 200,000 took 50 s, in which no other thread ran."""
    text = shape * (100_000 // len(shape))
    begun = time.process_time()
    protected = protect(text)
    assert protected.broken_by(protected.prompt) == ()
    assert time.process_time() - begun < 8


NESTED = "".join("`" * length + " " for length in range(1, 1400))


@pytest.mark.parametrize("text", ["a" * 10**6, "[" * 500_000 + "]" * 500_000, NESTED], ids=len)
def test_a_million_characters_take_seconds(text):
    begun = time.process_time()
    protect(text)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("<A> red", "<B> red"),
        ("x ≤ 5", "x ≥ 5"),
        ("<NAME> is", "<NOM> is"),
        ("<your name>", "<my name>"),
        ("<b>x</b>", "<i>x</i>"),
        ("<a href='x y'>", "<a href='x z'>"),
        ("f(x) = y", "g(x) = y"),
        ("print(hello)", "print(help)"),
        ("a -> b", "a <- b"),
        ("<keep>New York</keep>", "New Jersey"),
        ("<https://x.y/z>", "<https://x.y/y>"),
        ("x_1 + y", "x_2 + y"),
        ("p < 0.05", "p > 0.05"),
        ("x != y", "x == y"),
        ("f'(x) = 2x", "f(x) = 2x"),
        ("<!-- a b -->", "<!-- a c -->"),
        ("<%= a %>", "<%= b %>"),
        ("Solve x^2 + bx = c", "Solve x^2 + dx = c"),
        ("Is a - b < c?", "Is a - d < c?"),
    ],
)
def test_a_change_of_a_marker_or_a_sign_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("run ls -la now", "run ls -lh now"),
        ("tar -xzvf of it", "tar -xzf of it"),
        ("use --color=auto here", "use --color=never here"),
        ("what does --verbose do", "what does --quiet do"),
    ],
)
def test_a_change_of_an_option_of_a_command_is_noticed(prompt, rewrite):
    """Regression: a word behind a dash was a word like others."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("I like cats -and dogs", "I like cats and dogs"),
        ("-eggs\n-milk\nwhat can i cook", "-eggs\n-milk\nWhat can I cook with these?"),
        ("a well -known fact", "a well-known fact"),
    ],
)
def test_a_dash_at_a_word_of_prose_may_go(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()

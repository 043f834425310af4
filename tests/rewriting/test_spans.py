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


CHANGED = [
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
    ("see https://en.wikipedia.org/wiki/Foo_(bar)", "see https://en.wikipedia.org/wiki/Foo_(bar"),
    ("see https://x.y/it's/a ok", "see https://x.y/it's/b ok"),
    ("https://ja.wikipedia.org/wiki/日本語 を", "https://ja.wikipedia.org/wiki/日本 を"),
    ("https://例子.公司/路径 ok", "https://例子.公司/路 ok"),
    ("www.x.y/z", "www.x.y/zz"),
    ("mailto:a@b.c?subject=x", "mailto:a@b.c?subject=y"),
    ("http://localhost:8080/a?b=c;d", "http://localhost:8081/a?b=c;d"),
    ("用户@例子.公司", "用户@例子.公"),
    ("ftp://u:p@h/x", "ftp://u:q@h/x"),
    ("open /home/用户/文件.txt", "open /home/用户/文档.txt"),
    ("请打开 /数据/报告.csv 并总结", "请打开 /数据/报表.csv 并总结"),
    ("请打开报告.docx", "请打开报表.docx"),
    ("D:\\数据\\报告.xlsx", "D:\\数据\\报表.xlsx"),
    ("\\\\srv\\sh are\\x", "\\\\srv\\sh bre\\x"),
    ('"C:\\Program Files\\x y.txt"', '"C:\\Program Files\\x z.txt"'),
    ("~/a/b", "~/a/c"),
    ("./run", "./ran"),
    ("/etc/hosts:", "/etc/host:"),
    ("Pick [A] red [B] blue", "Pick [A] red [B] green"),
    ("A: red\nB: blue", "A: red\nB: green"),
    ("（A）红（B）蓝", "（A）红（B）绿"),
    ("A．赤 B．青", "A．赤 B．緑"),
    ("①红②蓝", "①红②绿"),
    ("1. x\n2. y", "1. x\n2. z"),
    ("a. x\nb. y", "a. x\nb. z"),
    ("(i) cat (ii) dog", "(i) cat (ii) cow"),
    ("A) red\n\nB) blue", "A) red\n\nB) grey"),
    ("A、红 B、蓝", "A、红 B、绿"),
    ("Answer yes or no", "Answer true or false"),
    ("Answer yes or no.", "Answer yes or maybe."),
    ("Reply ja oder nein", "Reply ja oder vielleicht"),
    ("回答是或否", "回答对或错"),
    ("Options: red, blue", "Options: red, green"),
    ("Choose:\n- red\n- blue", "Choose:\n- red\n- green"),
    ("A - red\nB - blue", "A - red\nB - green"),
    ("**A)** red **B)** blue", "**A)** red **B)** green"),
    ("<A> red", "<B> red"),
    ("A. red B. blue", "A. red B. blue C. green"),
    ("Option A: cat\nOption B: dog", "Option A: cat\nOption B: cow"),
    ("Ⓐ red Ⓑ blue", "Ⓐ red Ⓑ green"),
    ("1) red, 2) blue", "1) red, 2) green"),
    ("Ａ．猫\u3000Ｂ．犬", "Ａ．猫\u3000Ｂ．牛"),
    ("А) кот Б) пёс", "А) кот Б) бык"),
    ("а) кот б) пёс", "а) кот б) бык"),
    ("Fix:\n\n    x = 1\n    y = 2\n", "Fix:\n\n    x = 1\n    y = 3\n"),
    ("Fix:\n\tfoo bar\n", "Fix:\n\tfoo baz\n"),
    ("```js\na\n```", "```js\nb\n```"),
    ("~~~\nabc", "~~~\nabd"),
    ("``a ` b``", "``a ` c``"),
    ("Fix: ```x=1``` ok", "Fix: ```x=2``` ok"),
    ("````\n```\nx\n```\n````", "````\n```\ny\n```\n````"),
    ("def f(a, b):\n    return a", "def g(a, b):\n    return a"),
    ("for (int i=0;i<n;i++) {\n  x();\n}", "for (int i=1;i<n;i++) {\n  x();\n}"),
    ("3 million people", "3 billion people"),
    ("½ cup of milk", "¼ cup of milk"),
    ("2½ cups", "2¼ cups"),
    ("1 000 km", "1 000 m"),
    ("1 000 km", "2 000 km"),
    ("1,000.50", "1,000.05"),
    ("1e-3", "1e-4"),
    ("5 %", "5 ‰"),
    ("€5", "$5"),
    ("5 °C", "5 °F"),
    ("10 km/h", "10 m/h"),
    ("twenty percent", "thirty percent"),
    ("two thirds", "three thirds"),
    ("USD 20", "EUR 20"),
    ("20 USD", "20 EUR"),
    ("5 dozen", "5 score"),
    ("3 Millionen", "3 Milliarden"),
    ("3 millions d'euros", "3 milliards d'euros"),
    ("3 миллиона", "3 миллиарда"),
    ("三百万", "三百亿"),
    ("3万", "3億"),
    ("3公里", "3公斤"),
    ("3亿元", "3万元"),
    ("５kg", "５g"),
    ("from 3 to 5", "from 5 to 3"),
    ("3 - 2", "3 + 2"),
    ("2 × 3", "2 ÷ 3"),
    ("x ≤ 5", "x ≥ 5"),
    ("March 5, 2024", "May 5, 2024"),
    ("5 March 2024", "5 May 2024"),
    ("5. März", "5. Mai"),
    ("el 5 de marzo", "el 5 de mayo"),
    ("10:30 am", "10:30 pm"),
    ("5 p.m.", "5 a.m."),
    ("World War II", "World War I"),
    ("World War I", "World War II"),
    ("Henry VIII", "Henry VII"),
    ("5th", "6th"),
    ("the third one", "the fourth one"),
    ("v1.2.3", "v1.2.4"),
    ("10–20 kg", "10–20 g"),
    ("6′2″", "6′3″"),
    ("5'10\" tall", "5'11\" tall"),
    ("50 mg/dL", "50 g/dL"),
    ("9.8 m/s²", "9.8 m/s³"),
    ("9.8 m/s^2", "9.8 m/s^3"),
    ("100 kWh", "100 MWh"),
    ("3 TB", "3 GB"),
    ("64 bit", "64 byte"),
    ("two and a half hours", "two and a half days"),
    ("one hour", "one day"),
    ("a dozen eggs", "a hundred eggs"),
    ("half a cup", "quarter a cup"),
    ("5 lakh", "5 crore"),
    ("Rs. 500", "Rs. 600"),
    ("₹500", "₹600"),
    ("5 square metres", "5 square feet"),
    ("3 light years", "3 years"),
    ("5 per cent", "5 per mille"),
    ("minus 5", "minus 6"),
    ("-5", "+5"),
    ("5 BC", "5 AD"),
    ("0x1F", "0x2F"),
    ("3/4", "4/3"),
    ("1:2", "2:1"),
    ("5 nautical miles", "5 miles"),
    ("10 tablespoons", "10 teaspoons"),
    ("fifty-five", "fifty-six"),
    ("1.5 Mrd", "1.5 Mio"),
    ("8 Gbit/s", "8 Mbit/s"),
    ("3 sq ft", "3 cu ft"),
    ("12 noon", "12 midnight"),
    ("15 กิโลเมตร", "15 เมตร"),
    ("3 ล้าน", "3 พัน"),
    ("5시간", "5분"),
    ("solve $x^2+1$", "solve $x^2-1$"),
    ("solve $a + b$", "solve $a - b$"),
    ("\\(a b\\)", "\\(a c\\)"),
    ("\\[ a b \\]", "\\[ a c \\]"),
    ("$$ a b $$", "$$ a c $$"),
    ("\\begin{align} a b \\end{align}", "\\begin{align} a c \\end{align}"),
    ("\\frac{a}{b}", "\\frac{a}{c}"),
    ("\\alpha", "\\beta"),
    ("a | b\nc | d", "a | b\nc | e"),
    ("| a | b |", "| a | c |"),
    ("x\ty", "x\tz"),
    ("Name,Age\nBob,Old", "Name,Age\nBob,New"),
    ("a;b;c\nd;e;f", "a;b;c\nd;e;g"),
    ("Name   Grade\nJohn   good\nMary   bad", "Name   Grade\nJohn   good\nMary   good"),
    ('{"a": "b c"}', '{"a": "b d"}'),
    ("{name} is", "{nom} is"),
    ("{{ x y }}", "{{ x z }}"),
    ("<NAME> is", "<NOM> is"),
    ("<your name>", "<my name>"),
    ("[insert name here]", "[insert date here]"),
    ("%s and %d", "%s and %s"),
    ("$VAR", "$VAL"),
    ("${A B}", "${A C}"),
    ("<b>x</b>", "<i>x</i>"),
    ("<code>a b</code>", "<code>a c</code>"),
    ("<a href='x y'>", "<a href='x z'>"),
    ("@bob hi", "@bab hi"),
    ("#tag", "#tog"),
    ("#日本", "#日中"),
    ("deadbeef12", "deadbeef13"),
    ("f(x) = y", "g(x) = y"),
    ("print(hello)", "print(help)"),
    ("snake_case", "snake_cast"),
    ("and/or", "and"),
    ("C#", "C++"),
    ("C++", "C"),
    ("a -> b", "a <- b"),
    ("__init__", "__main__"),
    ("%(name)s", "%(nom)s"),
    ("α → β", "α ← β"),
    ("<keep>New York</keep>", "New Jersey"),
    ("~10 kg", "~10 g"),
    ("≈3", "≈4"),
    ("№ 5", "№ 6"),
    ("§ 5", "§ 6"),
    ("No. 5", "No. 6"),
    ("Article III", "Article IV"),
    ("5G", "4G"),
    ("COVID-19", "COVID-20"),
    ("1st", "2nd"),
    ("mid-1990s", "mid-1980s"),
    ("2020s", "2030s"),
    ("24/7", "24/6"),
    ("one third", "two thirds"),
    ("fünf Kilometer", "fünf Meter"),
    ("cinq minutes", "cinq heures"),
    ("veinte por ciento", "treinta por ciento"),
    ("пять минут", "пять часов"),
    ("zwei Drittel", "ein Drittel"),
    ("第三章", "第四章"),
    ("百分之五", "百分之六"),
    ("三句话", "五句话"),
    ("五分钟", "三分钟"),
    ("半年", "一年"),
    ("一个苹果", "两个苹果"),
    ("“He said 'x y' and left”", "“He said 'x z' and left”"),
    ('"""doc a"""', '"""doc b"""'),
    ("Er sagte: »Ja!« Dann »Nein!« laut", "Er sagte: »Ja!« Dann »Ja!« laut"),
    ("<<a b>> x", "<<a c>> x"),
    ("``LaTeX quote''", "``LaTeX quota''"),
    ("“one\n\n“two” three", "“one\n\n“tow” three"),
    ("see [docs](https://x.y/a(b)).", "see [docs](https://x.y/a(c))."),
    ("http://[::1]:80/x", "http://[::1]:81/x"),
    ("https://x.y/a,b;c!d", "https://x.y/a,b;c!e"),
    ("x.com/a-b", "x.com/a-c"),
    ("a.b.c.org is", "a.b.d.org is"),
    ("<https://x.y/z>", "<https://x.y/y>"),
    ("'https://x.y/z'", "'https://x.y/y'"),
    ("读https://x.y/路径。", "读https://x.y/路。"),
    ("s3://b/k", "s3://b/l"),
    ("git@github.com:a/b.git", "git@github.com:a/c.git"),
    ("../x/y", "../x/z"),
    ("C:/Users/x", "C:/Users/y"),
    ("/mnt/c/My\\ Docs/a", "/mnt/c/My\\ Docs/b"),
    ("file:///etc/x", "file:///etc/y"),
    ("doi:10.1000/182", "doi:10.1000/183"),
    ("a) x b) y c) z", "a) x b) y c) w"),
    ("[1] cat\n[2] dog", "[1] cat\n[2] cow"),
    ("I. cat\nII. dog", "I. cat\nII. cow"),
    ("甲、猫 乙、狗", "甲、猫 乙、牛"),
    ("ア．猫\nイ．犬", "ア．猫\nイ．牛"),
    ("a: red\nb: blue", "a: red\nb: grey"),
    ("(1) x (2) y", "(1) x (2) z"),
    ("A. cat\nmore\nB. dog", "A. cat\nmore\nB. cow"),
    ("true/false?", "true/maybe?"),
    ("Yes/No/Maybe", "Yes/No/Never"),
    ("选项：红、蓝", "选项：红、绿"),
    ("* red\n* blue", "* red\n* grey"),
    ("• red\n• blue", "• red\n• grey"),
    ("1: red 2: blue", "1: red 2: grey"),
    ("A] red B] blue", "A] red B] grey"),
    ("1．赤 2．青", "1．赤 2．緑"),
    ("- [ ] a\n- [x] b", "- [x] a\n- [x] b"),
    ("Which: red | blue | green", "Which: red | blue | black"),
    ("5 ft 10 in", "5 ft 11 in"),
    ("10 000,5 €", "10 000,6 €"),
    ("3.5M users", "3.5B users"),
    ("$3B", "$3M"),
    ("2^10", "2^11"),
    ("10⁻³", "10⁻⁴"),
    ("√2", "√3"),
    ("±5", "5"),
    ("<5", "<6"),
    ("5+", "6+"),
    ("12:30–14:00", "12:30–15:00"),
    ("2024-01-02", "2024-02-01"),
    ("2.1.2024", "1.2.2024"),
    ("7 p.m. to 9 p.m.", "7 p.m. to 9 a.m."),
    ("four score", "five score"),
    ("a couple thousand", "a couple million"),
    ("two-thirds", "two-fifths"),
    ("one in five", "one in six"),
    ("nineteen eighty-four", "nineteen eighty-five"),
    ("10-fold", "20-fold"),
    ("3x faster", "4x faster"),
    ("quatre-vingts", "quatre-vingt-dix"),
    ("dreiundzwanzig", "vierundzwanzig"),
    ("fünfhundert Euro", "sechshundert Euro"),
    ("half an hour", "half a minute"),
    ("hundred", "thousand"),
    ("zero", "one"),
    ("5 m²", "5 m³"),
    ("5 kg/m³", "5 g/m³"),
    ("5 ppm", "5 ppb"),
    ("1000 mAh", "1000 Ah"),
    ("5 USD/h", "5 EUR/h"),
    ("40 hours per week", "40 hours per month"),
    ("5 Pa·s", "5 Pa"),
    ("Ⅷ世", "Ⅸ世"),
    ("٣ ملايين", "٣ مليارات"),
    ("पाँच किलो", "दस किलो"),
    ("五百元", "五百円"),
    ("1億2千万円", "1億3千万円"),
    ("3人", "4人"),
    ("３時間", "３分間"),
    ("2 个小时", "3 个小时"),
    ("x_1 + y", "x_2 + y"),
    ("E = mc^2", "E = mc^3"),
    ("a*b", "a/b"),
    ("p < 0.05", "p > 0.05"),
    ("x != y", "x == y"),
    ("∑ x", "∏ x"),
    ("f'(x) = 2x", "f(x) = 2x"),
    ("`a`", "`b`"),
    ("<!-- a b -->", "<!-- a c -->"),
    ("&nbsp; x", "&amp; x"),
    ("SELECT a FROM b", "SELECT c FROM b"),
    ("import os\nprint(os)", "import sys\nprint(os)"),
    ("$ ls -l foo", "$ ls -l bar"),
    ("x = foo", "x = bar"),
    ("if a:\n    b", "if c:\n    b"),
    ("{% if a %}", "{% if b %}"),
    ("<%= a %>", "<%= b %>"),
    ("{{#each x}}", "{{#each y}}"),
    ("%NAME%", "%NOM%"),
    ("@{x}", "@{y}"),
    ("ISBN 978-3", "ISBN 978-4"),
    ("sha256:abc", "sha256:abd"),
    ("Det kostar tre miljoner kronor", "Det kostar tre miljarder kronor"),
    ("Kosztuje trzy miliony złotych", "Kosztuje trzy miliardy złotych"),
    ("Üç milyon lira eder", "Üç milyar lira eder"),
    ("Hinta on kolme miljoonaa euroa", "Hinta on kolme miljardia euroa"),
    ("Giá là 3 triệu đồng", "Giá là 3 tỷ đồng"),
    ("Harganya 3 juta rupiah", "Harganya 3 miliar rupiah"),
    ("המחיר הוא 3 מיליון שקל", "המחיר הוא 3 מיליארד שקל"),
    ("Κοστίζει 3 εκατομμύρια ευρώ", "Κοστίζει 3 δισεκατομμύρια ευρώ"),
    ("Ціна 3 мільйони гривень", "Ціна 3 мільярди гривень"),
    ("It costs CHF 5.– there", "It costs EUR 5.– there"),
    ("اختر: أ) قط ب) كلب", "اختر: أ) قط ب) ذئب"),
    ("בחר: א) חתול ב) כלב", "בחר: א) חתול ב) זאב"),
    ("Rispondi sì o no", "Rispondi sì"),
    ("Svara ja eller nej", "Svara ja"),
    ("Solve x^2 + bx = c", "Solve x^2 + dx = c"),
    ("Is a - b < c?", "Is a - d < c?"),
    ("Rename camelCaseName", "Rename camelCasename"),
    ("What is std::vector?", "What is std::list?"),
]
"""A prompt, and a rewrite that changes a protected span in it."""


@pytest.mark.parametrize(("prompt", "rewrite"), CHANGED)
def test_a_change_is_noticed_in_every_spelling(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    assert protect(prompt).broken_by(rewrite)


@pytest.mark.parametrize("prompt", [prompt for prompt, _ in CHANGED])
def test_what_is_unchanged_is_kept(prompt):
    protected = protect(prompt)
    for rewrite in (
        protected.prompt,
        f"Please help me with this:\n{protected.prompt}",
        f"{protected.prompt}\n\nAnswer in 3 sentences.",
    ):
        assert protected.broken_by(rewrite) == ()


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

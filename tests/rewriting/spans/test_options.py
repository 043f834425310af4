"""The options of a question, however they are marked."""

from __future__ import annotations

import time

import pytest

from alignpro_lite.rewriting.spans import protect
from alignpro_lite.rewriting.spans.options import announced_options
from tests.support.changed_spans import require_noticed


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Pick [A] red [B] blue", "Pick [A] red [B] green"),
        ("Yes/No/Maybe", "Yes/No/Never"),
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
        ("A. red B. blue", "A. red B. blue C. green"),
        ("Option A: cat\nOption B: dog", "Option A: cat\nOption B: cow"),
        ("Ⓐ red Ⓑ blue", "Ⓐ red Ⓑ green"),
        ("1️⃣ red 2️⃣ blue", "1️⃣ red 2️⃣ green"),
        ("1) red, 2) blue", "1) red, 2) green"),
        ("Ａ．猫\u3000Ｂ．犬", "Ａ．猫\u3000Ｂ．牛"),
        ("А) кот Б) пёс", "А) кот Б) бык"),
        ("а) кот б) пёс", "а) кот б) бык"),
        ("a | b\nc | d", "a | b\nc | e"),
        ("a) x b) y c) z", "a) x b) y c) w"),
        ("[1] cat\n[2] dog", "[1] cat\n[2] cow"),
        ("I. cat\nII. dog", "I. cat\nII. cow"),
        ("甲、猫 乙、狗", "甲、猫 乙、牛"),
        ("ア．猫\nイ．犬", "ア．猫\nイ．牛"),
        ("a: red\nb: blue", "a: red\nb: grey"),
        ("(1) x (2) y", "(1) x (2) z"),
        ("A. cat\nmore\nB. dog", "A. cat\nmore\nB. cow"),
        ("选项：红、蓝", "选项：红、绿"),
        ("* red\n* blue", "* red\n* grey"),
        ("• red\n• blue", "• red\n• grey"),
        ("1: red 2: blue", "1: red 2: grey"),
        ("A] red B] blue", "A] red B] grey"),
        ("1．赤 2．青", "1．赤 2．緑"),
        ("- [ ] a\n- [x] b", "- [x] a\n- [x] b"),
        ("اختر: أ) قط ب) كلب", "اختر: أ) قط ب) ذئب"),
        ("בחר: א) חתול ב) כלב", "בחר: א) חתול ב) זאב"),
        ("Rispondi sì o no", "Rispondi sì"),
        ("Svara ja eller nej", "Svara ja"),
    ],
)
def test_a_change_of_an_option_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("1- red 2- blue", "1- red 2- grey"),
        ("A- red\nB- blue", "A- red\nB- grey"),
        ("١- قط\n٢- كلب", "١- قط\n٢- بقرة"),
        ("क) लाल ख) नीला", "क) लाल ख) हरा"),
        ("・猫\n・犬", "・猫\n・牛"),
        ("✅ cat\n❌ dog", "✅ cat\n❌ cow"),
        ("Choose one: cat, dog", "Choose one: cat, cow"),
        ("Opcje: kot, pies", "Opcje: kot, krowa"),
        ("Opties: kat, hond", "Opties: kat, koe"),
        ("Alternativ: katt, hund", "Alternativ: katt, ko"),
        ("Seçenekler: kedi, köpek", "Seçenekler: kedi, inek"),
        ("الخيارات: قط، كلب", "الخيارات: قط، بقرة"),
        ("विकल्प: बिल्ली, कुत्ता", "विकल्प: बिल्ली, गाय"),
        ("Lựa chọn: mèo, chó", "Lựa chọn: mèo, bò"),
        ("Pilihan: kucing, anjing", "Pilihan: kucing, sapi"),
        ("ตัวเลือก: แมว หมา", "ตัวเลือก: แมว วัว"),
    ],
)
def test_a_change_of_an_option_in_more_spellings_is_noticed(prompt, rewrite):
    """Regression: a hyphen at a label, letters of Hindi, ・ and emoji marked no option, and what
    announces options was known in eight languages only."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("in the 19- and 20-year range", "In the 19- and 20-year range, who won?"),
        ("a- and b-side", "What are an a- and b-side?"),
        ("there are alternatives to it", "Which alternatives to it are there?"),
    ],
)
def test_a_hyphen_or_a_word_alone_makes_no_option(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()


@pytest.mark.parametrize("shape", ["Options:\n", "Options: "])
def test_options_announced_again_and_again_take_no_long_time(shape):
    """Regression: each of them was read to the end of its paragraph. 60,000 characters took 0.8 s,
    twice as many four times as long."""
    text = shape * (600_000 // len(shape))
    begun = time.process_time()
    found = list(announced_options(text))
    assert time.process_time() - begun < 5
    assert found == [(len("Options:"), len(text.rstrip("\n")) + ("\n" in shape))]

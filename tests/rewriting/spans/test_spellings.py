"""Spellings in which users write: what a rewrite may change of them, and what not.

Each pair was judged wrongly once. They stand for their kinds: the case of letters, signs at a
number, numerals and counters of many languages, calls within calls, code without a fence.
"""

from __future__ import annotations

import pytest

from alignpro_lite.rewriting.spans import protect


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("three rules for life", "Three rules for life: explain them."),
        ("Three rules for life", "Name three rules for life."),
        ("nenne drei Flüsse", "Drei Flüsse: bitte nennen."),
        ("пять рек", "Пять рек России: назовите."),
        ("schreib 3 sätze", "Schreibe 3 Sätze."),
        ("10 minuten workout", "Ein Workout von 10 Minuten"),
        ("50 euro geschenk", "Ein Geschenk für 50 Euro"),
        ("convert 5 usd to eur", "Convert 5 USD to EUR."),
        ("march 5 what happened", "What happened on March 5?"),
        ("flights in march 2025", "What flights are there in March 2025?"),
        ("true or false? cats fly", "True or false? Cats fly."),
        ("5和6的和是多少", "请计算5与6的和。"),
        ("3和5哪个大", "比较3与5，哪个更大？"),
        ("我今年25想换工作", "我今年25，想换工作，应该怎么做？"),
        ("3と5の和", "3たす5はいくつ？"),
        ("아이폰15 가격", "아이폰15의 가격은?"),
        ("十分感谢您", "非常感谢您"),
        ("千万不要说", "不要说"),
        ("万一下雨怎么办", "如果下雨怎么办"),
        ("give me 5 SQL questions", "Give me 5 questions about SQL."),
        ("top 10 NBA players", "Who are the top 10 players of the NBA?"),
        ("give me 5 tv shows", "Give me 5 good TV shows."),
        ("what is Python 3.11's best feature", "What is the best feature of Python 3.11?"),
        ("who was Henry VIII's wife", "Who was the wife of Henry VIII?"),
        ("options: red, blue", "Choose one of the options: red, blue"),
        ("hello,\nwhat is dna,\nthanks", "What is DNA?"),
        ("whats iphone 15's price", "What is the price of the iPhone 15?"),
        ("5 prozent von 80", "Was sind 5 Prozent von 80?"),
        ("Which is it?\nA) New\nB) Old", "Which is it?\nA) New\nB) Old\n\nExplain."),
        ("why is the sky blue?", "why is the sky blue? Explain it."),
    ],
)
def test_what_says_the_same_is_kept(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Give the child .5 mg twice", "Give the child 5 mg twice"),
        ("Set the learning rate to .01", "Set the learning rate to 01"),
        ("Patients with BMI >30 and age <65", "Patients with BMI <30 and age <65"),
        (
            "Filter rows where age <18 and income >50000",
            "Filter rows where age >18 and income >50000",
        ),
        ("Is p <.05 significant", "Is p >.05 significant"),
        ("Use a font of >=12 pt", "Use a font of <=12 pt"),
        ("请推荐五部科幻电影", "请推荐十部科幻电影"),
        ("写三首诗", "写四首诗"),
        ("出五道题", "出六道题"),
        ("五米长", "六米长"),
        ("三乘五", "四乘五"),
        ("三到五天", "四到五天"),
        ("第三", "第二"),
        ("おすすめの曲を五曲教えて", "おすすめの曲を十曲教えて"),
        ("ふたつ例を", "みっつ例を"),
        ("冷蔵庫の卵を三分の一使う", "冷蔵庫の卵を三分の二使う"),
        ("明天下午3点半开会", "明天下午3点开会"),
        ("负5度", "5度"),
        ("マイナス5度", "プラス5度"),
        ("增长５０％", "增长５０"),
        ("anderthalb Tassen", "zweieinhalb Tassen"),
        ("dreimal täglich", "zweimal täglich"),
        ("elf Spieler", "zwölf Spieler"),
        ("Music of the nineties", "Music of the eighties"),
        ("une dizaine d'euros", "une centaine d'euros"),
        ("XVIIIe siècle", "XIXe siècle"),
        ("четыреста слов", "шестьсот слов"),
        ("Сколько налогов с 3 млн рублей?", "Сколько налогов с 3 тыс. рублей?"),
        ("خمسمائة كلمة", "ثلاثمائة كلمة"),
        ("6 أكتوبر 1973", "6 نوفمبر 1973"),
        ("15 अगस्त", "15 जनवरी"),
        ("पैंतालीस मिनट", "पैंतीस मिनट"),
        ("quinhentas palavras", "duzentas palavras"),
        ("honderd woorden", "tweehonderd woorden"),
        ("첫 번째", "두 번째"),
        ("Fix f(g(x), y) please", "Fix f(g(x), z) please"),
        ("Explain print(f(x), end)", "Explain print(f(x), sep)"),
        ("Fix: f(\n a,\n b)", "Fix: f(\n a,\n c)"),
        (
            "Optimise this:\nselect name from users\nwhere name = 'x'\norder by id",
            "Optimise this:\nselect name from users\nwhere name = 'x'\norder by name",
        ),
        (
            "What does this do?\n\ngit push origin main",
            "What does this do?\n\ngit push origin master",
        ),
        ("Why?\npip install numpy", "Why?\npip install pandas"),
        ("Fix\n\nif x:\n  y\nelse:\n  z", "Fix\n\nif x:\n  y\nelse:\n  w"),
        ("5 times a day", "5 times a week"),
        ("Which is it?\nA) New\nB) Old", "Which is it?\nA) New\nB) Old Town"),
        ("true or false? cats fly", "Yes or no? Cats fly"),
        ("5 MW plant", "5 mW plant"),
        ("10 mPa", "10 MPa"),
        ("пятьсот слов", "шестьсот слов"),
    ],
)
def test_what_says_something_else_is_not(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite)
    assert protect(prompt).broken_by(prompt) == ()

"""Kinds of prompts, by prompts of every kind and of several languages."""

from __future__ import annotations

import pytest

from alignpro_lite.measure.kinds import PROMPT_KINDS, kind_of_prompt

PROMPTS = {
    "short answer": (
        "Reply with only the word YES.",
        "Who wrote the novel Middlemarch?",
        "Is a tomato a fruit?",
        "What is the capital of Kenya?",
        "In which year did the Berlin Wall fall?",
        "Which planet has the most moons?\n(A) Mars (B) Saturn (C) Venus",
        "Is glass a liquid? Answer yes or no.",
        "Name the largest ocean in one word.",
        "Antworte nur mit dem Namen: Wer malte die Mona Lisa?",
        "¿Cuál es la capital de Perú?",
        "Qui a peint Guernica ?",
        "Кто написал «Анну Каренину»?",
        "日本の首都はどこですか？",
        "法国的首都是哪个城市？",
    ),
    "extraction": (
        "Extract all dates from this letter: We met on 3 May and again on 9 June.",
        "Classify the review as positive or negative: The soup was cold.",
        "Translate into French: The shop is closed today.",
        "Summarize the article below in two sentences.\nThe council met on Monday and agreed.",
        "Correct the grammar of this sentence: He go to school.",
        "Which of these are birds: sparrow, trout, eagle?",
        "What is the boiling point of the metal?\n"
        + "The metal was found long ago in a cave. " * 5,
        "Übersetze ins Englische: Der Zug hat Verspätung.",
        "Traduis en anglais : il fait beau.",
        "Переведи на английский: сегодня идёт дождь.",
        "请把这句话翻译成英文：今天下雨。",
    ),
    "code": (
        "Write a Python function that reverses a string.",
        "How do I join two tables in SQL?",
        "What does this print?\n```\nprint(1)\n```",
        "def f(x):\n    return x + 1\nimport os\nWhat is wrong here?",
        "Write a script that renames all files in a folder.",
        "My C++ program crashes when I free the pointer twice.",
        "Schreibe ein Skript in Bash, das Dateien zählt.",
        "编写一个函数来反转字符串。",
    ),
    "maths": (
        "What is 15% of 80?",
        "Solve this equation: 3x + 4 = 19",
        "A train goes 180 km in 2 hours. How fast is it?",
        "Anna has three apples and buys twice as many. How many does she have now?",
        "Calculate the area of a circle with radius 4.",
        "What is the derivative of x^2?",
        "17 * 23 = ?",
        "Ein Buch kostet 12 Euro. Wie viel kosten 5 Bücher?",
        "Juan tiene 3 manzanas y compra 4. ¿Cuántas tiene?",
        "小明有3个苹果，又买了4个，现在有多少个？",
    ),
    "open": (
        "How do I keep houseplants alive while I travel for three weeks?",
        "Write a short story about a lighthouse keeper.",
        "Give me ideas for a birthday party.",
        "Explain why the moon changes its shape.",
        "Why do cats purr?",
        "Can you write me an article about bees?",
        "Wie koche ich Reis?",
        "Escribe un poema sobre el mar.",
        "Write a letter to my landlord of at least 300 words.",
        "",
    ),
}


@pytest.mark.parametrize(
    ("kind", "prompt"), [(kind, prompt) for kind, prompts in PROMPTS.items() for prompt in prompts]
)
def test_a_prompt_has_the_kind_that_people_would_give_it(kind, prompt):
    assert kind_of_prompt(prompt) == kind


def test_every_kind_has_a_prompt():
    assert tuple(PROMPTS) == PROMPT_KINDS


def test_a_word_in_the_middle_of_a_long_text_is_no_order():
    letter = "The weather has been fine all week. " * 20
    assert kind_of_prompt(f"Write on. {letter} They translate books. {letter} Write on.") == "open"

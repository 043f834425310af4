"""Which kind of answer a prompt wants, by a few rules that anybody can read and check.

A mean over all prompts hides that a hint may help an essay and harm a yes-or-no question. The rules
look at words and signs alone. They know English, and the plainest words of ten other languages;
whatever no rule knows is open. A data set that knows better names the kind of each prompt itself.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from alignpro_lite.measure.text import split_words

PromptKind: TypeAlias = Literal["short answer", "extraction", "code", "maths", "open"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
"""In the order in which reports list them."""

_SHORT_QUESTION = 14
"""The most words of a question that asks for a single fact."""
_OWN_TEXT = 25
"""Words below a question that make it a question about a text which the prompt gives."""
_LONGEST_STORY = 200
"""Words of a problem told in words; in longer texts there are numbers by accident."""
_CODE_LINES = 2
"""Lines that look like code and are no accident."""
_END = 240
"""Characters at each end of a prompt in which it says what to do; its middle may be any text."""


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_CODE = _any(
    r"```\w*\n[\s\S]+?```",
    r"\bselect\b[^.?!]{1,80}\bfrom\b[^.?!]{1,80}(?:;|\bwhere\b|\bjoin\b)",
    r"\b(?:python|javascript|typescript|java|kotlin|golang|php|matlab|sql|html|css|bash|fortran)\b",
    r"\b(?:regex|regular expression|unit tests?|source code|code snippet|pseudo-?code|dataframe)\b",
    r"(?<!\w)(?:c\+\+|c#|node\.js|\.net)(?!\w)",
    r"\b(?:write|implement|create|fix|debug|refactor|optimi[sz]e|run|make|give|generate|build)\b"
    r"[^.?!\n]{0,60}\b(?:code|function|script|algorithm|program(?:me)?s?|query|api|class method)\b",
    r"\b(?:compile[rs]?|stack ?trace|syntax error|null ?pointer|segfault|debug(?:ging)?)\b",
    r"\b(?:quellcode|código|codice|programmcode|skript)\b|编写.{0,12}(?:函数|程序|代码)|代码|コード|코드",
    r"напиши\w* (?:код|функцию|скрипт|программу)",
)
_CODE_LINE = re.compile(
    r"^\s*(?:(?:def|class) \w+.*:|import [\w.]+|from [\w.]+ import .*|#include\b.*|.*[;{}])\s*$",
    re.MULTILINE,
)
_OPTIONS = re.compile(r"(?:^|\s)\(?a[).:]\s.*?\s\(?b[).:]\s", re.IGNORECASE | re.DOTALL)
_ASKED_SHORT = _any(
    r"\b(?:answer|reply|respond|output|return|say|write|give)\b[^.?!\n]{0,20}\b(?:only|just) "
    r"(?:with |using )?(?:the |a |an |one |its |their |your )?[\"“'‘]?(?:answer|word|number|letter|"
    r"name|result|label|date|year|translation|yes|no|true|ok|[A-D]\b)",
    r"\b(?:only|just) the (?:final )?(?:answer|word|number|letter|name|result|label|date|year)\b",
    r"\b(?:in|with|using|use) (?:exactly )?(?:one|a single|1|two|three) words?\b",
    r"\byes or no\b|\byes/no\b|\btrue or false\b|\btrue/false\b",
    r"\b(?:one|single)-word answer\b|\bno (?:explanation|other (?:text|words))\b",
    r"\bwithout (?:any )?(?:explanation|explaining|other (?:text|words))\b",
    r"\bja oder nein\b|\bs[ií] o no\b|\boui ou non\b|\bsì o no\b|\bsim ou não\b|\bда или нет\b",
    r"\b(?:antworte|gib|schreibe?|nenne)\b[^.?!\n]{0,40}\bnur\b|\bmit einem wort\b",
    r"\b(?:responde|escribe|contesta|da)\b[^.?!\n]{0,40}\b(?:s[oó]lo|solamente)\b",
    r"\ben una palabra\b",
    r"\b(?:répond\w*|donne|écri\w*)\b[^.?!\n]{0,40}\b(?:uniquement|seulement|que)\b|\ben un mot\b",
    r"\b(?:rispondi|scrivi)\b[^.?!\n]{0,40}\bsolo\b|\b(?:responda|escreva)\b[^.?!\n]{0,40}\bapenas\b",
    r"\bтолько\b[^.?!\n]{0,30}\b(?:слов|числ|букв|ответ|имя)\w*|\bодним словом\b",
    r"(?:只|仅)(?:需|要|用|输出|回答|写)|一个词|はい(?:か|または)いいえ|一言で|一単語|한 단어로",
)
_MATHS = _any(
    r"\d\s*[+*/×÷^]\s*\(?-?[\d.]",
    r"\d\s*[-−=]\s*\(?-?[\d.]+\s*(?:=|\?|$)",
    r"\b[a-z]\s*(?:\^\s*\d|[²³])|\b\d*[xyz]\s*[-+=]\s*\d|\bf\(x\)",
    r"\\(?:frac|sqrt|int|sum|begin\{)",
    r"\b(?:calculate|compute|solve for|simplify|factori[sz]e|differentiate|integrate|evaluate)\b"
    r"[^?!\n]{0,80}[\d=]",
    r"\b(?:integral|derivative|square root|logarithm|equation|prime (?:number|factor)s?|polynomial|"
    r"hypotenuse|probability|quadratic)\b[^?!\n]{0,80}\b(?:of|for|that|is)\b",
    r"\bwhat is (?:the )?\d[\d.,]*\s*(?:%|percent|times|plus|minus|divided|squared)",
    r"\b(?:berechne|calcule?z?|calcola|вычисли|рассчитай)\w*\b[^?!\n]{0,80}\d|计算|計算し|계산",
)
_AMOUNT_ASKED = _any(
    r"\bhow (?:many|much|long|far|old|fast|often|tall|high|big|large|heavy|few)\b",
    r"\bwhat(?:'s|’s| is| was| are| were| will be| would be)[^.?!]{0,60}\b(?:total|average|sum|"
    r"cost|price|profit|percent(?:age)?|difference|number|amount|area|volume|speed|age|ratio|fraction|"
    r"rate|chance|salary|weight|length|distance|pension|change|maximum|minimum|result)\b",
    r"\bwhat (?:percentage|fraction|number)\b|\b(?:calculate|determine|find) (?:the|how)\b",
    r"\bwie ?(?:viele?|lange|alt|weit|schnell|hoch)\b|\bcu[aá]nt[oa]s?\b|\bcombien\b",
    r"\bquant[aeio]\b",
    r"\bсколько\b|多少|几个|いくつ|いくら|何(?:個|人|枚|円|本)|몇|얼마",
)
_NUMBER_SIGN = re.compile(r"\d+(?:[.,/]\d+)*")
_NUMBER_WORD = _any(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|"
    r"fifty|sixty|hundred|thousand|half|twice|third|quarter|double|triple)\b"
)
_EXTRACTION = _any(
    r"\b(?:extract|classify|categori[sz]e|paraphrase|proofread|summari[sz]e|translate|tag)\b",
    r"\bsum up\b|\bsummary of (?:the|this) (?:text|article|passage|paragraph|email|story|review)\b",
    r"\b(?:which|out) of (?:these|the following)\b|\bwhether (?:each|these|the following)\b",
    r"\b(?:from|in|of|to) the (?:following|above|given|passage|paragraph|text|sentence|article|"
    r"email|review|table|reference text)\b",
    r"\b(?:according to|based on|using|given|read) (?:the|this|these)(?: (?:following|above|given|"
    r"reference|provided))? (?:text|passage|paragraph|article|sentences?|table|data|email|"
    r"review)\b",
    r"\b(?:identify|find|list|pick out|name|select|underline|highlight)\b[^.?!\n]{0,60}"
    r"\b(?:in|from) (?:the|this|these) (?:\w+ )?(?:text|sentences?|passage|paragraph|article|"
    r"list)\b",
    r"\b(?:correct|fix|rewrite|rephrase|edit|reword)\b[^.?!\n]{0,60}"
    r"\b(?:sentence|text|paragraph|passage|grammar|spelling|email)s?\b",
    r"\b(?:übersetze?|extrahiere|klassifiziere|fasse)\b|\b(?:traduce|traduc[ei]r|resume|extrae|"
    r"clasifica)\b|\b(?:tradui[st]\w*|résum\w+|extrai\w*)\b|\b(?:traduci|riassumi|estrai)\b",
    r"\b(?:traduza|resuma|extraia)\b|\b(?:переведи|извлеки|перескажи|классифицируй)\w*\b",
    r"翻译|译成|总结|概括|提取|翻訳|訳して|要約|抽出|번역|요약|추출",
)
_FACT_ASKED = _any(
    r"^\W*(?:who|whose|when|where|which|is|are|was|were|does|did|has|have|will|do(?! you)|"
    r"can(?! (?:you|we|i)))\b[^?!.]*\?",
    r"^\W*(?:in|on|at|by|from|to) (?:which|what|whom)\b[^?!.]*\?",
    r"^\W*what(?:'s| is| was| are| were)? (?:the )?(?:name|capital|year|date|colou?r|day|time|"
    r"population|currency|symbol|distance|number|chemical|opposite|plural|language|title)\b[^?!.]*\?",
    r"^\W*how (?:many|old|tall|far|deep|high|much)\b[^?!.]*\?",
    r"^\W*(?:wer|wann|wo|welche[rsnm]?|wie ?viele?|wie hoch|wie alt)\b[^?!.]*\?",
    r"^\W*(?:quién|cuándo|dónde|cuál|cuánt[oa]s?|qui|quand|où|quelle?s?|combien|chi|quando|dove|"
    r"qual[ei]?|quem|onde)\b[^?!.]*\?",
    r"^\W*(?:кто|когда|где|сколько|како[йве]|какая)\b[^?!.]*\?",
    r"(?:谁|哪(?:里|年|个|一)|什么时候|多少).*[?？]|(?:誰|いつ|どこ|いくつ|どれ).*[?？]|(?:누가|언제|어디|몇).*[?？]",
)


def kind_of_prompt(prompt: str) -> PromptKind:
    """The kind of answer that a prompt wants; the first rule that fits decides.

    1. **code**: code, a programming language, or something that only a program is asked for.
    2. **short answer**: the prompt says that a word, number, letter or yes or no is enough, or
       gives options to choose from.
    3. **extraction**: the answer lies in a text that the prompt gives, or is another form of it:
       extract, classify, translate, correct, sum up, or a question above a paragraph.
    4. **maths**: a formula, a calculation, or at least two numbers and a question for an amount.
    5. **short answer**, again: a question of at most 14 words for a single fact, such as who, when,
       which, or is it.
    6. **open**: everything else.

    Args:
        prompt: x, in any language.
    """
    text = prompt.strip()
    if _CODE.search(text) or len(_CODE_LINE.findall(text)) >= _CODE_LINES:
        return "code"
    if _ASKED_SHORT.search(text) or _OPTIONS.search(text):
        return "short answer"
    if _EXTRACTION.search(_ends(text)) or _asks_above_text(text):
        return "extraction"
    if _is_maths(text):
        return "maths"
    if len(split_words(text)) <= _SHORT_QUESTION and _FACT_ASKED.search(text):
        return "short answer"
    return "open"


def _is_maths(text: str) -> bool:
    if _MATHS.search(text):
        return True
    numbers = len(_NUMBER_SIGN.findall(text)) + len(_NUMBER_WORD.findall(text))
    is_story = numbers >= 2 and len(split_words(text)) <= _LONGEST_STORY
    return is_story and bool(_AMOUNT_ASKED.search(text))


def _ends(text: str) -> str:
    return text if len(text) <= 2 * _END else f"{text[:_END]}\n{text[-_END:]}"


def _asks_above_text(text: str) -> bool:
    """Whether the first line is a question and a text for it follows."""
    question, _, below = text.partition("\n")
    return question.rstrip().endswith(("?", "？")) and len(split_words(below)) >= _OWN_TEXT

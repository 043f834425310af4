"""What a reward does not see: length, faithfulness, diversity and repetition of texts.

Simple on purpose: words are neither stemmed nor matched with synonyms, so the shares are lower
bounds of what was kept. Compare them between arms and over time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from alignpro_lite.errors import InputError

REPEAT_LENGTH = 4
"""Words in each run that `repeated_share` counts."""

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff"
"""Kana and Han, written without spaces: each character counts as a word."""
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+(?:['\u2019][^\W{_IDEOGRAPH}]+)*")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_CODE = re.compile(r"```[^\n`]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
# Words that limit what is asked (no, not, without, only, all, every) are content.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an the this that these those some any and or but nor so if then than as of in on at by "
        "to for from with about into over under between through up down out i me my mine we us our "
        "you your he him his she her it its they them their who whom whose which what when where "
        "why how is am are was were be been being do does did done have has had having can could "
        "may might must shall should will would there here also just very too more most such other "
        "please"
    )
)


@dataclass(frozen=True)
class KeptShares:
    """Shares of the contents of a prompt that a rewrite keeps, 0 to 1; None if it has none.

    Attributes:
        words: Of its different content words, in any case.
        numbers: Of its different numbers, as written.
        code: Of its different code spans, word for word.
    """

    words: float | None
    numbers: float | None
    code: float | None


@dataclass(frozen=True)
class RewriteText:
    """What a set of rewrites did to their prompts; means over rewrites.

    Attributes:
        words: Words of a rewrite.
        characters: Characters of a rewrite.
        growth: Words of all rewrites divided by words of all prompts.
        similarity: See `word_similarity`.
        kept: Means of `kept_shares` over the rewrites whose prompt has such contents.
        unchanged: Share of rewrites that do not change the prompt.
        distinct_additions: `distinct_share` of what the rewrites add to their prompts; of whole
            rewrites where they do not begin with their prompts.
        repeated: See `repeated_share`.
    """

    words: float
    characters: float
    growth: float
    similarity: float
    kept: KeptShares
    unchanged: float
    distinct_additions: float
    repeated: float


@dataclass(frozen=True)
class AnswerText:
    """What a set of answers is like; means over answers.

    Attributes:
        words: Words of an answer.
        characters: Characters of an answer.
        empty: Share of answers without a word.
        repeated: See `repeated_share`.
    """

    words: float
    characters: float
    empty: float
    repeated: float


def describe_rewrites(prompts: Sequence[str], rewrites: Sequence[str]) -> RewriteText:
    """Describe what rewrites did to their prompts.

    Args:
        prompts: x of each rewrite.
        rewrites: x', in the same order.

    Raises:
        InputError: There is no rewrite, or not as many as prompts.
    """
    if len(prompts) != len(rewrites):
        raise InputError(
            f"Expected a rewrite for each prompt, found {len(prompts)} prompts and {len(rewrites)} "
            "rewrites.",
            "Repeat a prompt once for each of its rewrites.",
        )
    _require_some(rewrites, "rewrite")
    pairs = list(zip(prompts, rewrites, strict=True))
    all_kept = [kept_shares(prompt, rewrite) for prompt, rewrite in pairs]
    prompt_words = sum(len(split_words(prompt)) for prompt in prompts)
    rewrite_words = [len(split_words(rewrite)) for rewrite in rewrites]
    return RewriteText(
        words=fmean(rewrite_words),
        characters=fmean(map(len, rewrites)),
        growth=sum(rewrite_words) / max(prompt_words, 1),
        similarity=fmean(word_similarity(prompt, rewrite) for prompt, rewrite in pairs),
        kept=KeptShares(
            words=_mean_of_known([kept.words for kept in all_kept]),
            numbers=_mean_of_known([kept.numbers for kept in all_kept]),
            code=_mean_of_known([kept.code for kept in all_kept]),
        ),
        unchanged=fmean(is_unchanged(prompt, rewrite) for prompt, rewrite in pairs),
        distinct_additions=distinct_share(
            [rewrite.removeprefix(prompt.rstrip()) for prompt, rewrite in pairs]
        ),
        repeated=fmean(map(repeated_share, rewrites)),
    )


def describe_answers(answers: Sequence[str]) -> AnswerText:
    """Describe a set of answers.

    Raises:
        InputError: There is no answer.
    """
    _require_some(answers, "answer")
    counts = [len(split_words(answer)) for answer in answers]
    return AnswerText(
        words=fmean(counts),
        characters=fmean(map(len, answers)),
        empty=fmean(count == 0 for count in counts),
        repeated=fmean(map(repeated_share, answers)),
    )


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; numbers are words too."""
    return _WORD.findall(text.lower())


def word_similarity(prompt: str, rewrite: str) -> float:
    """Share of words that two texts have in common in the same order, 0 to 1.

    Twice the words in matching blocks over the words of both (Ratcliff and Obershelp, as in
    `difflib`); two texts without words are alike.
    """
    return difflib.SequenceMatcher(
        None, split_words(prompt), split_words(rewrite), autojunk=False
    ).ratio()


def kept_shares(prompt: str, rewrite: str) -> KeptShares:
    """How much of the words, numbers and code of a prompt its rewrite keeps."""
    code = _code_spans(prompt)
    return KeptShares(
        words=_share(_content_words(prompt), _content_words(rewrite)),
        numbers=_share(set(_NUMBER.findall(prompt)), set(_NUMBER.findall(rewrite))),
        # A rewrite may keep code without its backticks, so its whole text is searched.
        code=_share(code, {span for span in code if span in rewrite}),
    )


def is_unchanged(prompt: str, rewrite: str) -> bool:
    """Whether a rewrite is its prompt, except for white space."""
    return prompt.split() == rewrite.split()


def distinct_share(texts: Sequence[str]) -> float:
    """Different texts over all texts; case and punctuation make no difference.

    1 if no two texts are the same; 1 / len(texts) if a prompter always writes the same.

    Raises:
        InputError: There is no text.
    """
    _require_some(texts, "text")
    return len({tuple(split_words(text)) for text in texts}) / len(texts)


def repeated_share(text: str, length: int = REPEAT_LENGTH) -> float:
    """Share of runs of words that occurred earlier in the same text (seq-rep-n, Welleck 2019).

    Args:
        text: Any text.
        length: Words in a run.

    Returns:
        0 (nothing is repeated, or the text is shorter than a run) to almost 1 (a loop).
    """
    words = split_words(text)
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _content_words(text: str) -> set[str]:
    return {
        word for word in split_words(text) if word not in _FUNCTION_WORDS and not word.isdecimal()
    }


def _code_spans(text: str) -> set[str]:
    spans = (fenced or inline for fenced, inline in _CODE.findall(text))
    return {span.strip() for span in spans if span.strip()}


def _share(wanted: set[str], found: set[str]) -> float | None:
    return len(wanted & found) / len(wanted) if wanted else None


def _mean_of_known(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


def _require_some(texts: Sequence[str], name: str) -> None:
    if not texts:
        raise InputError(f"Expected at least one {name}, found none.", f"Give at least one {name}.")

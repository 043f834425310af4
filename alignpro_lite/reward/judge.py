"""A GGUF model as a judge of two answers: which does what the prompt asks, read in both orders.

One definition for everything that compares: the reward, the pair judge of an evaluation, and the
labels that a small reward model is distilled from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import ContextOverflowError, InputError, RewardError
from alignpro_lite.target.choices import Chooser

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_MASS = 0.5
"""A judge that begins its reply with an allowed one less often than this would say something else;
its preference between the allowed replies then means nothing."""
SHARPNESS = 10.0
"""What the log-odds of the letters count. Small chat models are far less sure of a letter than they
are right once both orders are summed; with about 10, the 1.5B model's log-loss was least. A model
that is sure by nats then simply decides, as a win rate counts."""
_LEAST_SHOWN = 200
"""Characters of an answer below which a judge that has no room for more is not asked."""
_CUT = " [...]"
_HEADING = re.compile(r"^\[[^\[\]\n]+\]$", re.MULTILINE)


@dataclass(frozen=True)
class Rubric:
    """What the judge is asked.

    Attributes:
        question: `{prompt}`, `{first}` and `{second}` stand for what is judged. A line in square
            brackets is a heading: no text that is judged can write one of its own.
        first: The reply that prefers the first answer.
        second: The reply that prefers the second one.
    """

    question: str
    first: str
    second: str

    def __post_init__(self) -> None:
        """Refuse a question that leaves out what is judged.

        Raises:
            InputError: Names the placeholder.
        """
        for place in ("{prompt}", "{first}", "{second}"):
            if place not in self.question:
                raise InputError(
                    f"The question of a rubric must hold {place}, found none.",
                    f"Put {place} where it belongs.",
                )


INSTRUCTED = Rubric(
    question=(
        "Here is an instruction and two answers to it.\n\n[Instruction]\n{prompt}\n\n[Answer A]\n"
        "{first}\n\n[Answer B]\n{second}\n\nWhich answer does better what the instruction asks? "
        "Reply with A or B."
    ),
    first="A",
    second="B",
)


class Tie(StrEnum):
    """Why a judge prefers neither answer."""

    EQUAL = "the answers are the same text"
    TOO_LONG = "the judge's context has no room for the answers"
    NONSENSE = "the judge rather replies something else"
    UNSCORED = "an answer has no score"


@dataclass(frozen=True)
class Verdict:
    """How a judge compares two answers.

    Attributes:
        margin: Log-odds that the first answer is the better one, in nats: those of its letter, mean
            of both orders, times SHARPNESS. What the judge thinks of a letter adds to one order
            what it takes from the other. 0 for a tie.
        mass: Probability that a reply begins with one of the two allowed replies, the smaller one
            of both orders; None if the judge was not asked, or could not be.
        same_letter: Whether it named the same letter in both orders; None likewise.
        tie: Why it is a tie; None if it is not.
    """

    margin: float
    mass: float | None
    same_letter: bool | None
    tie: Tie | None

    @property
    def preference(self) -> Literal[1, 0, -1]:
        """1 for the first answer, -1 for the other one, 0 for neither."""
        return 1 if self.margin > 0 else -1 if self.margin < 0 else 0


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to the original prompt."""

    prompt: str
    answer: str
    other: str

    @property
    def swapped(self) -> AnswerPair:
        """The same answers in the other order."""
        return AnswerPair(self.prompt, self.other, self.answer)

    def shortened(self, length: int) -> AnswerPair:
        """Both answers cut at the same number of characters."""
        cut = (
            text if len(text) <= length else text[:length] + _CUT
            for text in (self.answer, self.other)
        )
        return AnswerPair(self.prompt, *cut)


class PairJudge:
    """A chat model that is shown two answers, in both orders.

    Attributes:
        name: What errors and reports call it.
    """

    def __init__(
        self,
        model: Chooser,
        name: str = "judge",
        rubric: Rubric = INSTRUCTED,
        *,
        is_shared: bool = False,
    ) -> None:
        """Take over a loaded model.

        Args:
            model: Any chat model, loaded for at least two sequences.
            name: What to call the judge.
            rubric: What it is asked.
            is_shared: Whether the model stays open when the judge is closed, for its owner.
        """
        self.name = name
        self._model = model
        self._rubric = rubric
        self._is_shared = is_shared

    def verdict(self, prompt: str, answer: str, other: str) -> Verdict:
        """Compare two answers; see `verdicts`."""
        (found,) = self.verdicts([AnswerPair(prompt, answer, other)])
        return found

    def verdicts(
        self, pairs: Sequence[AnswerPair], cancellation: Cancellation | None = None
    ) -> list[Verdict]:
        """Which of two answers the judge prefers, for each pair; all are read together.

        Answers that do not fit its context are cut, both at the same length. Equal answers are a
        tie that nobody is asked about. The margins of pairs that a cancellation kept it from
        reading are NaN.

        Raises:
            InputError: The replies of the rubric begin alike.
            DeviceError: The model failed.
        """
        shown = [self._fitted(pair) for pair in pairs]
        asked = [pair for pair in shown if isinstance(pair, AnswerPair)]
        questions = [self._asking(each) for pair in asked for each in (pair, pair.swapped)]
        replies = [self._rubric.first, self._rubric.second]
        found = np.empty(0)
        if questions:
            found = self._model.choice_log_probs(questions, replies, cancellation)
        heard = iter(found.reshape(-1, 2, 2))
        return [
            Verdict(0.0, None, None, pair) if isinstance(pair, Tie) else _verdict(*next(heard))
            for pair in shown
        ]

    def close(self) -> None:
        """Close the model, unless it is shared."""
        if not self._is_shared:
            self._model.close()

    def _fitted(self, pair: AnswerPair) -> AnswerPair | Tie:
        """What is shown of two answers, as long as the context allows."""
        if pair.answer.strip() == pair.other.strip():
            return Tie.EQUAL
        if self._fits(pair):
            return pair
        fitting, beyond = _LEAST_SHOWN, max(len(pair.answer), len(pair.other))
        if not self._fits(pair.shortened(fitting)):
            return Tie.TOO_LONG
        while beyond - fitting > len(_CUT):
            middle = (fitting + beyond) // 2
            if self._fits(pair.shortened(middle)):
                fitting = middle
            else:
                beyond = middle
        return pair.shortened(fitting)

    def _fits(self, pair: AnswerPair) -> bool:
        try:
            for each in (pair, pair.swapped):
                self._model.require_choice_room(
                    self._asking(each), [self._rubric.first, self._rubric.second]
                )
        except ContextOverflowError:
            return False
        return True

    def _asking(self, pair: AnswerPair) -> list[Message]:
        texts = {
            "prompt": pair.prompt,
            "first": pair.answer.strip() or "(empty)",
            "second": pair.other.strip() or "(empty)",
        }
        return [Message("user", fill(own_headings(self._rubric.question, texts), texts))]


def _verdict(there: NDArray[np.float64], back: NDArray[np.float64]) -> Verdict:
    """What both orders say: log-probabilities of the two letters, shape (2,) each."""
    mass = float(min(np.exp(there).sum(), np.exp(back).sum()))
    if mass < LEAST_MASS:
        return Verdict(0.0, mass, None, Tie.NONSENSE)
    first, second = float(there[0] - there[1]), float(back[0] - back[1])
    margin = SHARPNESS * (first - second) / 2
    return Verdict(margin, mass, (first > 0) == (second > 0), None)


def require_sense(name: str, verdicts: Sequence[Verdict], at_least: int) -> None:
    """Refuse a judge that does not judge.

    Args:
        name: Its name.
        verdicts: What it said so far.
        at_least: Replies before which nothing is refused.

    Raises:
        RewardError: More than half of its replies are nonsense.
    """
    masses = [verdict.mass for verdict in verdicts if verdict.mass is not None]
    nonsense = sum(verdict.tie is Tie.NONSENSE for verdict in verdicts)
    if len(masses) >= at_least and 2 * nonsense > len(masses):
        raise RewardError(
            f"The judge {name} must reply with one of the two words that it is asked for, but on "
            f"{nonsense} of {len(masses)} pairs prefers to say something else: those words have a "
            f"median probability of {median(masses):.2g}.",
            "Choose an instruction-tuned chat model that replies without thinking aloud first.",
        )


def own_headings(template: str, values: Mapping[str, str]) -> str:
    """A template with more brackets around its headings, until no value contains one of them."""
    headings = [heading.casefold() for heading in _HEADING.findall(template)]
    texts = [value.casefold() for value in values.values()]
    more = next(
        more
        for more in count()
        if not any(
            "[" * more + heading + "]" * more in text for heading in headings for text in texts
        )
    )
    return _HEADING.sub(lambda found: "[" * more + found[0] + "]" * more, template)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace every `{name}` at once: a value that contains `{name}` stays as it is."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda found: values[found[0][1:-1]], template)

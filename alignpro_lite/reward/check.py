"""Checks as a reward: 1 for a right answer, 0 for a wrong one, or the share of what is right.

An answer is compared with the reference of its prompt, and nothing has to be learned for that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.reward.exchange import CheckName, Exchange, References, TaskReference

if TYPE_CHECKING:
    from numpy.typing import NDArray

CheckSource: TypeAlias = CheckName | Literal["task"]
"""A check, or `task` for the one that the data of each prompt name."""
CHECK_SOURCES: tuple[CheckSource, ...] = ("task", *get_args(CheckName))


class AnswerCheck(Protocol):
    """One way to tell right answers from wrong ones."""

    def require(self, reference: str) -> None:
        """Refuse a reference that nothing can be compared with.

        Raises:
            InputError: Says what is expected.
        """

    def score(self, prompt: str, answer: str, reference: str) -> float:
        """From 0 for an answer that is wrong, or empty, to 1 for one that is right.

        Args:
            prompt: x.
            answer: y.
            reference: One that `require` lets pass.

        Raises:
            RewardError: The check itself failed.
        """


class ExactCheck:
    """The answer is the reference: letter by letter, but for case, spaces and a last full stop."""

    def require(self, reference: str) -> None:
        """Refuse a reference of which nothing is left; see `AnswerCheck.require`."""
        if not _bare(reference):
            raise InputError(
                f"A reference must be the right answer, found {reference!r}.", "Fill it in."
            )

    def score(self, prompt: str, answer: str, reference: str) -> float:
        """1 or 0; see `AnswerCheck.score`."""
        return float(_bare(answer) == _bare(reference))


class CheckScorer:
    """A check as a scorer.

    An answer to a prompt without a reference scores 0, whatever it says. As this is so for all
    rewrites of the prompt, it neither teaches nor misleads: a run may mix prompts of both sorts.

    Attributes:
        names: The one name of its part.
    """

    def __init__(self, source: CheckSource, name: str, references: References) -> None:
        """Look at every reference before the first answer is paid for.

        Args:
            source: The check.
            name: What to call its part.
            references: Those of all prompts that answers will be about.

        Raises:
            InputError: There is none, or the check cannot use one of them.
            MissingDependencyError: The check needs a package that is not installed.
        """
        self.names = (name,)
        self._source = source
        if not references:
            raise InputError(
                "A reward of kind check needs prompts with a reference, found none.",
                'Set reference = "KEY" for a file of prompts, or format to "gsm8k" or "ifeval".',
            )
        wanted = dict.fromkeys(self._name_of(reference) for reference in references.values())
        self._checks = {check: open_check(check) for check in wanted}
        for prompt, reference in references.items():
            self._require(prompt, reference)

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, 1), from 0 to 1.

        Raises:
            InputError: The check cannot use the reference of an exchange.
            RewardError: The check failed.
        """
        return np.array([self._score(exchange) for exchange in exchanges]).reshape(-1, 1)

    def close(self) -> None:
        """Nothing to free."""

    def _name_of(self, reference: TaskReference) -> CheckName:
        return reference.check if self._source == "task" else self._source

    def _require(self, prompt: str, reference: TaskReference) -> None:
        try:
            self._checks[self._name_of(reference)].require(reference.text)
        except InputError as error:
            raise InputError(f"The prompt {prompt!r:.60}: {error.problem}", error.cure) from error

    def _score(self, exchange: Exchange) -> float:
        reference = exchange.reference
        if reference is None or not exchange.answer.strip():
            return 0.0
        check = self._checks[self._name_of(reference)]
        return check.score(exchange.prompt, exchange.answer, reference.text)


def open_check(name: CheckName) -> AnswerCheck:
    """Load a check.

    Raises:
        MissingDependencyError: It needs a package that is not installed.
    """
    match name:
        case "exact":
            return ExactCheck()
        case "gsm8k":
            from alignpro_lite.reward.gsm8k import NumberCheck

            return NumberCheck()
        case "ifeval":
            from alignpro_lite.reward.ifeval import ConstraintCheck

            return ConstraintCheck()


def _bare(text: str) -> str:
    """A text without what makes no difference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".")

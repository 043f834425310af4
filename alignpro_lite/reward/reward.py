"""Rewards at run time: named parts from any scorers, and their weighted sum r*(x, y).

A scorer reads exchanges, the **original** prompt x with an answer y, and gives one number per part.
Higher is better. Nothing here knows a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.reward.exchange import NO_REFERENCES, Exchange, References

if TYPE_CHECKING:
    from numpy.typing import NDArray

BatchFunction = Callable[[list[str], list[str]], Sequence[float]]
"""A reward as a Python function: (prompts, answers) -> one number per answer."""


class Scorer(Protocol):
    """Anything that scores exchanges."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts it gives."""

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, parts); NaN where one exchange cannot be scored."""

    def close(self) -> None:
        """Free its memory."""


@runtime_checkable
class SlowScorer(Scorer, Protocol):
    """One that reads for seconds, for which nobody who has cancelled should wait."""

    def stopped_by(self, cancellation: Cancellation) -> Scorer:
        """The same scorer for one request; see `Reward.stopped_by`."""


@dataclass(frozen=True)
class Scores:
    """Scores of n exchanges.

    Attributes:
        total: The weighted sum of the parts, shape (n,); NaN where a part is.
        parts: Each part before its weight, shape (n,).
    """

    total: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which exchanges have no score, shape (n,)."""
        return np.isnan(self.total)


class Reward:
    """A weighted sum of named parts.

    Use it as a context manager, or call `close`, to free the memory of its scorers.

    Attributes:
        names: The parts.
        weights: One number per part.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        weights: Mapping[str, float],
        rivals: int = 0,
        references: References = NO_REFERENCES,
    ) -> None:
        """Put scorers together.

        Args:
            scorers: Whose parts have different names.
            weights: One number per part.
            rivals: How many answers to the prompt itself every exchange has to bring, which a
                scorer compares its answer with.
            references: What is known about right answers; exchanges about these prompts get it.

        Raises:
            InputError: A name occurs twice, or weights and parts differ.
        """
        self.names = tuple(name for scorer in scorers for name in scorer.names)
        _check_weights(self.names, weights)
        self.weights = dict(weights)
        self.rivals = rivals
        self._scorers = tuple(scorers)
        self._references = references

    def __enter__(self) -> Reward:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every scorer."""
        with ExitStack() as closing:
            for scorer in self._scorers:
                closing.callback(scorer.close)

    def score(self, exchanges: Sequence[Exchange]) -> Scores:
        """Score exchanges. What cannot be scored is NaN; `Scores.failed` says where.

        Raises:
            RewardError: A scorer failed, or its scores have another shape.
        """
        asked = [self._with_reference(exchange) for exchange in exchanges]
        parts: dict[str, NDArray[np.float64]] = {}
        for scorer in self._scorers:
            parts |= zip(scorer.names, _table(scorer, asked).T, strict=True)
        total = np.zeros(len(exchanges))
        for name, values in parts.items():
            total += self.weights[name] * values
        return Scores(total, parts)

    def weighted(self, weights: Mapping[str, float]) -> Reward:
        """The same scorers under other weights; closing either of the two closes them for both.

        Raises:
            InputError: Weights and parts differ.
        """
        return Reward(self._scorers, weights, self.rivals, self._references)

    def stopped_by(self, cancellation: Cancellation) -> Reward:
        """The same reward for one request; what it has not read when that is cancelled is NaN.

        Closing either of the two closes the scorers of both.
        """
        scorers = [
            scorer.stopped_by(cancellation) if isinstance(scorer, SlowScorer) else scorer
            for scorer in self._scorers
        ]
        return Reward(scorers, self.weights, self.rivals, self._references)

    def _with_reference(self, exchange: Exchange) -> Exchange:
        known = self._references.get(exchange.prompt)
        return replace(exchange, reference=exchange.reference or known) if known else exchange


class CallableScorer:
    """A Python function as a reward.

    Attributes:
        names: The one name of its part.
    """

    def __init__(self, reference: str, name: str) -> None:
        """Import the function.

        Args:
            reference: `package.module:function`. The function takes a list of prompts and a list
                of answers, and returns one number per answer; NaN where it has none.
            name: What to call its part.

        Raises:
            InputError: There is no such function.
        """
        self.names = (name,)
        self._reference = reference
        self._function = _import_function(reference)

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, 1).

        Raises:
            RewardError: The function raised, or returned anything but n numbers.
        """
        prompts = [exchange.prompt for exchange in exchanges]
        answers = [exchange.answer for exchange in exchanges]
        try:
            returned = self._function(prompts, answers)
        except Exception as error:
            raise RewardError(
                f"The reward {self._reference} failed ({type(error).__name__}: {error}).",
                "Correct the function, or let it return NaN for what it cannot score.",
            ) from error
        return self._numbers(returned, len(exchanges))[:, None]

    def close(self) -> None:
        """Nothing to free."""

    def _numbers(self, returned: object, count: int) -> NDArray[np.float64]:
        try:
            array = np.asarray(returned)
        except ValueError as error:  # rows of different lengths
            raise self._wrong(returned, count) from error
        # Texts that look like numbers are refused too: float() would take them.
        if array.shape != (count,) or array.dtype.kind not in "fiub":
            raise self._wrong(returned, count)
        return array.astype(np.float64)

    def _wrong(self, returned: object, count: int) -> RewardError:
        length = f" of {len(returned)}" if isinstance(returned, Sequence) else ""
        return RewardError(
            f"The reward {self._reference} must return {count} numbers, one per answer, found "
            f"{type(returned).__name__}{length}: {returned!r:.80}.",
            "Let it take (prompts, answers) and return a list of floats.",
        )


def joined(portions: Sequence[Scores]) -> Scores:
    """The scores of several portions of exchanges as those of all, in order; at least one."""
    return Scores(
        np.concatenate([scores.total for scores in portions]),
        {
            name: np.concatenate([scores.parts[name] for scores in portions])
            for name in portions[0].parts
        },
    )


def score_warnings(scores: Scores) -> list[str]:
    """What is suspicious about the scores of several candidates, one sentence each.

    A part that is the same for all candidates teaches nothing; a part that is NaN was not scored.
    """
    found = []
    for name, values in scores.parts.items():
        missing = np.isnan(values)
        if missing.any():
            found.append(f"{missing.sum()} of {values.size} scores of {name!r} are not numbers.")
        known = values[~missing]
        if known.size > 1 and known.min() == known.max():
            found.append(f"All {known.size} scores of {name!r} are {known[0]:g}.")
    return found


def _check_weights(names: Sequence[str], weights: Mapping[str, float]) -> None:
    if not names:
        raise InputError("A reward needs at least one part, found none.", "Name a scorer.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The part {name!r} comes from two scorers.", "Rename one of them.")
        if name not in weights:
            raise InputError(f"The part {name!r} has no weight.", f"Set a weight for {name}.")
        if not math.isfinite(weights[name]):
            raise InputError(
                f"The weight of {name!r} must be a finite number, found {weights[name]}.",
                f"Correct the weight of {name}.",
            )
    for name in weights:
        if name not in names:
            raise InputError(
                f"There is a weight for {name!r}, which no scorer gives.",
                f"Set weights for {', '.join(names)} only.",
            )


def _table(scorer: Scorer, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
    """The scores of a scorer, shape (n, parts); what is not finite becomes NaN."""
    wanted = (len(exchanges), len(scorer.names))
    found = scorer.score(exchanges)
    if np.shape(found) != wanted:
        raise RewardError(
            f"The scorer of {', '.join(scorer.names)} must return scores of shape {wanted}, "
            f"found {np.shape(found)}.",
            "Correct the scorer.",
        )
    return np.where(np.isfinite(found), found, np.nan)


def _import_function(reference: str) -> BatchFunction:
    module, _, path = reference.partition(":")
    if not module or not path:
        raise InputError(
            f"A reward function is named package.module:function, found {reference!r}.",
            "Write it with a colon before the function.",
        )
    try:
        found: Any = import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:  # importing runs the user's code
        raise InputError(
            f"The reward {reference} cannot be imported ({type(error).__name__}: {error}).",
            "Check its name, and that its folder is installed or in PYTHONPATH.",
        ) from error
    if not callable(found):
        raise InputError(
            f"The reward {reference} must be a function, found {type(found).__name__}.",
            "Name a function of (prompts, answers).",
        )
    return cast(BatchFunction, found)

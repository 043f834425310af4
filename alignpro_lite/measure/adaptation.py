"""How far rewrites depend on their prompts: whether they differ, and whether kinds explain it.

A prompter that writes one sentence for everything has learned that sentence. One whose rewrites
differ may still differ at random; the mutual information with the kind of prompt says whether they
follow what is asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import InputError
from alignpro_lite.measure.text import is_unchanged, split_words

_SHUFFLES = 999


@dataclass(frozen=True)
class Information:
    """Mutual information of two labels of the same things, in bits.

    Attributes:
        plain: Of the observed shares; never below 0, and too high for few things or many labels.
        by_chance: What the same labels would show on average if they were dealt out at random.
        most: The entropy of the second label: no more can be known about it.
        p: Share of random deals that show at least as much, the observed one among them.
    """

    plain: float
    by_chance: float
    most: float
    p: float

    @property
    def corrected(self) -> float:
        """Without the bias: 0 on average if the labels are independent; it may be below 0."""
        return self.plain - self.by_chance


@dataclass(frozen=True)
class Adaptation:
    """How the rewrites of a system depend on their prompts, one rewrite a prompt.

    Attributes:
        prompts: How many; the other figures depend on it.
        unchanged: Share of prompts that are sent as they are.
        own: Share of prompts with an addition that no other prompt has; it is what `added_words`
            finds, and sending the prompt as it is adds nothing.
        distinct: How many different additions there are, nothing not counted.
        whole: Information of the additions about the kind of prompt.
        opening: The same of their first words alone: where nearly every addition is its own,
            whole ones say nothing, and their form still may.
    """

    prompts: int
    unchanged: float
    own: float
    distinct: int
    whole: Information
    opening: Information


def describe_adaptation(
    prompts: Sequence[str], rewrites: Sequence[str], kinds: Sequence[str], seed: int
) -> Adaptation:
    """Describe how rewrites depend on their prompts.

    Args:
        prompts: x, none of them twice.
        rewrites: One x' for each.
        kinds: The kind of each prompt.
        seed: Of the random deals.

    Raises:
        InputError: There is no prompt, or not one rewrite and kind for each.
    """
    if not prompts or not len(prompts) == len(rewrites) == len(kinds):
        raise InputError(
            "Expected a rewrite and a kind for each of at least one prompt, found "
            f"{len(prompts)}, {len(rewrites)} and {len(kinds)}.",
            "Pass one of each for every prompt.",
        )
    pairs = list(zip(prompts, rewrites, strict=True))
    added = [added_words(prompt, rewrite) for prompt, rewrite in pairs]
    counts = Counter(added)
    return Adaptation(
        prompts=len(prompts),
        unchanged=fmean(is_unchanged(prompt, rewrite) for prompt, rewrite in pairs),
        own=fmean(bool(words) and counts[words] == 1 for words in added),
        distinct=len(counts.keys() - {()}),
        whole=mutual_information(added, kinds, seed),
        opening=mutual_information([words[:1] for words in added], kinds, seed),
    )


def added_words(prompt: str, rewrite: str) -> tuple[str, ...]:
    """What a rewrite adds to its prompt, as words in lower case.

    The prompt is taken away where the rewrite begins and where it ends with it, so a hint below the
    prompt, an instruction above it, and a prompt that is said twice leave their own words alone. A
    rewrite in other words adds all of them.
    """
    asked, sent = prompt.strip(), rewrite.strip()
    rest = sent.removeprefix(asked)
    return tuple(split_words(rest.removesuffix(asked)))


def mutual_information(first: Sequence[object], second: Sequence[object], seed: int) -> Information:
    """Mutual information of two labels of the same things, with what chance alone would show.

    Args:
        first: A label of each thing, such as its rewrite.
        second: Another one, such as its kind.
        seed: Of the random deals that `Information.p` rests on. `by_chance` is exact: the mean over
            all deals of the same labels, by the hypergeometric distribution of every cell (Vinh,
            Epps and Bailey 2010).

    Raises:
        InputError: There is nothing, or not as many labels of one as of the other.
    """
    if not first or len(first) != len(second):
        raise InputError(
            f"Expected two labels of each of at least one thing, found {len(first)} and "
            f"{len(second)}.",
            "Pass a label of each kind for every thing.",
        )
    rows, columns = _numbered(first), _numbered(second)
    most = _entropy(columns)
    base = _entropy(rows) + most
    plain = base - _entropy(_joined(rows, columns))
    random = np.random.default_rng(seed)
    dealt = [base - _entropy(_joined(rows, random.permutation(columns))) for _ in range(_SHUFFLES)]
    as_much = sum(found >= plain - 1e-12 for found in dealt)
    return Information(
        plain=max(plain, 0.0),
        by_chance=_expected(rows, columns),
        most=most,
        p=(as_much + 1) / (_SHUFFLES + 1),
    )


def _numbered(labels: Sequence[object]) -> NDArray[np.int64]:
    places: dict[object, int] = {}
    return np.array([places.setdefault(label, len(places)) for label in labels])


def _joined(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows * (int(columns.max()) + 1) + columns


def _entropy(labels: NDArray[np.int64]) -> float:
    counts = np.unique(labels, return_counts=True)[1]
    shares = counts / labels.size
    return float(-(shares * np.log2(shares)).sum())


def _expected(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> float:
    """Mean mutual information over all deals, in bits; labels of one size are computed once."""
    sizes = [Counter(np.bincount(labels).tolist()) for labels in (rows, columns)]
    return sum(
        times * often * _expected_cell(size, width, rows.size)
        for size, times in sizes[0].items()
        for width, often in sizes[1].items()
    )


def _expected_cell(size: int, width: int, total: int) -> float:
    """Mean of n/N log2(N n/(a b)) over the hypergeometric number n of things with both labels."""
    ways = math.comb(total, width)
    return sum(
        math.comb(size, both) * math.comb(total - size, width - both) / ways
        * both / total * math.log2(total * both / (size * width))
        for both in range(max(1, size + width - total), min(size, width) + 1)
    )  # fmt: skip

"""What rewriting can be worth: the best constant, the best rewrite of each prompt, and luck.

Whoever takes the best of several rewrites by a few answers takes luck with it. So what is chosen is
judged by answers that did not choose it: a constant by the answers to other prompts, a rewrite of
one prompt by one half of its answers, judged by the other half; both ways round.

**Choice.** The reward of rewrite j of prompt i is taken as level_i + effect_j + own_ij. The effects
come from other prompts; own_ij has the variance that was found for its kind. The mean of m answers
then says about own_ij only the share variance / (variance + noise / m), its reliability, and the
choice is by this shrunk value (Robinson 1991). If nothing is special about a prompt, the choice
falls back to the best constant, instead of to noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.measure.components import (
    Components,
    IntArray,
    crossed_components,
    nested_components,
    student_mean,
)
from alignpro_lite.measure.statistics import Estimate, FloatArray

FEWEST_PROMPTS = 4
RELIABLE = 0.8
"""Share of a difference seen between two rewrites of a prompt that should be real."""
_MATTERS = 0.2
"""A small effect, in standard deviations (Cohen 1988)."""
_FOLDS = 2
"""Groups of prompts: a constant is judged in each by what the others chose. More would choose a
little better, but choices that share most of their prompts make intervals too narrow."""
_TINY = 1e-12

HeadroomVerdict: TypeAlias = Literal["hurts", "nothing", "constant", "choice", "open", "noisy"]
"""Rewriting hurts; gains nothing that matters; a constant suffices; a choice for each prompt pays;
rewriting pays, but which of the two is open; or nothing can be told."""


@dataclass(frozen=True)
class Tried:
    """What was tried on one prompt.

    Attributes:
        rewards: Shape (rewrites, answers): first the prompt itself, then the constant hints in an
            order that all prompts share, then other rewrites, all different.
        written: How often each source wrote each of them, shape (sources, rewrites). Every source
            wrote as many for every prompt.
        more: Of further answers to the prompt itself, which everything is compared with; shape
            (more,), also empty.
    """

    rewards: FloatArray
    written: IntArray
    more: FloatArray

    @property
    def gains(self) -> FloatArray:
        """Mean reward of each rewrite over that of the prompt itself, by all answers."""
        gains: FloatArray = self.rewards.mean(axis=1) - self.baseline(self.rewards[0])
        return gains

    def baseline(self, answers: FloatArray) -> float:
        """Mean reward of the prompt itself, by some of its answers in the table and all others."""
        return float(np.concatenate([answers, self.more]).mean())


@dataclass(frozen=True)
class Headroom:
    """What rewriting can be worth. Gains are over the prompt as it is, in the reward's unit.

    Attributes:
        prompts: How many prompts.
        calls: Answers of the target, over all prompts.
        answers: Answers to each rewrite.
        shared: Variance components of the prompt itself and the constants.
        own: Those of each source's rewrites.
        constants: Gain of every constant, not corrected for their number.
        best: Place of the constant that is best over all prompts.
        constant: Gain of the best constant, chosen on other prompts. Its interval is a little too
            narrow, about 0.92, because each half of the prompts also chooses for the other.
        sources: Gain of each source's rewrites as they come.
        chosen: Gain of the best rewrite of each prompt, chosen with half of the answers and judged
            by the other half.
        extra: `chosen` minus `constant`, prompt by prompt.
        apparent: Gain of the rewrite with the highest mean, judged by the answers that chose it.
        learnable: The best constant's gain with what the best rewrite of each prompt adds to it
            after shrinkage: what is no luck of `apparent`. A prompter can learn at most this.
        reliability: Share of a difference between two rewrites of a prompt, as all answers show it,
            that is real.
        reliable_answers: Answers to each rewrite for which that is `RELIABLE`; None if no
            difference was found.
    """

    prompts: int
    calls: int
    answers: int
    shared: Components
    own: tuple[Components, ...]
    constants: tuple[Estimate, ...]
    best: int
    constant: Estimate
    sources: tuple[Estimate, ...]
    chosen: Estimate
    extra: Estimate
    apparent: Estimate
    learnable: Estimate
    reliability: float
    reliable_answers: float | None

    @property
    def learnable_share(self) -> float:
        """Share of the apparent gain that is no luck, 0 to 1."""
        if self.apparent.value <= 0:
            return 0.0
        return min(max(self.learnable.value / self.apparent.value, 0.0), 1.0)

    @property
    def smallest(self) -> float:
        """The smallest gain that matters unless somebody says otherwise.

        It is a fifth of the standard deviation of the answers to one prompt, its hints included.
        """
        mixed = self.shared.interaction.value if self.shared.interaction else 0.0
        variance = self.shared.rewrite.value + mixed + self.shared.answer.value
        return max(_MATTERS * math.sqrt(max(variance, 0.0)), _TINY)

    def calls_for(self, error: float) -> int:
        """Calls of the target after which `constant` and `extra` are known to ± error.

        With as many on each prompt, intervals narrow with the root of the number of prompts.
        """
        width = max(found.high - found.low for found in (self.constant, self.extra))
        return math.ceil(self.calls * (width / 2 / error) ** 2)

    def verdict(self, worth: float) -> HeadroomVerdict:
        """What to do.

        Args:
            worth: The smallest gain that matters, above 0.
        """
        if self.chosen.low > 0 and self.extra.low > 0:
            return "choice"
        known = (self.extra.high - self.extra.low) / 2 <= max(worth, self.constant.value)
        if self.constant.low > 0 and self.extra.value < worth and known:
            return "constant"
        if self.chosen.low > 0 or self.constant.low > 0:
            return "open"
        if self.constant.high < 0 and self.chosen.value < worth:
            return "hurts"
        if max(self.constant.high, self.chosen.high) < worth:
            return "nothing"
        return "noisy"


@dataclass(frozen=True)
class _Model:
    """What other prompts and the components say about the rewrites of a prompt.

    Attributes:
        constants: Effect of the prompt itself, which is 0, and of each constant.
        sources: Effect of each source's rewrites.
        mixed: Variance of what a constant is worth on this prompt only.
        spread: Variance of each source's rewrites within a prompt, shape (sources,).
        noise: Variance of an answer.
    """

    constants: FloatArray
    sources: FloatArray
    mixed: float
    spread: FloatArray
    noise: float

    @property
    def constant(self) -> int:
        """Place of the best constant; that of the prompt itself is 0."""
        return 1 + int(self.constants[1:].argmax())

    def effects(self, tried: Tried) -> tuple[FloatArray, FloatArray]:
        """Effect of each rewrite of a prompt, and the variance of what is special about it."""
        first = tried.written[:, len(self.constants) :].argmax(axis=0) if len(self.sources) else []
        effects = np.concatenate([self.constants, self.sources[first]])
        spread = np.concatenate([np.full(len(self.constants), self.mixed), self.spread[first]])
        return effects, spread

    def values(self, tried: Tried, rewards: FloatArray) -> FloatArray:
        """Shrunk mean reward of each rewrite, up to a number that they share.

        Args:
            tried: Whose rewrites.
            rewards: The answers that count, shape (rewrites, m).
        """
        effects, spread = self.effects(tried)
        seen = np.maximum(spread + self.noise / rewards.shape[1], _TINY)
        rest = rewards.mean(axis=1) - effects
        level = np.average(rest, weights=1 / seen)
        values: FloatArray = effects + spread / seen * (rest - level)
        return values


def measure_headroom(tried: Sequence[Tried], constants: int) -> Headroom:
    """Estimate what rewriting can be worth.

    Args:
        tried: What was tried, in random order; at least `FEWEST_PROMPTS` prompts.
        constants: How many constants there are, at least one.

    Raises:
        InputError: There are fewer prompts, constants or answers, or a reward is not finite.
    """
    if len(tried) < FEWEST_PROMPTS or constants < 1:
        raise InputError(
            f"The headroom needs at least {FEWEST_PROMPTS} prompts and a constant hint, found "
            f"{len(tried)} and {constants}.",
            "Raise the budget, or give more prompts.",
        )
    shared = np.stack([row.rewards[: 1 + constants] for row in tried])
    components = crossed_components(shared)
    counts = [[row.written[n] for row in tried] for n in range(len(tried[0].written))]
    own = tuple(nested_components([row.rewards for row in tried], drawn) for drawn in counts)
    gains = np.array([row.gains[1 : 1 + constants] for row in tried])
    written = np.array(
        [row.written @ row.gains / np.maximum(row.written.sum(axis=1), 1) for row in tried]
    )
    models = [_model(components, own, gains, written, fold) for fold in range(_FOLDS)]
    pairs = [(models[place % _FOLDS], row) for place, row in enumerate(tried)]
    constant = np.array([row.gains[model.constant] for model, row in pairs])
    chosen = np.array([_judged(model, row) for model, row in pairs])
    shrunk = np.array([_special(model, row) for model, row in pairs])
    spread = np.concatenate([model.effects(row)[1] for model, row in pairs]).mean()
    noise, answers = models[0].noise, shared.shape[2]
    return Headroom(
        prompts=len(tried),
        calls=sum(row.rewards.size + row.more.size for row in tried),
        answers=answers,
        shared=components,
        own=own,
        constants=tuple(student_mean(column) for column in gains.T),
        best=int(gains.mean(axis=0).argmax()),
        constant=student_mean(constant),
        sources=tuple(student_mean(column) for column in written.T),
        chosen=student_mean(chosen),
        extra=student_mean(chosen - constant),
        apparent=student_mean(np.array([row.gains.max() for row in tried])),
        learnable=student_mean(constant + shrunk),
        reliability=float(spread / max(spread + noise / answers, _TINY)),
        reliable_answers=float(RELIABLE / (1 - RELIABLE) * noise / spread) if spread > 0 else None,
    )


def _model(
    shared: Components,
    own: Sequence[Components],
    gains: FloatArray,
    written: FloatArray,
    fold: int,
) -> _Model:
    """What the prompts outside a fold say about effects; the variances are those of all prompts."""
    others = np.arange(len(gains)) % _FOLDS != fold
    mixed = shared.interaction.value if shared.interaction else 0.0
    return _Model(
        constants=np.concatenate([[0.0], gains[others].mean(axis=0)]),
        sources=written[others].mean(axis=0),
        mixed=max(mixed, 0.0),
        spread=np.array([max(found.rewrite.value, 0.0) for found in own]),
        noise=max(shared.answer.value, 0.0),
    )


def _judged(model: _Model, tried: Tried) -> float:
    """Gain of the best rewrite, chosen by one half of the answers and judged by the other."""
    half = tried.rewards.shape[1] // 2
    halves = tried.rewards[:, :half], tried.rewards[:, half:]
    gains = []
    for choosing, judging in (halves, halves[::-1]):
        best = model.values(tried, choosing).argmax()
        # The prompt itself gains nothing, whatever its answers say.
        gains.append(judging[best].mean() - tried.baseline(judging[0]) if best else 0.0)
    return float(np.mean(gains))


def _special(model: _Model, tried: Tried) -> float:
    """What the best rewrite of a prompt has over the best constant, after shrinkage."""
    values = model.values(tried, tried.rewards)
    return float(values.max() - values[model.constant])

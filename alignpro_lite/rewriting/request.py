"""What a caller may set: how one prompt is rewritten and answered."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from alignpro_lite.decoding.constraint import Constraint
from alignpro_lite.decoding.conversation import Message, check_prompt
from alignpro_lite.decoding.log_probs import require_alternatives
from alignpro_lite.decoding.penalties import NO_PENALTIES, Penalties
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.decoding.thinking import Thinking
from alignpro_lite.errors import InputError
from alignpro_lite.rewriting.spans import compile_patterns
from alignpro_lite.target.question import DEFAULT_SAMPLING, Question

Guard = Literal["strict", "balanced", "off"]
Returns = Literal["scored", "fresh"]
RewriteSwitch = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Budget:
    """What a draw may cost; a round of candidates that would cost more does not begin.

    Attributes:
        tokens: Tokens of the target, over all answers; None for no limit.
        seconds: Wall-clock time until the rewrite is chosen; unfinished answers are dropped then.
            None for no limit.
    """

    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that are not above 0.

        Raises:
            InputError: Names the amount.
        """
        for name, amount in (("tokens", self.tokens), ("seconds", self.seconds)):
            if amount is not None and not amount > 0:
                raise InputError(
                    f"A budget must be above 0 {name}, found {amount}.", "Raise the budget."
                )


@dataclass(frozen=True)
class RhoStar:
    """How a rewrite is chosen; see `draw`.

    Without a reward, a single sample is used as it is, and the best of several by implicit reward;
    the other settings then have no effect.

    Attributes:
        samples: N, candidates; `auto` adds rounds until the estimated distance to ρ* is at most
            `tolerance`, or the budget or MOST_SAMPLES is reached.
        strength: λ > 0; None for the value that the prompter was trained with. A race does not
            depend on it, but what is said about ρ* and the end of `auto` do.
        answers: M, trial answers to each candidate.
        guard: How the rewrite is chosen and when it is used. `balanced`: the best in a race, if it
            is expected to be better than the prompt. `strict`: a draw from ρ*, if it is better with
            95 % confidence. `off`: a draw from ρ*, always.
        guard_answers: Answers to the prompt, and fresh ones to the drawn rewrite, for `strict`; as
            many in all are raced for under `balanced`.
        trial_tokens: The most tokens of a trial; the reward judges an answer by its beginning.
        tolerance: Total variation at which `auto` may stop.
        budget: What it may cost.
        returns: `scored` continues the best of the trial answers to the prompt in use; `fresh` asks
            the target once more, which samples π_F(·|x') exactly.
    """

    samples: int | Literal["auto"] = 1
    strength: float | None = None
    answers: int = 2
    guard: Guard = "balanced"
    guard_answers: int = 8
    trial_tokens: int = 96
    tolerance: float = 0.1
    budget: Budget = Budget()
    returns: Returns = "scored"

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            InputError: Names the setting, the value and what is allowed.
        """
        if self.samples != "auto":
            _require_from(1, "samples", self.samples)
        _require_from(1, "answers", self.answers)
        _require_from(2, "guard_answers", self.guard_answers)
        _require_from(1, "trial_tokens", self.trial_tokens)
        if self.strength is not None and not 0 < self.strength < math.inf:
            raise InputError(f"λ must be above 0, found {self.strength}.", "Pass a larger λ.")
        _require_one_of(get_args(Guard), "guard", self.guard)
        _require_one_of(get_args(Returns), "returns", self.returns)
        if not 0 < self.tolerance < 1:
            raise InputError(
                f"tolerance must be between 0 and 1, found {self.tolerance}.",
                "Pass a number in that range.",
            )


def _require_from(least: int, name: str, value: int) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least}, found {value}.", f"Raise {name}.")


def _require_one_of(known: tuple[str, ...], name: str, value: object) -> None:
    if value not in known:
        raise InputError(
            f"{name} must be {', '.join(known)}, found {value!r}.",
            f'Pass one of them, for example "{known[0]}".',
        )


def _require_texts(name: str, value: object) -> None:
    """Refuse a single string, whose characters would be taken one by one."""
    if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
        raise InputError(
            f"{name} must be a tuple of strings, found {value!r}.", f'Pass {name}=("...",).'
        )


@dataclass(frozen=True)
class Request:
    """How to answer one prompt.

    Attributes:
        system: A system prompt for the target, or None for the model's own.
        history: Earlier turns of the conversation, as the target saw them. The prompter sees the
            last ones, as many as fit; the prompt alone is rewritten.
        max_tokens: The most tokens of the answer, its thought included.
        stop: Strings that end the answer; in a thought they are text.
        sampling: How the answer is drawn; its seed serves the rewrite too.
        rewrite: Whether the prompt is rewritten; `auto` leaves it as it is where a rewrite would
            spoil the answer, see `why_kept`.
        rewrite_sampling: How the rewrite is drawn; None takes the bundle's own, or with a reward
            ρ_θ at temperature 1 without filters.
        protect: Regular expressions of text that a rewrite must keep, in addition to what `spans`
            always protects.
        rho_star: How many rewrites are tried and how one of them is chosen.
        thinking: Whether a target that can think does so before it answers; `auto` leaves it to its
            chat template.
        penalties: What makes tokens of the answer more or less likely than the target has them.
        constraint: What the answer, without the thought, must be; None for any text.
        log_probs: How many alternatives to each token of the answer the result lists, 0 to 20; None
            to list nothing.
    """

    system: str | None = None
    history: tuple[Message, ...] = ()
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    sampling: Sampling = DEFAULT_SAMPLING
    rewrite: RewriteSwitch = "auto"
    rewrite_sampling: Sampling | None = None
    protect: tuple[str, ...] = ()
    rho_star: RhoStar = RhoStar()
    thinking: Thinking = "auto"
    penalties: Penalties = NO_PENALTIES
    constraint: Constraint | None = None
    log_probs: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be used, before anything is loaded.

        Raises:
            InputError: Names the setting or the pattern.
        """
        _require_one_of(get_args(Thinking), "thinking", self.thinking)
        _require_one_of(get_args(RewriteSwitch), "rewrite", self.rewrite)
        _require_texts("stop", self.stop)
        _require_texts("protect", self.protect)
        compile_patterns(self.protect)
        require_alternatives(self.log_probs)

    @property
    def why_kept(self) -> str | None:
        """Why the prompt goes out as it is, one phrase; None if it is to be rewritten."""
        if self.rewrite == "off":
            return "rewriting is off"
        # An instruction to explain spoils what is to be extracted.
        is_shaped = self.constraint is not None and self.rewrite == "auto"
        return "the answer has a given form" if is_shaped else None

    def with_seed(self, seed: int) -> Request:
        """This request with another seed."""
        return replace(self, sampling=replace(self.sampling, seed=seed))

    def question(self, prompt: str) -> Question:
        """The question to the target for a prompt, x or x'.

        Raises:
            InputError: The prompt is empty or not text.
        """
        check_prompt(prompt)
        if self.system:
            check_prompt(self.system)
        system = [Message("system", self.system)] if self.system else []
        messages = (*system, *self.history, Message("user", prompt))
        return Question(
            messages,
            self.max_tokens,
            self.sampling,
            self.stop,
            thinking=self.thinking,
            penalties=self.penalties,
            constraint=self.constraint,
            log_probs=self.log_probs,
        )

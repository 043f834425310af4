"""How the next token is drawn: the settings, the filters in pure numpy, and the random streams.

The target passes the settings to llama.cpp's own sampler chain; the prompter applies the filters
below, because it also needs exact log-probabilities. Both use the order top-k, top-p, min-p,
temperature, draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alignpro_lite.errors import InputError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Sampling:
    """Settings of one draw; the defaults sample the model's own distribution.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens that holds this share of the mass.
        min_p: Keep tokens at least this likely relative to the most likely one.
        seed: 0 to 2**32 - 1. The same seed gives the same draw on the same machine.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            InputError: Names the setting, the value and the range.
        """
        require_range(0 <= self.temperature <= 100, "temperature", self.temperature, "0 to 100")
        require_range(self.top_k >= 0, "top-k", self.top_k, "0 or more")
        require_range(0 < self.top_p <= 1, "top-p", self.top_p, "above 0, at most 1")
        require_range(0 <= self.min_p < 1, "min-p", self.min_p, "0 to below 1")
        require_range(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"0 to {MAX_SEED}")


def require_range(holds: bool, name: str, value: float, allowed: str) -> None:
    """Refuse a setting that is not in its range.

    Raises:
        InputError: Names the setting, the value and what is allowed.
    """
    if not holds:
        raise InputError(
            f"{name} must be {allowed}, found {value}.", f"Pass a {name} in that range."
        )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities at temperature 1.

    Args:
        logits: Scores of one position, shape (vocab,), or of several, (n, vocab).

    Returns:
        Same shape, float64, each row summing to 1 after exp.
    """
    result: NDArray[np.float64] = logits - _log_sum_exp(logits)
    return result


def token_log_prob(logits: NDArray[np.float32], token: int) -> float:
    """Log-probability of one token at temperature 1, from scores of shape (vocab,)."""
    return float(logits[token] - _log_sum_exp(logits)[0])


def most_likely(logits: NDArray[np.float32], count: int) -> tuple[tuple[int, float], ...]:
    """The most likely tokens and their log-probabilities at temperature 1, best first.

    Args:
        logits: Scores of one position, shape (vocab,).
        count: How many.
    """
    count = min(count, logits.size)
    if count == 0:
        return ()
    best = np.argpartition(-logits, count - 1)[:count]
    best = best[np.argsort(-logits[best], kind="stable")]
    log_probs = logits[best] - _log_sum_exp(logits)
    return tuple(zip(best.tolist(), log_probs.tolist(), strict=True))


def _log_sum_exp(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Shape (..., 1). numpy sums pairwise, so that float32 is exact to about 1e-6 here."""
    top = np.max(logits, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite scores give NaN, which `Draw` is about
        shifted = logits - top
        total = np.sum(np.exp(shifted, out=shifted), axis=-1, keepdims=True)
    result: NDArray[np.float64] = top + np.log(total.astype(np.float64))
    return result


def filtered_log_probs(
    log_probs: NDArray[np.float64], sampling: Sampling
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The distribution that tokens are drawn from, after all filters.

    Args:
        log_probs: Model log-probabilities at temperature 1, shape (vocab,).
        sampling: The settings; temperature must be above 0.

    Returns:
        Token ids that survive, shape (k,), sorted by likelihood only where a filter needed it, and
        their renormalised log-probabilities, shape (k,).
    """
    ids: NDArray[np.intp] = np.arange(log_probs.size)
    kept = log_probs
    if 0 < sampling.top_k < kept.size:
        ids = np.argpartition(-kept, sampling.top_k - 1)[: sampling.top_k]
        kept = log_probs[ids]
    if sampling.top_p < 1:
        ids, kept = _nucleus(ids, kept, sampling.top_p)
    if sampling.min_p > 0:
        likely = kept >= kept.max() + math.log(sampling.min_p)
        ids, kept = ids[likely], kept[likely]
    with np.errstate(over="ignore"):  # at a tiny temperature the others go to minus infinity
        scaled = (kept - kept.max()) / sampling.temperature
    return ids, scaled - _log_sum_exp(scaled)


def _nucleus(
    ids: NDArray[np.intp], log_probs: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The smallest set of tokens that holds `top_p` of the mass, most likely first."""
    total = float(_log_sum_exp(log_probs)[0])
    # Tokens below (1 - top_p) / n hold less than 1 - top_p together, so the set is
    # among the others; sorting only those is what makes this fast.
    worth = log_probs >= total + math.log((1 - top_p) / log_probs.size)
    ids, log_probs = ids[worth], log_probs[worth]
    order = np.argsort(-log_probs, kind="stable")
    mass = np.cumsum(np.exp(log_probs[order] - total))
    count = int(np.searchsorted(mass, top_p)) + 1
    return ids[order[:count]], log_probs[order[:count]]


@dataclass(frozen=True)
class Draw:
    """One drawn token.

    Attributes:
        token: Its id.
        log_prob: Natural log of its probability under the model at temperature 1; NaN if one of
            the model's scores is not a number.
        alternatives: The most likely tokens there and their log-probabilities, best first, as many
            as were asked for.
    """

    token: int
    log_prob: float
    alternatives: tuple[tuple[int, float], ...] = ()


class TokenSource(Protocol):
    """Chooses the next token of a sequence.

    Attributes:
        log_proposal: Sum over the tokens chosen so far of the natural log of the
            probability with which they were chosen.
    """

    log_proposal: float

    def draw(self, logits: NDArray[np.float32]) -> Draw:
        """Choose a token from scores of shape (vocab,)."""


class Sampler:
    """Draws the tokens of one sequence from its own random stream.

    The stream depends only on the seed and the stream number, so sequence i of a batch is the same
    whatever the size of the batch.
    """

    def __init__(self, sampling: Sampling, stream: int) -> None:
        self._sampling = sampling
        self._random = random_stream(sampling.seed, stream)
        self.log_proposal = 0.0

    def draw(self, logits: NDArray[np.float32]) -> Draw:
        """Draw one token.

        Args:
            logits: Scores of the next token, shape (vocab,).

        Returns:
            The token with its exact log-probability; NaN if the scores are not numbers.
        """
        if self._sampling.temperature == 0:
            best = int(np.argmax(logits))
            return Draw(best, token_log_prob(logits, best))
        log_probs = log_softmax(logits)
        if math.isnan(log_probs[0]):  # if one score is not a number, then no probability is
            return Draw(0, math.nan)
        ids, proposal = filtered_log_probs(log_probs, self._sampling)
        cumulative = np.cumsum(np.exp(proposal))
        place = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], "right"))
        place = min(place, ids.size - 1)
        self.log_proposal += float(proposal[place])
        token = int(ids[place])
        return Draw(token, float(log_probs[token]))


class GivenTokens:
    """Replays tokens instead of drawing them, to score a text in the sampling loop.

    Texts of different lengths may be scored together: a short one repeats its last token until its
    reader, who knows the length, cancels it.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._left = iter(tokens)
        self._token = tokens[-1]
        self.log_proposal = 0.0

    def draw(self, logits: NDArray[np.float32]) -> Draw:
        """The next given token with its log-probability."""
        self._token = next(self._left, self._token)
        return Draw(self._token, token_log_prob(logits, self._token))


class Consumer(IntEnum):
    """What draws random numbers for a request beside its rewrites and its answer.

    Rewrite i and answer i of the request own stream i of its seed, so these count down from the
    largest number.
    """

    CONTINUATION = 2**32 - 1
    """What follows a trial that was cut."""
    TRIALS = 2**32 - 2
    """Trial answers, by which a rewrite is drawn."""
    JUDGING = 2**32 - 3
    """Answers by which the guard judges the drawn rewrite and the prompt."""
    CHAIN = 2**32 - 4
    """Metropolis-Hastings."""
    RIVALS = 2**32 - 5
    """Answers to the prompt that a judge compares the others with."""


def random_stream(seed: int, stream: int) -> np.random.Generator:
    """The random numbers of a stream. No two pairs of seed and stream share any.

    Args:
        seed: Of a request.
        stream: The number of a rewrite, or a `Consumer`; 0 to 2**32 - 1.
    """
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def stream_seed(seed: int, stream: int) -> int:
    """A 32-bit seed for a stream, for samplers that take one number, and for streams of it."""
    return int(np.random.SeedSequence([seed, int(stream)]).generate_state(1)[0])


def stream_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the first `count` streams; see `stream_seed`."""
    return [stream_seed(seed, stream) for stream in range(count)]

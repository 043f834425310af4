"""Candidates for a draw: rewrites of one prompt that may be used, drawn round by round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.prompter.prompter import Prompter, Rewrite, results_of
from alignpro_lite.rewriting.refusal import Refusal, refusal_of
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.spans import Protected


def would_add_nothing(
    prompter: Prompter, prompt: str, earlier: Sequence[Message], cancellation: Cancellation
) -> bool:
    """Whether ρ_θ is in doubt that a prompt needs a hint, so that none is used; see `DOUBT`.

    Args:
        prompter: One that rewrites as a whole never adds nothing.
        prompt: x.
        earlier: The turns before it.
        cancellation: Once asked for, the answer is no.

    Raises:
        ContextOverflowError: The prompt does not fit the prompter.
    """
    if prompter.template.mode != "augment" or cancellation.asked:
        return False
    (chance,) = prompter.score(prompt, [prompter.encode("")], earlier, cancellation)
    # The score of a cancelled sequence has no tokens: it is that of certainty.
    return not cancellation.asked and math.exp(chance) >= prompter.profile.doubt


@dataclass(frozen=True)
class Candidate:
    """A rewrite that may be used.

    Attributes:
        number: i, its place among all that were drawn.
        rewrite: x'.
        log_reference: log ρ_sft(x'|x), natural; 0 for a single sample, which needs no weight.
    """

    number: int
    rewrite: Rewrite
    log_reference: float

    @property
    def log_ratio(self) -> float:
        """Log ρ_θ/ρ_sft: the implicit reward over λ, up to log Z(x)."""
        return self.rewrite.log_prob - self.log_reference


@dataclass(frozen=True)
class Candidates:
    """How far a draw is, after each step of it.

    Attributes:
        drawn: How many rewrites the prompter has written.
        rated: How many of them have a reward, which may be an implicit one.
        of: How many are asked for; None if that depends on what is found.
        best: The best of those that are rated; None before there is one.
    """

    drawn: int
    rated: int
    of: int | None
    best: Rewrite | None


class CandidateSource:
    """Draws candidates of one prompt, round by round.

    Attributes:
        drawn: How many rewrites were drawn so far.
        refused: How many of them were refused, by kind.
        first: The first rewrite, shown if none is used.
    """

    def __init__(
        self,
        prompter: Prompter,
        protected: Protected,
        request: Request,
        usual: Sampling,
        cancellation: Cancellation,
    ) -> None:
        """Prepare to draw.

        Args:
            prompter: ρ_θ and ρ_sft.
            protected: The prompt and what every rewrite must keep.
            request: What was asked.
            usual: How rewrites are drawn unless the request sets it.
            cancellation: Stops the drawing.
        """
        self.prompter = prompter
        self.protected = protected
        self.request = request
        self._sampling = replace(request.rewrite_sampling or usual, seed=request.sampling.seed)
        self.cancellation = cancellation
        self.drawn = 0
        self.refused: Counter[str] = Counter()
        self._last_refusal: Refusal | None = None
        self.first: Rewrite | None = None

    @property
    def prompt(self) -> str:
        """The prompt x."""
        return self.protected.prompt

    @cached_property
    def _earlier(self) -> tuple[Message, ...]:
        """What the prompter is shown of the conversation, the same for all candidates."""
        return self.prompter.fitting(self.prompt, self.request.history)

    @cached_property
    def is_in_doubt(self) -> bool:
        """Whether no hint is used; see `would_add_nothing`."""
        return would_add_nothing(self.prompter, self.prompt, self._earlier, self.cancellation)

    @property
    def settings(self) -> RhoStar:
        """How candidates become a draw."""
        return self.request.rho_star

    def candidates(self, count: int, *, weighed: bool) -> list[Candidate]:
        """Draw more rewrites and return those that may be used.

        Args:
            count: How many to draw.
            weighed: Whether log ρ_sft is wanted.

        Raises:
            ContextOverflowError: The prompt does not fit the prompter.
            BundleError: The bundle cannot score with ρ_sft.
        """
        found: list[Candidate] = []
        together = self.prompter.sequences
        for start in range(0, count, together):
            found.extend(self._drawn(min(together, count - start), weighed))
        return found

    def progress(self, rated: int = 0, best: Rewrite | None = None) -> Candidates:
        """How far the draw is, told how many candidates have a reward, and the best of them."""
        asked = self.settings.samples
        return Candidates(self.drawn, rated, None if asked == "auto" else asked, best)

    def _drawn(self, count: int, weighed: bool) -> Iterator[Candidate]:
        first = self.drawn
        streams = self.prompter.start(self.prompt, count, self._sampling, first, self._earlier)
        self.cancellation.enter(streams)
        rewrites = results_of(streams)
        numbered = list(enumerate(rewrites, start=first))
        self.drawn += count
        self.first = self.first or rewrites[0]
        usable = [(number, rewrite) for number, rewrite in numbered if self._may_be_used(rewrite)]
        references = [0.0] * len(usable)
        if weighed and usable and not self.cancellation.asked:
            references = self._references([rewrite for _, rewrite in usable])
        for (number, rewrite), reference in zip(usable, references, strict=True):
            yield Candidate(number, rewrite, reference)

    def _references(self, rewrites: Sequence[Rewrite]) -> list[float]:
        """Log ρ_sft of each; an untrained prompter is ρ_sft, and has said it as it drew them."""
        if not self.prompter.profile.is_trained:
            return [rewrite.log_prob for rewrite in rewrites]
        outputs = [rewrite.tokens for rewrite in rewrites]
        return self.prompter.reference_score(self.prompt, outputs, self._earlier, self.cancellation)

    def _may_be_used(self, rewrite: Rewrite) -> bool:
        refusal = refusal_of(self.protected, rewrite)
        if refusal is not None:
            self.refused[refusal.kind] += 1
            self._last_refusal = refusal
        return refusal is None

    def none_left(self) -> str:
        """Why the prompt goes out unchanged when there is no candidate."""
        if self.cancellation.asked:
            return "cancelled"
        if self.drawn == 1 and self._last_refusal is not None:
            return self._last_refusal.reason
        counted = ", ".join(f"{count} {kind}" for kind, count in self.refused.items())
        return f"none of {self.drawn} rewrites may be used ({counted})"

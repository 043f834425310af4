"""Candidates: rewrites of one prompt that may be used, drawn round by round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.prompter.prompter import OnnxPrompter, Rewrite
from alignpro_lite.rewriting.refusal import Refusal, refusal_of
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.spans import Protected


@dataclass(frozen=True)
class Candidate:
    """A rewrite that may be used.

    Attributes:
        number: i, its place among all that were drawn.
        rewrite: x'.
        log_reference: log ρ_sft(x'|x), natural; of the only sample, which nobody weighs, 0.
    """

    number: int
    rewrite: Rewrite
    log_reference: float

    @property
    def log_ratio(self) -> float:
        """Log ρ_θ/ρ_sft: the implicit reward over λ, up to log Z(x)."""
        return self.rewrite.log_prob - self.log_reference


@dataclass
class Tally:
    """What a draw has found so far; becomes its certificate.

    Attributes:
        drawn: Rewrites drawn.
        refused: How many were refused, by kind.
        last_refusal: The last of them.
        dropped: Why a candidate has no reward, by its number.
    """

    drawn: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_refusal: Refusal | None = None
    dropped: dict[int, str] = field(default_factory=dict)


class CandidateSource:
    """Draws candidates of one prompt, round by round."""

    def __init__(
        self,
        prompter: OnnxPrompter,
        protected: Protected,
        request: Request,
        usual: Sampling,
        cancellation: Cancellation,
    ) -> None:
        """Draw nothing yet.

        Args:
            prompter: ρ_θ and ρ_sft.
            protected: The prompt and what every rewrite keeps.
            request: What was asked.
            usual: How rewrites are drawn unless the request says.
            cancellation: Stops the drawing.
        """
        self.prompter = prompter
        self.protected = protected
        self.request = request
        self._sampling = replace(request.rewrite_sampling or usual, seed=request.sampling.seed)
        self.cancellation = cancellation
        self.tally = Tally()
        self.first: Rewrite | None = None
        """The first rewrite, to be shown if none is used."""

    @property
    def prompt(self) -> str:
        """The prompt x."""
        return self.protected.prompt

    @property
    def settings(self) -> RhoStar:
        """How candidates become a draw."""
        return self.request.rho_star

    def candidates(self, count: int, *, weighed: bool) -> list[Candidate]:
        """Draw more rewrites and give those that may be used.

        Args:
            count: How many to draw.
            weighed: Whether log ρ_sft is wanted.

        Raises:
            ContextOverflowError: The prompt does not fit the prompter.
            BundleError: The bundle cannot tell ρ_sft.
        """
        found: list[Candidate] = []
        together = self.prompter.sequences
        for start in range(0, count, together):
            found.extend(self._drawn(min(together, count - start), weighed))
        return found

    def _drawn(self, count: int, weighed: bool) -> Iterator[Candidate]:
        first = self.tally.drawn
        streams = self.prompter.start(self.prompt, count, self._sampling, first)
        self.cancellation.enter(streams)
        rewrites = [stream.result() for stream in streams]
        numbered = list(enumerate(rewrites, start=self.tally.drawn))
        self.tally.drawn += count
        self.first = self.first or rewrites[0]
        usable = [(number, one) for number, one in numbered if self._may_be_used(one)]
        references = [0.0] * len(usable)
        if weighed and usable and not self.cancellation.asked:
            outputs = [rewrite.tokens for _, rewrite in usable]
            references = self.prompter.reference_score(self.prompt, outputs)
        for (number, rewrite), reference in zip(usable, references, strict=True):
            yield Candidate(number, rewrite, reference)

    def _may_be_used(self, rewrite: Rewrite) -> bool:
        refusal = refusal_of(self.protected, rewrite)
        if refusal is not None:
            self.tally.refused[refusal.kind] += 1
            self.tally.last_refusal = refusal
        return refusal is None

    def none_left(self) -> str:
        """Why the prompt goes out unchanged when there is no candidate."""
        if self.cancellation.asked:
            return "cancelled"
        if self.tally.drawn == 1 and self.tally.last_refusal is not None:
            return self.tally.last_refusal.reason
        counted = ", ".join(f"{count} {kind}" for kind, count in self.tally.refused.items())
        return f"none of {self.tally.drawn} rewrites may be used ({counted})"

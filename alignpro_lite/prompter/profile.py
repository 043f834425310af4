"""The profile of a prompter: all that its callers must know, whatever weights it has."""

from __future__ import annotations

from dataclasses import dataclass

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.prompter.template import RewriteTemplate

DOUBT = 0.1
"""The probability of the empty hint from which a prompter adds nothing, unless its card says
another. A hint too few costs little; one too many can talk a target out of refusing, or spoil an
answer that has to be exact."""


@dataclass(frozen=True)
class PrompterProfile:
    """How a prompter is asked, and what it was trained with.

    Attributes:
        name: What people call it.
        template: The rewrite template.
        sampling: How rewrites are drawn unless the caller says otherwise.
        max_tokens: The most tokens of a rewrite, the stop token included.
        is_trained: Whether ρ_θ differs from ρ_sft.
        strength: The prompter tuning parameter λ it was trained with; None if it is not known.
        has_reference: Whether its weights are ρ_sft too, with the adapter switched off.
        doubt: The probability of the empty hint from which it adds nothing; see `DOUBT`.
    """

    name: str
    template: RewriteTemplate
    sampling: Sampling
    max_tokens: int
    is_trained: bool
    strength: float | None
    has_reference: bool = True
    doubt: float = DOUBT

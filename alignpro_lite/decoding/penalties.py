"""What makes tokens of an answer more or less likely than the model has them."""

from __future__ import annotations

from dataclasses import dataclass

from alignpro_lite.decoding.sampling import require_range


@dataclass(frozen=True)
class Penalties:
    """Changes to the logits of an answer, before its tokens are drawn.

    They shape the target's answer alone. A prompter is never given them: the probability of a
    rewrite must be that of its model.

    Attributes:
        presence: Taken once from the logit of every token that is in the answer already, as OpenAI
            defines it; -2 to 2.
        frequency: Taken from it as often as the token is there; -2 to 2.
        repeat: Divides the logit of such a token if it is positive and multiplies it otherwise, as
            llama.cpp does; above 0, at most 100, and 1 for none. The prompt does not count.
        bias: Token ids and what is added to their logits first, -100 to 100.
    """

    presence: float = 0.0
    frequency: float = 0.0
    repeat: float = 1.0
    bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            InputError: Names the setting, the value and the range.
        """
        require_range(-2 <= self.presence <= 2, "presence penalty", self.presence, "-2 to 2")
        require_range(-2 <= self.frequency <= 2, "frequency penalty", self.frequency, "-2 to 2")
        require_range(0 < self.repeat <= 100, "repeat penalty", self.repeat, "above 0, at most 100")
        for token, bias in self.bias:
            require_range(-100 <= bias <= 100, f"bias of token {token}", bias, "-100 to 100")

    @property
    def counts(self) -> bool:
        """Whether anything depends on the tokens that are in the answer already."""
        return (self.presence, self.frequency, self.repeat) != (0, 0, 1)


NO_PENALTIES = Penalties()
"""Leaves every token as likely as the model has it."""

"""The switch that a chat template has for the thoughts of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.reasoning import reasoning_format
from alignpro_lite.errors import InputError

Thinking: TypeAlias = Literal["auto", "on", "off"]
"""Whether a model thinks before it answers; `auto` leaves it to its chat template."""

_VARIABLES = ("enable_thinking", "thinking", "reasoning")
"""What published templates call the switch."""


def switch_values(thinking: Thinking) -> dict[str, bool]:
    """Variables of a chat template for a position of its switch."""
    return {} if thinking == "auto" else dict.fromkeys(_VARIABLES, thinking == "on")


@dataclass(frozen=True)
class ThinkingSwitch:
    """The switch of one chat template.

    Attributes:
        template: The template; None for a model without one.
        names: What it writes for names such as `bos_token`.
    """

    template: str | None
    names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def default(self) -> Literal["on", "off"] | None:
        """Where it stands if nobody touches it; None if there is none.

        A template that names a variable need not use it, so it is rendered in every position.
        """
        if not any(name in (self.template or "") for name in _VARIABLES):
            return None
        on, off, untouched = (self._rendered(thinking) for thinking in ("on", "off", "auto"))
        if on == off:
            return None
        return "off" if untouched == off else "on"

    def _rendered(self, thinking: Thinking) -> object:
        ask = [Message("user", "Hello")]
        return render(self.template, ask, self.names, switch_values(thinking))

    def values(self, thinking: Thinking) -> dict[str, bool]:
        """Variables of the template for a position.

        Raises:
            InputError: The template has no switch, and the model may do otherwise.
        """
        if thinking == "auto":
            return {}
        known = reasoning_format(self.template)
        if self.default is None and (known or thinking == "on"):
            thinks = "it thinks as it likes" if known else "it does not think"
            raise InputError(
                f"Thinking cannot be turned {thinking}: the model's chat template has no switch "
                f"for it, {thinks}.",
                "Leave --thinking out, or use another model.",
            )
        return switch_values(thinking)

    def position(self, thinking: Thinking) -> Thinking:
        """Where the switch stands; `auto` if there is none."""
        return self.default or "auto" if thinking == "auto" else thinking

    def briefly(self, thinking: Thinking) -> Thinking:
        """How short answers are asked for: without a thought where that can be had."""
        return "off" if self.default else thinking

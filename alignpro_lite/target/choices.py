"""Choosing between replies: how likely each of several texts is to begin an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Chooser(Protocol):
    """A loaded chat model that can be asked which reply it would give."""

    def choice_log_probs(
        self,
        conversations: Sequence[Sequence[Message]],
        choices: Sequence[str],
        cancellation: Cancellation | None = None,
    ) -> NDArray[np.float64]:
        """How likely it is that the answer to each conversation begins with one of several texts.

        Args:
            conversations: Each is asked without a thought, where the template can; where it opens
                one regardless, that is closed at once.
            choices: Only the first tokens in which they differ count, and what they have in common
                before is given.
            cancellation: Stops the reading.

        Returns:
            Log-probabilities at temperature 1, natural, shape (conversations, choices); NaN for
            conversations that were not read because of a cancellation.

        Raises:
            ContextOverflowError: A conversation does not fit; see `require_choice_room`.
            InputError: A text is empty, or the beginning of another.
        """

    def require_choice_room(self, messages: Sequence[Message], choices: Sequence[str]) -> None:
        """Refuse a conversation that `choice_log_probs` cannot hold.

        Raises:
            ContextOverflowError: It does not fit.
            InputError: See `choice_log_probs`.
        """

    def close(self) -> None:
        """Free the model."""


def openings(
    choices: Sequence[str], tokenize: Callable[[str], Sequence[int]]
) -> tuple[list[int], list[int]]:
    """The tokens that several texts begin with in common, and the next one of each.

    Args:
        choices: The texts.
        tokenize: Gives the token ids of a text.

    Raises:
        InputError: A text is empty, or the beginning of another.
    """
    written = [list(tokenize(choice)) for choice in choices]
    columns = enumerate(zip(*written, strict=False))
    shortest = min(map(len, written))
    shared = next((place for place, column in columns if len({*column}) > 1), shortest)
    firsts = [tokens[shared : shared + 1] for tokens in written]
    if not all(firsts) or len({token for (token,) in firsts}) < len(firsts):
        raise InputError(
            f"None of the replies {', '.join(map(repr, choices))} may be empty, nor be the "
            "beginning of another.",
            "Choose other words.",
        )
    return written[0][:shared], [token for (token,) in firsts]

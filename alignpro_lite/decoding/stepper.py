"""What the decoding loop needs of a native context; each engine has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from alignpro_lite.decoding.sampling import Draw

S_in = TypeVar("S_in", contravariant=True)


class Stepper(Protocol[S_in]):
    """A native context as the loop sees it. Only the loop's thread calls it.

    Rows are numbered 0 to rows - 1; each holds one sequence's KV cache.
    """

    @property
    def rows(self) -> int:
        """How many sequences the context holds at once."""

    @property
    def row_capacity(self) -> int:
        """How many tokens one row holds at most."""

    @property
    def capacity(self) -> int:
        """How many tokens all rows hold together; a prefix shared by rows counts once."""

    @property
    def micro_batch(self) -> int:
        """How many prompt tokens one `prefill` may carry."""

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row that holds `start` tokens; output 0 is the last one's."""

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""

    def draw(self, output: int, sampler: S_in) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`."""

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""

    def share(self, source: int, target: int, length: int) -> None:
        """Make an empty row hold the first `length` tokens of another one."""

    def trim(self, row: int, length: int) -> bool:
        """Forget all but the first `length` tokens; False if only clearing the row is possible."""

    def release(self, sampler: S_in) -> None:
        """Free what belongs to a sampler."""

    def close(self) -> None:
        """Free the native context."""

"""One answer of the target, as it is decoded: its thought, its text, and the tokens of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alignpro_lite.decoding.engine import FinishReason, Stream
from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.decoding.reasoning import Passage, ReasoningSplitter, split_stream
from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.decoding.text import StopStrings, decoded
from alignpro_lite.target.llama import TargetSampler
from alignpro_lite.target.question import Question

if TYPE_CHECKING:
    from alignpro_lite.target.target import LlamaTarget


class AnswerStream:
    """The text of one answer, read once, as it is decoded."""

    def __init__(
        self,
        target: LlamaTarget,
        tokens: Stream[TargetSampler],
        question: Question,
        splitter: ReasoningSplitter,
        prompt_tokens: int,
    ) -> None:
        self._target = target
        self._tokens = tokens
        self._begun = question.begun
        self.prompt_tokens = prompt_tokens - len(question.begun)
        """Tokens of the conversation, without those that the answer begins with."""
        self._splitter = splitter
        self._stops = StopStrings(question.stop)
        self._thought: list[str] = []
        self._reported = question.log_probs is not None
        self._answer_begun = False
        self._unreported: list[TokenLogProb] = []
        self.log_probs: list[TokenLogProb] = []
        """Of the tokens of the answer so far, if they were asked for."""
        self.draws: list[Draw] = []
        self.log_prob = 0.0
        """Natural, of the tokens decoded here, without those that the answer began with."""

    @property
    def tokens(self) -> list[int]:
        """Ids of the tokens so far."""
        return [draw.token for draw in self.draws]

    @property
    def token_count(self) -> int:
        """Tokens so far, those of the thought and the stop token included."""
        return len(self.draws)

    @property
    def reasoning(self) -> str:
        """The model's thought so far, empty if there is none."""
        return "".join(self._thought).strip()

    @property
    def thought_only(self) -> bool:
        """Whether the model thought and has not come to an answer."""
        return self._splitter.thought_only

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: stop, length or cancelled; None while it runs."""
        return "stop" if self._stops.found else self._tokens.finish_reason

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of the answer, see `passages`."""
        return (passage.text for passage in self.passages() if not passage.is_thought)

    def passages(self) -> Iterator[Passage]:
        """Yield pieces of the thought and of the answer; leaving early stops the decoding."""
        try:
            for passage in split_stream(decoded(self._pieces()), self._splitter, self._stops):
                if passage.is_thought:
                    self._thought.append(passage.text)
                yield self._with_log_probs(passage) if self._reported else passage
        finally:
            self._tokens.cancel()

    def cancel(self) -> None:
        """Stop after the current token; safe from any thread."""
        self._tokens.cancel()

    def _pieces(self) -> Iterator[bytes]:
        for draw in self._begun:
            yield self._piece(draw)
        for draw in self._tokens:
            self.log_prob += draw.log_prob
            yield self._piece(draw)

    def _piece(self, draw: Draw) -> bytes:
        self.draws.append(draw)
        if self._reported:
            self._unreported.append(self._target.log_probs_of(draw))
        return self._target.spoken(draw.token)

    def _with_log_probs(self, passage: Passage) -> Passage:
        """A passage with the tokens that it is made of, which are those of the answer in the end.

        Before the answer there may be a tag in the same tokens, or white space that is not shown.
        """
        size = len(passage.text.encode()) + self._splitter.held_size + self._stops.held_size
        made_of = [token for token in self._unreported if token.piece]
        if not self._answer_begun:
            made_of = list(_last_pieces(made_of, size))
        self._unreported = []
        if not passage.is_thought:
            self._answer_begun = True
            self.log_probs.extend(made_of)
        return replace(passage, log_probs=tuple(made_of))


def _last_pieces(tokens: Sequence[TokenLogProb], size: int) -> Sequence[TokenLogProb]:
    """The fewest last tokens that have so many bytes together."""
    start = len(tokens)
    while start > 0 and size > 0:
        start -= 1
        size -= len(tokens[start].piece)
    return tokens[start:]

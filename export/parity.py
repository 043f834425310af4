"""Compare an exported model with the torch original on real text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from alignpro_lite.errors import ExportError

MIN_POSITIONS = 500
_MAX_POSITIONS = 1024
WINDOW = 256
_GREEDY_PROMPT = 32
_GREEDY_TOKENS = 24

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
Continuation = Callable[[Ids, int], list[int]]
"""Continues a prompt [S] by a number of tokens."""


class LogitsModel(Protocol):
    """A model under comparison: token ids [S] to next-token logits [S, V]."""

    def logits(self, ids: Ids) -> Logits:
        """Compute logits from an empty cache."""
        ...


@dataclass(frozen=True)
class ParityReport:
    """How far an exported model is from torch.

    Attributes:
        positions: Positions of text compared.
        argmax_agreement: Share of positions with the same most likely token, 0 to 1.
        required_agreement: The least that passes.
        max_error: Largest absolute difference of a logit.
        mean_error: Mean absolute difference of the logits.
        greedy_reference: Text that torch continues with, greedily.
        greedy_exported: Text that the exported model continues with.
        greedy_same_tokens: How many tokens of the two agree before the first difference.
        greedy_tokens: How many tokens were generated.
    """

    positions: int
    argmax_agreement: float
    required_agreement: float
    max_error: float
    mean_error: float
    greedy_reference: str
    greedy_exported: str
    greedy_same_tokens: int
    greedy_tokens: int

    @property
    def passed(self) -> bool:
        """Whether the agreement reaches what is required."""
        return self.argmax_agreement >= self.required_agreement

    def summary(self) -> str:
        """The figures in one line."""
        return (
            f"argmax agreement {self.argmax_agreement:.2%} over {self.positions} positions "
            f"(required {self.required_agreement:.0%}), logit error max {self.max_error:.3g} "
            f"mean {self.mean_error:.3g}, greedy text equal for {self.greedy_same_tokens} of "
            f"{self.greedy_tokens} tokens"
        )

    def require(self, what: str, cure: str) -> None:
        """Refuse a model whose agreement is too low.

        Args:
            what: What was exported, for the message.
            cure: What the user can do.

        Raises:
            ExportError: The agreement is below the requirement.
        """
        if not self.passed:
            short = self.required_agreement - self.argmax_agreement
            raise ExportError(
                f"{what} disagrees with torch by {short:.2%} too much: {self.summary()}.", cure
            )


class TorchLogits:
    """The original model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model

    def logits(self, ids: Ids) -> Logits:
        """Compute logits [S, V] for ids [S]."""
        with torch.inference_mode():
            output = self._model(torch.from_numpy(ids)[None], use_cache=False)
        logits: Logits = output.logits[0].float().numpy()
        return logits


def compare_logits(
    reference: LogitsModel,
    exported: LogitsModel,
    tokenizer: Tokenizer,
    prefix: tuple[int, ...],
    required_agreement: float,
    continue_exported: Continuation | None = None,
) -> ParityReport:
    """Compare two models on the parity text.

    Args:
        reference: The torch original.
        exported: The exported model.
        tokenizer: Their tokenizer.
        prefix: Ids before every window (bos, where the model expects one).
        required_agreement: The least argmax agreement that passes, 0 to 1.
        continue_exported: Continues a prompt with the exported model's own cache; without it, the
            logits of the whole text are computed for every token.

    Returns:
        The report; the caller decides what follows.
    """
    same = positions = 0
    largest = total = 0.0
    for window in windows(tokenizer, prefix):
        expected, found = reference.logits(window), exported.logits(window)
        vocabulary = min(expected.shape[1], found.shape[1])
        expected, found = expected[:, :vocabulary], found[:, :vocabulary]
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        error = np.abs(expected - found)
        largest = max(largest, float(error.max()))
        total += float(error.mean()) * len(window)
        positions += len(window)
    prompt = next(windows(tokenizer, prefix))[:_GREEDY_PROMPT]
    wanted = greedy(reference, prompt, _GREEDY_TOKENS)
    if continue_exported is not None:
        got = continue_exported(prompt, _GREEDY_TOKENS)
    else:
        got = greedy(exported, prompt, _GREEDY_TOKENS)
    equal = [a == b for a, b in zip(wanted, got, strict=True)]
    return ParityReport(
        positions=positions,
        argmax_agreement=same / positions,
        required_agreement=required_agreement,
        max_error=largest,
        mean_error=total / positions,
        greedy_reference=tokenizer.decode(wanted),
        greedy_exported=tokenizer.decode(got),
        greedy_same_tokens=equal.index(False) if False in equal else len(equal),
        greedy_tokens=len(equal),
    )


def windows(tokenizer: Tokenizer, prefix: tuple[int, ...]) -> Iterator[Ids]:
    """Cut the parity text into windows of at most 256 ids, each beginning with the prefix."""
    text = resources.files("alignpro_lite.pretrained").joinpath("parity_text.txt")
    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    ids = ids[:_MAX_POSITIONS]
    if len(ids) < MIN_POSITIONS:
        raise ExportError(
            f"Expected at least {MIN_POSITIONS} tokens of parity text, found {len(ids)}.",
            "Check the tokenizer of the model.",
        )
    step = WINDOW - len(prefix)
    for start in range(0, len(ids), step):
        yield np.array([*prefix, *ids[start : start + step]], np.int64)


def greedy(model: LogitsModel, prompt: Ids, count: int) -> list[int]:
    """Continue a prompt with the most likely tokens, without a cache."""
    ids = prompt
    for _ in range(count):
        ids = np.append(ids, model.logits(ids)[-1].argmax())
    return [int(token) for token in ids[len(prompt) :]]

"""Compare an exported model with the torch original on real text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from alignpro_lite.errors import ExportError
from alignpro_lite.export.logits import Ids, LlamaLogits, Logits, LogitsModel, TorchLogits
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.torch_model import TorchModel
from alignpro_lite.prompter.bundle import Parity

MIN_POSITIONS = 500
_MAX_POSITIONS = 1024
WINDOW = 256
_GREEDY_PROMPT = 32
_GREEDY_TOKENS = 24

Continuation = Callable[[Ids, int], list[int]]
"""Continues a prompt [S] by a number of tokens."""


@dataclass(frozen=True)
class Reference:
    """What a model in torch computes of the parity text.

    Attributes:
        windows: Token ids of each window [S].
        logits: Logits of each window [S, V].
        greedy: How it continues the beginning of the first window.
    """

    windows: tuple[Ids, ...]
    logits: tuple[Logits, ...]
    greedy: tuple[int, ...]


def reference_of(source: TorchModel) -> Reference:
    """Compute what exports of a model are compared with.

    Raises:
        ExportError: The tokenizer makes too few tokens of the parity text.
    """
    model, special = TorchLogits(source.model), source.special
    prefix = (special.bos,) if special.add_bos and special.bos is not None else ()
    cut = tuple(windows(source.tokenizer, prefix))
    return Reference(
        cut,
        tuple(map(model.logits, cut)),
        tuple(greedy(model, cut[0][:_GREEDY_PROMPT], _GREEDY_TOKENS)),
    )


@dataclass(frozen=True)
class Bar:
    """What an exported model has to reach.

    Attributes:
        agreement: The least argmax agreement, 0 to 1.
        perplexity_ratio: The largest perplexity, divided by that of the original.
    """

    agreement: float
    perplexity_ratio: float = math.inf


def compare_logits(
    reference: Reference,
    exported: LogitsModel,
    bar: Bar,
    continue_exported: Continuation | None = None,
) -> Parity:
    """Compare an exported model with its torch original on the parity text.

    Args:
        reference: The original.
        exported: The exported model.
        bar: What passes.
        continue_exported: Continues a prompt with the exported model's own cache; without it, the
            logits of the whole text are computed for every token.

    Returns:
        The figures; `mismatch_allowed` is set if they are too low, see `require_parity`.
    """
    same = positions = predicted = 0
    largest = surprise = 0.0
    for window, expected in zip(reference.windows, reference.logits, strict=True):
        found = exported.logits(window)
        vocabulary = min(expected.shape[1], found.shape[1])
        expected, found = expected[:, :vocabulary], found[:, :vocabulary]
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        largest = max(largest, float(np.abs(expected - found).max()))
        positions += len(window)
        surprise += _surprise(found, window) - _surprise(expected, window)
        predicted += len(window) - 1
    prompt = reference.windows[0][:_GREEDY_PROMPT]
    if continue_exported is not None:
        got = continue_exported(prompt, _GREEDY_TOKENS)
    else:
        got = greedy(exported, prompt, _GREEDY_TOKENS)
    equal = [a == b for a, b in zip(reference.greedy, got, strict=True)]
    agreement, ratio = same / positions, math.exp(surprise / predicted)
    return Parity(
        positions=positions,
        argmax_agreement=agreement,
        required=bar.agreement,
        perplexity_ratio=ratio,
        max_logit_error=largest,
        greedy_agreement=(equal.index(False) if False in equal else len(equal)) / len(equal),
        mismatch_allowed=agreement < bar.agreement or ratio > bar.perplexity_ratio,
    )


def compare_gguf(reference: Reference, path: Path, bar: Bar) -> Parity:
    """Compare a GGUF file, as llama.cpp reads it, with its torch original; see `compare_logits`.

    Raises:
        ModelFileError: llama.cpp cannot open the file.
        DeviceError: There is not enough memory.
    """
    with LlamaLogits(path, WINDOW, usable_cores()) as exported:
        return compare_logits(reference, exported, bar)


def require_parity(parity: Parity, what: str, cure: str) -> None:
    """Refuse a model that agrees with torch less than it has to.

    Args:
        parity: The figures.
        what: What was exported, for the message.
        cure: What the user can do.

    Raises:
        ExportError: The agreement is below the requirement, or the perplexity above.
    """
    if parity.mismatch_allowed:
        short = parity.required - parity.argmax_agreement
        by = f" by {short:.2%}" if short > 0 else ""
        raise ExportError(f"{what} disagrees with torch{by} too much: {parity.summary()}.", cure)


def windows(tokenizer: Tokenizer, prefix: tuple[int, ...]) -> Iterator[Ids]:
    """Cut the parity text into windows of at most 256 ids, each beginning with the prefix (bos)."""
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


def _surprise(logits: Logits, ids: Ids) -> float:
    """Nats by which logits [S, V] fail to predict the ids [S], summed over all but the first."""
    before = logits[:-1]
    largest = before.max(-1)
    totals = np.log(np.exp(before - largest[:, None]).sum(-1)) + largest
    chosen = before[np.arange(len(before)), ids[1:]]
    return float((totals - chosen).sum(dtype=np.float64))


def greedy(model: LogitsModel, prompt: Ids, count: int) -> list[int]:
    """Continue a prompt with the most likely tokens, without a cache."""
    ids = prompt
    for _ in range(count):
        ids = np.append(ids, model.logits(ids)[-1].argmax())
    return [int(token) for token in ids[len(prompt) :]]

"""An exported reward model in onnxruntime, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.engine import HomeProcess
from alignpro_lite.decoding.ort import open_session
from alignpro_lite.decoding.tokenizer import read_tokenizer, tokenizer_errors
from alignpro_lite.errors import RewardError, reason_of
from alignpro_lite.reward.bundle import REWARD_BUNDLE, RewardModel
from alignpro_lite.reward.exchange import EncodedExchange, Exchange, encode, padded, text_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_TOKENS = 2048
"""Tokens of one call of the graph, padding included; bounds its memory."""


class OnnxScorer:
    """An exported reward model.

    Attributes:
        names: The parts it gives.
    """

    def __init__(
        self, folder: Path, model: RewardModel, threads: int, watch: LoadWatch | None = None
    ) -> None:
        """Load the graph and the tokenizer from a bundle's folder, before the eyes of a watcher.

        Raises:
            CancelledError: The watcher has cancelled it.
            BundleError: A file cannot be read.
            MissingDependencyError: onnxruntime is not installed.
        """
        self.names = model.parts
        self._model = model
        self._home = HomeProcess("reward")
        self._file = folder / model.tokenizer
        self._tokenizer = text_only(read_tokenizer(self._file, REWARD_BUNDLE.cure))
        # The target decodes at the same time: threads that spin would take its cores.
        self._session: Any = open_session(
            folder / model.graph, threads, spinning=False, cure=REWARD_BUNDLE.cure, watch=watch
        )
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, parts).

        Raises:
            RewardError: The graph failed.
            BundleError: The tokenizer failed.
            DeviceError: This process was forked from the one that loaded the reward.
        """
        self._home.require()
        with tokenizer_errors(self._file, REWARD_BUNDLE.cure):
            encoded = encode(self._tokenizer, self._model.layout, exchanges)
        scores = np.empty((len(encoded), len(self.names)))
        for rows in _batches([len(exchange.ids) for exchange in encoded]):
            scores[rows] = self._run([encoded[row] for row in rows])
        return scores

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _run(self, batch: Sequence[EncodedExchange]) -> NDArray[np.float32]:
        feeds = padded(batch, self._model.pad)
        try:
            (logits,) = self._session.run(["logits"], {name: feeds[name] for name in self._inputs})
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise RewardError(
                f"The reward graph failed ({reason_of(error)}).", REWARD_BUNDLE.cure
            ) from error
        mask = feeds["attention_mask"]
        if logits.shape != (*mask.shape, len(self.names)):
            raise RewardError(
                f"The reward graph must give {len(self.names)} parts for each of {mask.shape} "
                f"tokens, found outputs of shape {logits.shape}.",
                REWARD_BUNDLE.cure,
            )
        # The head is linear: the mean of its outputs is its output for the mean of the tokens.
        total = np.einsum("btp,bt->bp", logits, mask.astype(np.float32))
        return cast("NDArray[np.float32]", total / mask.sum(axis=1, keepdims=True))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of similar length together, at most BATCH_TOKENS at a time or a single row."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch

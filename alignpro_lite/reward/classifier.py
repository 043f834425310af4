"""A Hugging Face sequence classifier, such as a published reward model, as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.tokenizer import TextTokenizer
from alignpro_lite.errors import InputError, ModelFileError, reason_of
from alignpro_lite.pretrained.folder import default_template, readable_folder
from alignpro_lite.reward.exchange import EncodedExchange, Exchange

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HfScorer:
    """A classifier's raw outputs, one per part.

    A tokenizer with a chat template gets the exchange as a conversation, any other tokenizer as
    a pair of texts.

    Attributes:
        names: What its outputs are called.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        """Load a model, onto the GPU if there is one.

        Args:
            folder: A Hugging Face folder with safetensors and a fast tokenizer.
            names: One per output.

        Raises:
            ExportError: The folder names code to run or holds no safetensors.
            InputError: The model has another number of outputs.
            ModelFileError: transformers cannot open it.
        """
        self.names = names
        self._folder = folder
        self._model, self._tokenizer = _load(folder)
        self._template = default_template(self._tokenizer.chat_template)
        self._names = {
            name: text
            for name, text in self._tokenizer.special_tokens_map.items()
            if isinstance(text, str)
        }
        self._text = TextTokenizer(self._tokenizer.backend_tokenizer, self._template, self._names)
        if self._model.config.num_labels != len(names):
            raise InputError(
                f"{folder} has {self._model.config.num_labels} outputs, found {len(names)} names "
                f"for them ({', '.join(names)}).",
                "Give one name per output.",
            )
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, parts); a conversation longer than the model reads is NaN.

        Raises:
            ModelFileError, InputError: The chat template cannot be used; see `render`.
        """
        scores = np.full((len(exchanges), len(self.names)), np.nan)
        with torch.inference_mode():
            for row, exchange in enumerate(exchanges):
                # One at a time: decoders find their last token by a padding id many do not have.
                encode = self._conversation if self._template else self._pair
                encoded = encode(exchange)
                if len(encoded.ids) <= self._longest:
                    scores[row] = self._forward(encoded).double().cpu().numpy()
        return scores

    def close(self) -> None:
        """Free the weights."""
        del self._model

    @property
    def _longest(self) -> int:
        # Tokenizers without a limit name an absurdly large one.
        positions = getattr(self._model.config, "max_position_embeddings", None)
        return min(self._tokenizer.model_max_length, positions or 2**31)

    def _forward(self, encoded: EncodedExchange) -> Tensor:
        inputs = {"input_ids": encoded.ids}
        if "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = encoded.token_types
        tensors = {
            name: torch.tensor([values], device=self._model.device)
            for name, values in inputs.items()
        }
        return cast(Tensor, self._model(**tensors).logits[0])

    def _conversation(self, exchange: Exchange) -> EncodedExchange:
        """Token ids under the chat template; special tokens in a user's text stay text."""
        talk = [Message("user", exchange.prompt), Message("assistant", exchange.answer)]
        ids = self._text.encode(render(self._template, talk, self._names))
        return EncodedExchange(tuple(ids), (0,) * len(ids))

    def _pair(self, exchange: Exchange) -> EncodedExchange:
        encoded = self._tokenizer(
            exchange.prompt,
            exchange.answer,
            truncation="longest_first",
            max_length=self._longest,
            split_special_tokens=True,  # what a user writes is text
            return_token_type_ids=True,
        )
        return EncodedExchange(tuple(encoded.input_ids), tuple(encoded.token_type_ids))


def _load(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    with readable_folder(folder) as source:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, local_files_only=True, trust_remote_code=False
            )
            model, loading = cast(Any, AutoModelForSequenceClassification).from_pretrained(
                source,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers' exceptions share no base
            raise ModelFileError(
                f"{folder} cannot be opened as a sequence classifier ({reason_of(error)}).",
                "Name a complete Hugging Face folder of a sequence classifier.",
            ) from error
    if loading["missing_keys"]:
        raise ModelFileError(
            f"{folder} lacks {len(loading['missing_keys'])} tensors of a sequence classifier, "
            f"first {min(loading['missing_keys'])}.",
            "Name a trained classifier; `alignpro-lite train reward` makes one of a base model.",
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelFileError(
            f"{folder} has no tokenizer.json.", "Convert its tokenizer to a fast one and save it."
        )
    return model.eval(), tokenizer

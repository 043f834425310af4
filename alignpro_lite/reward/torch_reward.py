"""A reward model in torch: any Hugging Face encoder or decoder with one output per named part.

The score of a part is the mean over the tokens of a token classifier's output, which is a linear
head on the mean-pooled last layer: sentence encoders keep what they know there, and not in [CLS]
(docs/training-log.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    logging,
)

from alignpro_lite.errors import ExportError, ModelFileError, reason_of
from alignpro_lite.pretrained.folder import readable_folder
from alignpro_lite.pretrained.merging import attach_adapter, merge_attached
from alignpro_lite.registry.record import Count, Origin, Record, parse_written, read_json
from alignpro_lite.reward.exchange import (
    EncodedExchange,
    Exchange,
    ExchangeLayout,
    encode,
    padded,
    text_only,
)

REWARD_CARD = "reward_card.json"
ADAPTER = "adapter_model.safetensors"
_SCORED_TOGETHER = 32


class RewardCard(Record):
    """What a trained reward model is.

    Attributes:
        base: Name or folder of the model it was trained from.
        parts: Name of each output, such as helpfulness.
        prompt_tokens: Most tokens it reads of a prompt.
        answer_tokens: Most tokens it reads of an answer.
        metrics: Held-out figures of each part.
    """

    base: str
    parts: tuple[str, ...]
    prompt_tokens: Count
    answer_tokens: Count
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class TorchReward:
    """A reward model with what it needs to read an exchange.

    Attributes:
        model: A token classifier with one output per part.
        tokenizer: Its tokenizer, without truncation or padding.
        layout: How an exchange becomes its input.
        card: What it is.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    layout: ExchangeLayout
    card: RewardCard

    @property
    def pad(self) -> int:
        """The id that fills a batch; it is masked."""
        return cast(int, self.model.config.pad_token_id)

    def score(self, exchanges: Sequence[Exchange]) -> Tensor:
        """Scores of exchanges, shape (n, parts), float32, on the CPU."""
        encoded = encode(self.tokenizer, self.layout, exchanges)
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
        scores = torch.empty(len(encoded), len(self.card.parts))
        with torch.inference_mode():
            for start in range(0, len(order), _SCORED_TOGETHER):
                chunk = order[start : start + _SCORED_TOGETHER]
                scores[chunk] = self.forward([encoded[index] for index in chunk]).cpu()
        return scores

    def forward(self, encoded: Sequence[EncodedExchange]) -> Tensor:
        """Scores of one batch, shape (n, parts), differentiable."""
        batch = batch_of(encoded, self.pad)
        inputs = {key: value.to(self.model.device) for key, value in batch.items()}
        return mean_over_tokens(self.model(**inputs).logits, inputs["attention_mask"])


def mean_over_tokens(logits: Tensor, mask: Tensor) -> Tensor:
    """Scores of exchanges from the outputs at their tokens.

    Args:
        logits: Shape (n, tokens, parts).
        mask: 1 where there is a token, 0 where there is padding; shape (n, tokens).

    Returns:
        Shape (n, parts), float32.
    """
    weights = mask[..., None].float()
    return (logits.float() * weights).sum(dim=1) / weights.sum(dim=1)


def batch_of(encoded: Sequence[EncodedExchange], pad: int) -> dict[str, Tensor]:
    """A padded batch as tensors; token types only where the model tells parts apart by them."""
    batch = {name: torch.from_numpy(values) for name, values in padded(encoded, pad).items()}
    if not batch["token_type_ids"].any():
        del batch["token_type_ids"]
    return batch


def load_base(base: Path, card: RewardCard) -> TorchReward:
    """Load a Hugging Face folder with a new head, one output for each part of the card.

    Raises:
        ExportError: The folder names code to run or holds no safetensors.
        ModelFileError: transformers cannot open it.
    """
    logging.set_verbosity_error()  # transformers warns of the head, which is meant to be new
    with readable_folder(base) as folder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model = cast(Any, AutoModelForTokenClassification).from_pretrained(
                folder,
                config=_config(folder, len(card.parts)),
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:  # transformers' exceptions share no base
            raise ModelFileError(
                f"{base} cannot be opened as a token classifier ({reason_of(error)}).",
                "Name a complete Hugging Face encoder or decoder.",
            ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelFileError(
            f"{base} has no tokenizer.json.", "Convert its tokenizer to a fast one and save it."
        )
    model.name_or_path = model.config.name_or_path = ""  # the view is gone
    model.config.pad_token_id = tokenizer.pad_token_id or 0
    layout = _layout(tokenizer, card, segments=getattr(model.config, "type_vocab_size", 0) > 1)
    return TorchReward(model.eval(), text_only(tokenizer.backend_tokenizer), layout, card)


def _config(folder: Path, outputs: int) -> PretrainedConfig:
    """The base's configuration with a head of that many outputs, and without dropout.

    One pass over a few thousand pairs hardly overfits an adapter, and dropout keeps torch from
    its fused attention, which takes a third of a step on a CPU.
    """
    config: PretrainedConfig = AutoConfig.from_pretrained(
        folder, num_labels=outputs, local_files_only=True, trust_remote_code=False
    )
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def load_trained(folder: Path, base: Path) -> TorchReward:
    """Load what `train reward` wrote, with its adapter merged.

    Args:
        folder: Holds the card, and an adapter or all weights.
        base: The folder of the base model.

    Raises:
        ModelFileError: The folder is incomplete or belongs to another base.
    """
    card = read_card(folder)
    if not (folder / ADAPTER).is_file():
        return load_base(folder, card)
    reward = load_base(base, card)
    try:
        merged = merge_attached(attach_adapter(reward.model, folder))
    except ExportError as error:
        raise ModelFileError(
            error.problem, f"Give the base it was trained from, {card.base}."
        ) from (error)
    return TorchReward(merged.eval(), reward.tokenizer, reward.layout, card)


def read_card(folder: Path) -> RewardCard:
    """Read the card of a trained reward model, which is next to its weights.

    Raises:
        ModelFileError: There is none, or it is damaged.
    """
    cure = "Give the folder that `alignpro-lite train reward` wrote."
    origin = Origin(folder / REWARD_CARD, ModelFileError, cure)
    return parse_written(RewardCard, read_json(origin, "trained reward model"), origin)


def _layout(tokenizer: PreTrainedTokenizerFast, card: RewardCard, segments: bool) -> ExchangeLayout:
    """[CLS] prompt [SEP] answer [SEP] for an encoder, bos prompt newline answer eos otherwise."""
    blank = tokenizer("\n\n", add_special_tokens=False).input_ids
    before = (tokenizer.cls_token_id, tokenizer.bos_token_id)
    after = (tokenizer.sep_token_id, tokenizer.eos_token_id)
    first = next((token for token in before if token is not None), None)
    last = next((token for token in after if token is not None), None)
    return ExchangeLayout(
        before=() if first is None else (first,),
        between=tuple(blank) if tokenizer.sep_token_id is None else (tokenizer.sep_token_id,),
        after=() if last is None else (last,),
        segments=segments,
        prompt_tokens=card.prompt_tokens,
        answer_tokens=card.answer_tokens,
    )

"""Fits a reward model: Bradley-Terry on pairs, squared error on ratings, by transformers' Trainer.

Bradley-Terry: the probability that the chosen answer is the better one is
sigmoid(r(x, chosen) - r(x, rejected)) (Bradley and Terry 1952; InstructGPT 2022, equation 1).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from msgspec import structs
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from alignpro_lite.pretrained.adapter import save_adapter
from alignpro_lite.registry.record import write_record
from alignpro_lite.reward.exchange import EncodedExchange, Exchange, encode
from alignpro_lite.reward.torch_reward import (
    REWARD_CARD,
    RewardCard,
    TorchReward,
    batch_of,
    load_base,
    mean_over_tokens,
)
from alignpro_lite.train.allocator import keep_freed_memory
from alignpro_lite.train.reward.config import RewardConfig, RewardModelSection
from alignpro_lite.train.reward.data import Example, RewardData
from alignpro_lite.train.reward.held_out import held_out_metrics

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


_Row: TypeAlias = tuple[Example, list[EncodedExchange]]
"""An example ready for a batch, with its answers encoded."""


def _encoded(reward: TorchReward, example: Example) -> _Row:
    exchanges = [Exchange(example.prompt, answer) for answer in example.answers]
    return example, encode(reward.tokenizer, reward.layout, exchanges)


def _collate(rows: Sequence[_Row], pad: int) -> dict[str, Tensor]:
    """The first answers of all rows, followed by the rejected ones of the pairs, in order."""
    places = [(row, 0) for row in rows] + [(row, 1) for row in rows if len(row[1]) > 1]
    batch = batch_of([answers[place] for (_, answers), place in places], pad)
    ratings = [example.ratings[place] for (example, _), place in places]
    return batch | {
        "part": torch.tensor([example.part for (example, _), _ in places]),
        "is_pair": torch.tensor([len(answers) > 1 for _, answers in rows]),
        "rating": torch.tensor(ratings, dtype=torch.float32),
    }


def preference_loss(
    scores: Tensor, is_pair: Tensor, rating: Tensor, rating_weight: float
) -> Tensor:
    """Negative log-likelihood of the pairs, plus the weighted squared error of the ratings.

    Args:
        scores: Of the first answers of n rows and then of the rejected ones of the m pairs among
            them; shape (n + m,).
        is_pair: Which rows are pairs; shape (n,), bool.
        rating: Rating of every answer, NaN where it has none; shape (n + m,).
        rating_weight: Weight of the squared error.

    Returns:
        A scalar; each of the two terms is a mean over the pairs or ratings it applies to.
    """
    margins = scores[: len(is_pair)][is_pair] - scores[len(is_pair) :]
    known = ~rating.isnan()
    loss = scores.sum() * 0.0  # a batch may lack one kind
    if len(margins):
        loss = loss - logsigmoid(margins).mean()
    if known.any():
        loss = loss + rating_weight * mse_loss(scores[known], rating[known])
    return loss


class _PreferenceTrainer(Trainer):
    """Transformers' Trainer with the loss of pairs and ratings, and batches of similar length."""

    rating_weight = 0.0

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows = cast(Sequence[_Row], self.train_dataset)
        lengths = [max(len(answer.ids) for answer in answers) for _, answers in rows]
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean loss of a batch; see `_collate` for its layout."""
        part, is_pair, rating = (inputs.pop(key) for key in ("part", "is_pair", "rating"))
        outputs = model(**inputs)
        means = mean_over_tokens(outputs.logits, inputs["attention_mask"])
        scores = means.gather(1, part[:, None])[:, 0]
        loss = preference_loss(scores, is_pair, rating, self.rating_weight)
        return (loss, outputs) if return_outputs else loss


def fit_reward(config: RewardConfig, base: Path, data: RewardData, output: Path) -> RewardCard:
    """Train a reward model and measure it on the held-out examples.

    Args:
        config: What to train.
        base: The folder of the base model.
        data: The examples.
        output: Gets the adapter (or all weights) and the card. A run resumes from the checkpoints
            in its folder `checkpoints`.

    Returns:
        The card with the held-out metrics.
    """
    keep_freed_memory()
    set_seed(config.training.seed)  # the new head is random
    model = config.model
    card = RewardCard(model.base, config.parts, model.prompt_tokens, model.answer_tokens, {})
    reward = load_base(base, card)
    if model.method == "lora":
        reward = replace(reward, model=_with_adapter(reward.model, model))
    checkpoints = output / "checkpoints"
    trainer = _PreferenceTrainer(
        model=reward.model,
        args=_arguments(config, checkpoints),
        train_dataset=cast(Any, [_encoded(reward, example) for example in data.train]),
        data_collator=cast(Any, partial(_collate, pad=reward.pad)),
    )
    trainer.rating_weight = config.training.rating_weight
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    with redirect_stdout(sys.stderr):  # it prints to stdout, which is for results
        trainer.train(resume_from_checkpoint=last)
    reward.model.eval()
    card = structs.replace(card, metrics=held_out_metrics(reward, data.held_out))
    _save(reward, model.method, base, output)
    write_record(output / REWARD_CARD, card)
    return card


def _save(reward: TorchReward, method: str, base: Path, output: Path) -> None:
    """Write the adapter at half precision, or all weights with the base's tokenizer."""
    if method == "lora":
        save_adapter(cast(PeftModel, reward.model), reward.card.base, output)
        return
    reward.model.save_pretrained(output)
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, output / name)


def _with_adapter(model: PreTrainedModel, section: RewardModelSection) -> PreTrainedModel:
    lora = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=section.rank,
        lora_alpha=2 * section.rank,
        target_modules="all-linear",
        exclude_modules=["classifier", "score"],  # the new head, trained whole
    )
    return cast(PreTrainedModel, get_peft_model(model, lora))


def _arguments(config: RewardConfig, checkpoints: Path) -> TrainingArguments:
    training = config.training
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=0.1,
        lr_scheduler_type="linear",
        seed=training.seed,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=20,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )

"""The supervised loop: the likelihood of hints under the template, and nothing else of a request.

The request is shared by all pairs up to the prompt, so a batch is packed as a trie and each token
of the template is computed once; nothing is padded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import TrainingError
from alignpro_lite.train import checkpoint
from alignpro_lite.train.checkpoint import ProcessState
from alignpro_lite.train.interrupts import finish_on_interrupt
from alignpro_lite.train.plateau import Measurement, Plateau
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.reference.config import SupervisionSection
from alignpro_lite.train.reference.pairs import HintPair
from alignpro_lite.train.schedule import learning_rate_at
from alignpro_lite.train.token_trie import pack

_TOGETHER = 8
"""Pairs in one pass. On 0.5 billion parameters, 16 take 10 GB and 8 half of that."""

OnValues: TypeAlias = Callable[[Mapping[str, float]], None]
"""Told the values of a step by name."""


@dataclass(frozen=True)
class Lesson:
    """A pair as token ids.

    Attributes:
        pair: What it was made of.
        request: Asks for the hint; not learned.
        output: The hint with its stop token; learned.
    """

    pair: HintPair
    request: tuple[int, ...]
    output: tuple[int, ...]


def lesson_of(policy: Policy, pair: HintPair) -> Lesson:
    """A pair as the prompter is asked and as it would answer."""
    request = policy.tokens.request(pair.prompt, pair.earlier)
    return Lesson(pair, tuple(request), tuple(policy.tokens.encode(pair.hint)))


def hint_log_probs(policy: Policy, lessons: Sequence[Lesson]) -> Tensor:
    """Log-probability of each hint, summed over its tokens, shape (lessons,), differentiable."""
    hints, _ = hint_and_first_log_probs(policy, lessons)
    return hints


def hint_and_first_log_probs(policy: Policy, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """Log-probability of each hint and of its first token, both of shape (lessons,)."""
    outputs = [lesson.output for lesson in lessons]
    firsts = [output[:1] for output in outputs]  # no nodes of their own in the trie
    trie = pack([lesson.request for lesson in lessons] * 2, outputs + firsts)
    hints, decisions = policy.log_probs(trie).chunk(2)
    return hints, decisions


class ReferenceTrainer:
    """Teaches a policy hints, one batch at a time, from wherever the run stands."""

    def __init__(
        self,
        policy: Policy,
        train: Sequence[Lesson],
        held_out: Sequence[Lesson],
        training: SupervisionSection,
        run: Path,
    ) -> None:
        """Resume a run at its last checkpoint, or start it.

        Args:
            policy: Gets the adapter.
            train: What it learns from.
            held_out: What chooses the best weights.
            training: The optimiser and the limits.
            run: The folder of the run.

        Raises:
            ModelFileError: The run has another adapter, or its checkpoint is damaged.
        """
        self._policy, self._training, self._run = policy, training, run
        self._train, self._held_out = train, held_out
        self._parameters = {
            name: parameter
            for name, parameter in policy.model.named_parameters()
            if parameter.requires_grad
        }
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=training.learning_rate, weight_decay=0.0
        )
        self._best: dict[str, Tensor] = {}
        self.step, self.plateau = 0, Plateau(patience=0)
        if (folder := checkpoint.latest(run)) is not None:
            checkpoint.load_weights(folder, self._parameters, self._optimiser)
            self._best = checkpoint.load_best(folder)
            state = checkpoint.load_state(folder, rank=0)
            self.step, self.plateau = state.step, Plateau(0, state.history)

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        return self._training.epochs * self._steps_per_epoch

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self._train) / self._training.batch)

    def train(self, on_step: OnValues) -> bool:
        """Train to the last step, or until Ctrl-C, and save.

        Args:
            on_step: Told what each step did; `held_out` is the loss on held-out pairs.

        Returns:
            Whether training has ended; the policy then has the best weights that were measured.

        Raises:
            TrainingError: The gradient is not finite.
        """
        with finish_on_interrupt() as interrupted:
            while self.step < self.steps:
                values = self._step()
                is_due = self.step % self._training.checkpoint == 0 or self.step == self.steps
                if is_due:
                    values["held_out"] = self._measured()
                on_step(values)
                if is_due or interrupted.is_set():
                    self._save()
                if interrupted.is_set():
                    return False
        self._take_best()
        return True

    def _step(self) -> dict[str, float]:
        """One step of the optimiser: mean loss of a hint's token over a batch."""
        lessons, loss = self._batch(), 0.0
        tokens = sum(len(lesson.output) for lesson in lessons)
        for some in in_passes(lessons):
            hints, firsts = hint_and_first_log_probs(self._policy, some)
            weighted = hints.sum() + (self._training.decision - 1) * firsts.sum()
            (-weighted / tokens).backward()
            loss -= float(hints.detach().sum()) / tokens
        norm = float(
            torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._training.clip)
        )
        if not math.isfinite(norm):
            raise TrainingError(
                f"The gradient must be finite, found a norm of {norm} at step {self.step + 1}.",
                "Lower training.learning_rate; the last checkpoint is intact.",
            )
        rate = learning_rate_at(
            self.step, self.steps, self._training.warmup, self._training.learning_rate
        )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {"loss": loss, "gradient": norm, "learning_rate": rate}

    def _batch(self) -> list[Lesson]:
        """The pairs of this step: all take their turn, in a new order in every epoch."""
        epoch, place = divmod(self.step, self._steps_per_epoch)
        order = list(self._train)
        random.Random(stream_seed(self._training.seed, epoch)).shuffle(order)
        first = place * self._training.batch
        return order[first : first + self._training.batch]

    def _measured(self) -> float:
        """Measure the held-out pairs, and remember the best weights."""
        loss = held_out_loss(self._policy, self._held_out)
        measured = Measurement(self.step, -loss)
        self.plateau = self.plateau.after(measured)
        if self.plateau.best == measured:
            self._best = {
                name: value.detach().cpu().clone() for name, value in self._parameters.items()
            }
        return loss

    @torch.no_grad()
    def _take_best(self) -> None:
        for name, weights in self._best.items():
            self._parameters[name].copy_(weights)

    def _save(self) -> None:
        folder = checkpoint.partial(self._run, self.step)
        checkpoint.create_empty(folder)
        checkpoint.save_weights(folder, self._parameters, self._optimiser)
        if self._best:
            checkpoint.save_best(folder, self._best)
        state = ProcessState(self.step, 1, (), 0, (), (), self.plateau.history)
        checkpoint.save_state(folder, 0, state)
        checkpoint.publish(folder)


def in_passes(lessons: Sequence[Lesson]) -> Iterator[Sequence[Lesson]]:
    """A few pairs at a time: attention is quadratic in all tokens of a pass, as is its mask."""
    for start in range(0, len(lessons), _TOGETHER):
        yield lessons[start : start + _TOGETHER]


@torch.no_grad()
def held_out_loss(policy: Policy, lessons: Sequence[Lesson]) -> float:
    """Mean over pairs of the mean loss of a token, in nats.

    So the empty hint counts as much as a long one. By the mean over all tokens, the best weights
    were those that had not yet learned when to write nothing: it is 1 token of 100.
    """
    losses = [
        -log_prob / len(lesson.output)
        for some in in_passes(lessons)
        for lesson, log_prob in zip(some, hint_log_probs(policy, some).tolist(), strict=True)
    ]
    return math.fsum(losses) / len(losses)

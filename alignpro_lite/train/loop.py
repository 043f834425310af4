"""The training loop: roll out, learn from new and replayed groups, remember, checkpoint."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from accelerate.utils import gather_object
from torch import Tensor

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import TrainingError
from alignpro_lite.train import checkpoint
from alignpro_lite.train.checkpoint import ProcessState
from alignpro_lite.train.interrupts import finish_on_interrupt
from alignpro_lite.train.objective import log_variance
from alignpro_lite.train.plateau import Measurement, Plateau, Watch
from alignpro_lite.train.prompter.config import ObjectiveSection, OptimisationSection
from alignpro_lite.train.rollout import Group, Learner, Rollout, draw_rivals, mean_reward, roll_out
from alignpro_lite.train.schedule import learning_rate_at

_RIVALS_AHEAD = 4
"""Steps whose rivals are drawn together."""
_FAILURE_WINDOW = 10
"""Steps over which failures are counted."""

_WATCH_SEED = 2**31
"""Number of the random stream of measurements; no step has it."""
WATCHED = "reward_apart"
"""Name of the mean reward on the prompts set apart, in the metrics."""

OnStep: TypeAlias = Callable[[Mapping[str, float], Sequence[str]], None]
"""Told what a step did: values by name, averaged over processes, and what failed in this process,
one sentence each."""


class PolicyTrainer:
    """Trains a policy towards ρ*, one step at a time, from wherever the run stands."""

    def __init__(
        self,
        learner: Learner,
        objective: ObjectiveSection,
        training: OptimisationSection,
        run: Path,
        watch: Watch | None,
    ) -> None:
        """Resume a run at its last checkpoint, or start it.

        Args:
            learner: All that takes part.
            objective: λ and the groups.
            training: The optimiser and the limits.
            run: The folder of the run, shared by all processes.
            watch: Ends the run once its reward has stopped rising, and keeps the best weights;
                None trains to the last step.

        Raises:
            ModelFileError: The run has another adapter or had fewer processes.
            TrainingError: The run had another number of processes.
        """
        self._learner = learner
        self._objective = objective
        self._training = training
        self._run = run
        self._watch = watch
        self._best: dict[str, Tensor] = {}
        self._parameters = {
            name: parameter
            for name, parameter in learner.policy.model.named_parameters()
            if parameter.requires_grad
        }
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=training.learning_rate, weight_decay=0.0
        )
        state = self._restored()
        self.step = state.step
        self.calls = state.calls
        self.plateau = Plateau(watch.patience if watch else 0, state.history)
        self._buffer = deque(state.groups, maxlen=objective.buffer)
        self._failures = deque(state.failures, maxlen=_FAILURE_WINDOW)
        self._items = deque(state.items, maxlen=_FAILURE_WINDOW)

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        return self._training.steps

    def _restored(self) -> ProcessState:
        processes = self._learner.accelerator.num_processes
        folder = checkpoint.latest(self._run)
        if folder is None:
            return ProcessState(0, processes, (), 0, (), ())
        checkpoint.load_weights(folder, self._parameters, self._optimiser)
        self._best = checkpoint.load_best(folder)
        state = checkpoint.load_state(folder, self._learner.accelerator.process_index)
        if state.processes != processes:
            raise TrainingError(
                f"The run was started with {state.processes} processes, found {processes}.",
                "Resume with the same number, or choose another --output.",
            )
        return state

    def train(self, on_step: OnStep) -> bool:
        """Train until the reward stops rising or the last step is done, or until Ctrl-C, and save.

        Args:
            on_step: Told what each step did.

        Returns:
            Whether training has ended; the policy then has the best weights that were measured,
            or, where nothing is watched, the last ones.

        Raises:
            TrainingError: Too many items failed, or the gradient is not finite.
            AlignProError: The target or the reward failed altogether.
        """
        with finish_on_interrupt() as interrupted:
            if not self.plateau.history:
                self._measured()
            while not self._is_over:
                values, reasons = self._step()
                if self._is_due:
                    values |= self._measured()
                on_step(values, reasons)
                stop = self._any(interrupted.is_set())
                if stop or self._is_due:
                    self._save()
                if stop:
                    return False
        self._save()
        self._take_best()
        return True

    @property
    def _is_over(self) -> bool:
        ended = self._watch is not None and self.plateau.is_reached
        return ended or self.step >= self._training.steps

    @property
    def _is_due(self) -> bool:
        """Whether a checkpoint, and so a measurement, is due at this step."""
        return self.step % self._training.checkpoint == 0 or self.step == self._training.steps

    def _measured(self) -> dict[str, float]:
        """Measure the prompts set apart, if there are any, and remember the best weights."""
        watch, accelerator = self._watch, self._learner.accelerator
        if watch is None:
            return {}
        self._learner.policy.refresh_sampler()
        every, rank = accelerator.num_processes, accelerator.process_index
        own = watch.prompts[rank::every] or watch.prompts
        # The same seed every time, so that luck is shared and only learning shows.
        seed = stream_seed(self._training.seed, _WATCH_SEED)
        reward = mean_reward(self._learner, own, watch.answers, seed)
        means, _ = self._reduced({WATCHED: reward}, {})
        measured = Measurement(self.step, means[WATCHED])
        self.plateau = self.plateau.after(measured)
        if self.plateau.best == measured:
            self._best = {
                name: value.detach().cpu().clone() for name, value in self._parameters.items()
            }
        return means

    @torch.no_grad()
    def _take_best(self) -> None:
        for name, weights in self._best.items():
            self._parameters[name].copy_(weights)

    def _step(self) -> tuple[dict[str, float], list[str]]:
        started = time.monotonic()
        learner = self._learner
        learner.policy.refresh_sampler()
        if learner.reward.rivals and self.step % _RIVALS_AHEAD == 0:
            ahead = range(self.step, min(self.step + _RIVALS_AHEAD, self.steps))
            draw_rivals(learner, ((self._prompts_of(step), self._seed(step)) for step in ahead))
        seed = self._seed(self.step)
        prompts = self._prompts_of(self.step)
        rollout = roll_out(learner, prompts, self._objective.rewrites, seed)
        rolled = time.monotonic()
        replayed = self._replayed(seed)
        learnt = self._learn(rollout.groups, replayed)
        self._buffer.extend(rollout.groups)
        self.step += 1
        seconds = {"seconds/rollout": rolled - started, "seconds/update": time.monotonic() - rolled}
        return self._shared(rollout, len(prompts), learnt | seconds), rollout.reasons

    def _seed(self, step: int) -> int:
        """A random stream for each step and process, so that a resumed run draws the same."""
        rank = self._learner.accelerator.process_index
        return stream_seed(stream_seed(self._training.seed, step), rank)

    def _prompts_of(self, step: int) -> list[str]:
        """This process's prompts: all take their turn, in a new order in every round."""
        learner, total = self._learner, self._objective.prompts
        share = total // learner.accelerator.num_processes
        first = step * total + learner.accelerator.process_index * share
        chosen: dict[str, None] = {}
        for number in range(first, first + share):
            turn, place = divmod(number, len(learner.prompts))
            chosen[self._order(turn)[place]] = None
        return list(chosen)

    def _order(self, turn: int) -> list[str]:
        order = list(self._learner.prompts)
        random.Random(stream_seed(self._training.seed, turn)).shuffle(order)
        return order

    def _replayed(self, seed: int) -> list[Group]:
        count = min(self._objective.replayed, len(self._buffer))
        return random.Random(seed).sample(list(self._buffer), count)

    def _learn(self, new: Sequence[Group], replayed: Sequence[Group]) -> dict[str, float]:
        """One step of the optimiser on new and replayed groups."""
        total = len(new) + len(replayed)
        figures = [
            self._backward(groups, len(groups) / total) for groups in (new, replayed) if groups
        ]
        norm = self._averaged_gradient()
        if not math.isfinite(norm):
            raise TrainingError(
                f"The gradient must be finite, found a norm of {norm} at step {self.step + 1}.",
                "Lower training.learning_rate or raise objective.strength; "
                "the last checkpoint is intact.",
            )
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        values = {"gradient": norm, "learning_rate": self._learning_rate()}
        if figures:
            values["loss"] = sum(found.pop("loss") for found in figures)
        if new:
            values |= figures[0]
        return values

    def _backward(self, groups: Sequence[Group], share: float) -> dict[str, float]:
        """Add the gradient of some groups, weighted by their share of the step.

        Returns:
            The weighted loss, and residual, log_z and kl of these groups.
        """
        policy, strength = self._learner.policy, self._objective.strength
        temperature = self._learner.sampling.temperature
        trie = policy.pack(
            [group.prompt for group in groups for _ in group.outputs],
            [output for group in groups for output in group.outputs],
        )
        sizes = [len(group.outputs) for group in groups]
        log_policy = policy.log_probs(trie, temperature).split(sizes)
        spreads = []
        kl: list[Tensor] = []
        for group, own in zip(groups, log_policy, strict=True):
            reference, rewards = (
                torch.tensor(values, device=own.device)
                for values in (group.log_reference, group.rewards)
            )
            spreads.append(log_variance(own[None], reference[None], rewards[None], strength))
            kl.append((own.detach() - reference).mean())
        loss = torch.stack([spread.loss for spread in spreads]).mean() * share
        loss.backward()
        return {
            "loss": float(loss.detach()),
            "residual": float(torch.stack([spread.residual for spread in spreads]).mean()),
            "log_z": float(torch.stack([spread.log_z for spread in spreads]).mean()),
            "kl": float(torch.stack(kl).mean()),
        }

    def _averaged_gradient(self) -> float:
        """Average the gradient over processes and clip it; returns the norm before clipping."""
        accelerator = self._learner.accelerator
        for parameter in self._parameters.values():
            if parameter.grad is None:  # every group of this process failed
                parameter.grad = torch.zeros_like(parameter)
            if accelerator.num_processes > 1:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        values = list(self._parameters.values())
        return float(torch.nn.utils.clip_grad_norm_(values, self._training.clip))

    def _learning_rate(self) -> float:
        training = self._training
        return learning_rate_at(self.step, training.steps, training.warmup, training.learning_rate)

    def _shared(
        self, rollout: Rollout, prompts: int, values: Mapping[str, float]
    ) -> dict[str, float]:
        """Average over processes, count costs and failures, and stop if there are too many."""
        groups = rollout.groups
        outputs = [output for group in groups for output in group.outputs]
        own = dict(values)
        if groups:
            own["reward"] = _mean([reward for group in groups for reward in group.rewards])
            own["rewrite_tokens"] = _mean([len(output) for output in outputs])
            for name in groups[0].parts:
                own[f"reward/{name}"] = _mean([v for g in groups for v in g.parts[name]])
        rewrites = self._objective.rewrites * prompts
        answers = self._learner.plan.count
        counts = {
            "calls": float(rollout.calls),
            "answer_tokens": float(rollout.answer_tokens),
            "items": float(rewrites * answers),
            "leaked": float(rollout.leaked),
            "failures/empty": float(rollout.empty * answers),
            "failures/target": float(rollout.unanswered),
            "failures/reward": float(rollout.unscored),
        }
        means, sums = self._reduced(own, counts)
        self.calls += int(sums["calls"])
        self._failures.append(int(sum(sums[name] for name in sums if name.startswith("failures"))))
        self._items.append(int(sums.pop("items")))
        self._refuse_many_failures(rollout.reasons)
        answered = max(1.0, sums["calls"] - sums["failures/target"])
        return (
            means
            | sums
            | {"calls": float(self.calls), "answer_tokens": sums["answer_tokens"] / answered}
        )

    def _reduced(
        self, means: Mapping[str, float], sums: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Means and sums over processes."""
        gathered = self._gathered({"means": dict(means), "sums": dict(sums)})
        found: dict[str, list[float]] = {}
        for process in gathered:
            for name, value in process["means"].items():
                found.setdefault(name, []).append(value)
        averaged = {name: _mean(values) for name, values in found.items()}
        summed = {name: sum(process["sums"][name] for process in gathered) for name in sums}
        return averaged, summed

    def _gathered(self, own: dict[str, dict[str, float]]) -> list[dict[str, dict[str, float]]]:
        if self._learner.accelerator.num_processes == 1:
            return [own]
        everyone: list[dict[str, dict[str, float]]] = gather_object([own])
        return everyone

    def _refuse_many_failures(self, reasons: Sequence[str]) -> None:
        failures, items = sum(self._failures), sum(self._items)
        if failures > self._training.failures * items:
            # Once the cause is fixed, its failures must not count again.
            self._failures.clear()
            self._items.clear()
            self._save()
            last = f" The last reason: {reasons[-1]}" if reasons else ""
            raise TrainingError(
                f"{failures} of the last {items} answers failed, more than the allowed share of "
                f"{self._training.failures:g}.{last}",
                "Fix the target or the reward, or raise training.failures; "
                "the same command resumes from here.",
            )

    def _any(self, flag: bool) -> bool:
        """Whether any process says so."""
        gathered = self._gathered({"means": {}, "sums": {"flag": float(flag)}})
        return any(process["sums"]["flag"] for process in gathered)

    def _save(self) -> None:
        """Write a checkpoint together; it appears only when every process has written."""
        accelerator = self._learner.accelerator
        latest = checkpoint.latest(self._run)
        if latest is not None and checkpoint.step_of(latest) == self.step:
            return
        folder = checkpoint.partial(self._run, self.step)
        if accelerator.is_main_process:
            checkpoint.create_empty(folder)
            checkpoint.save_weights(folder, self._parameters, self._optimiser)
            if self._best:
                checkpoint.save_best(folder, self._best)
        accelerator.wait_for_everyone()
        state = ProcessState(
            self.step,
            accelerator.num_processes,
            tuple(self._buffer),
            self.calls,
            tuple(self._failures),
            tuple(self._items),
            self.plateau.history,
        )
        checkpoint.save_state(folder, accelerator.process_index, state)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            checkpoint.publish(folder)
        accelerator.wait_for_everyone()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

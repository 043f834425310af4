"""A tiny prompter run for tests: prompts, configuration, and a target that only hashes."""

from __future__ import annotations

import json
import sys
from itertools import count, islice
from pathlib import Path
from time import sleep
from zlib import crc32

from safetensors.torch import save_file

from alignpro_lite.cli import exit_code_of
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.rollout import Answer, TargetFailure
from alignpro_lite.train import run as training
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.prompter import run as prompter
from alignpro_lite.train.prompter.config import PrompterConfig

HELD_OUT = 0.25
CONFIG = """
[prompter]
base = "{base}"
max_tokens = 4
dtype = "float32"
rank = 2
modules = ["q_proj", "v_proj"]
[target]
kind = "gguf"
source = "{target}"
context = 2048
[answers]
count = {answers}
max_tokens = 4
[[reward]]
kind = "python"
source = "tests.support.training_run:{reward}"
weights = {{ length = 0.1 }}
[objective]
strength = 0.05
prompts = {prompts}
rewrites = 3
replayed = 2
buffer = 3
[training]
steps = {steps}
warmup = 1
learning_rate = 0.01
checkpoint = 2
seed = 5
[data]
prompts = [{{ path = "prompts.jsonl", format = "prompt" }}]
[report]
prompts = 3
answers = 2
best_of = 2
"""


def write_run(folder, base, target, *, reward="length", answers=1, prompts=2, steps=4) -> Path:
    """Write prompts and a configuration; the training prompts end with ?, the held-out with !."""
    training = (prompt for prompt in _prompts("?") if prompt_position(prompt) >= HELD_OUT)
    held_out = (prompt for prompt in _prompts("!") if prompt_position(prompt) < HELD_OUT)
    rows = [*islice(training, 5), *islice(held_out, 3)]
    text = "".join(json.dumps({"prompt": row}) + "\n" for row in rows)
    (folder / "prompts.jsonl").write_text(text)
    config = folder / "prompter.toml"
    config.write_text(
        CONFIG.format(
            base=base, target=target, reward=reward, answers=answers, prompts=prompts, steps=steps
        )
    )
    return config


def _prompts(end):
    return (f"Name river {number}{end}" for number in count())


def train(config, output, note=lambda text: None):
    """What `train prompter` does, in this process."""
    places = Places(config.parent, output, ModelStore.open())
    return prompter.train_prompter(read_config(config, PrompterConfig), places, note)


class ShowingTrainer(PolicyTrainer):
    """Writes what every process has learned; a checkpoint holds only the first one's."""

    def train(self, on_step):
        done = super().train(on_step)
        rank = self._learner.accelerator.process_index
        learned = {name: value.detach() for name, value in self._parameters.items()}
        save_file(learned, self._run / f"rank-{rank}.safetensors")
        return done


class HashingTarget:
    """Its answers depend only on the conversation and the seed."""

    def __init__(self, fails=lambda text, draw: False):
        self.fails = fails
        self.calls = 0

    def answers(self, conversations, plan, seeds):
        self.calls += plan.count * len(conversations)
        return [
            [self._answer(messages[-1].content, seed, k) for k in range(plan.count)]
            for messages, seed in zip(conversations, seeds, strict=True)
        ]

    def _answer(self, text, seed, *place):
        draw = crc32(f"{text} {seed} {place}".encode())
        if self.fails(text, draw):
            return TargetFailure("no line")
        return Answer("word " * (draw % 7 + 1), draw % 7 + 1, "stop")

    def close(self):
        pass


def length(prompts, answers):
    return [float(len(answer)) for answer in answers]


def sometimes_nan(prompts, answers):
    """No score for answers of two words in training; the report needs every score."""
    return [
        float("nan") if prompt.endswith("?") and len(answer.split()) == 2 else float(len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def patient(prompts, answers):
    """Slow enough to be interrupted."""
    sleep(0.3)
    return length(prompts, answers)


def always_nan(prompts, answers):
    return [float("nan")] * len(answers)


if __name__ == "__main__":
    setattr(training, "PolicyTrainer", ShowingTrainer)  # noqa: B010 - it is not exported there
    sys.exit(exit_code_of(["train", "prompter", *sys.argv[1:]]))

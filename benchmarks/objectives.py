"""Train one tiny model towards a known ρ* with our objective, trl's RLOO and trl's GRPO.

    pip install "alignpro-lite[benchmarks]"
    python benchmarks/objectives.py [--seeds 3] [--calls 3072,6144,12288,24576]

The problem can be enumerated: 3 prompts × 343 rewrites of three letters, and rewards with a known
mean R and the noise of a single answer to each rewrite (M = 1). So KL(ρ_θ ‖ ρ*) is exact. Every
method starts from the same weights and makes one target call for each rewrite. Every figure is a
whole training run with that many calls and a learning rate that falls to 0, so each method has the
schedule that suits the budget.

What the trainers of trl 1.16 optimise, according to their source:
- RLOO: reward - β Σ_t log(ρ_θ/ρ_sft) minus the mean of the other rewrites, not divided by a
  standard deviation. With β = λ its optimum is ρ*. It takes `num_iterations` steps on each
  generation, with clipped ratios of probabilities, and then discards it.
- GRPO: (reward - mean) / (standard deviation of the group), and β Σ_t (a KL estimate per token) in
  the loss, whose gradient ignores the effect of a token on the KL of later ones. β is 0 by default:
  nothing keeps the policy near ρ_sft, and its optimum is the single best rewrite. With β = λ the
  division makes the strength λ σ(x), which differs from prompt to prompt.
  β is scaled by (K - 1)/K here, because the mean includes the reward itself.

Tuned on seed 0 at 24576 calls: ours over learning rates of 5e-3 and 1e-2 and 64 and 128 new
rewrites in a round; RLOO over learning rates of 2e-3 to 1e-2, K of 16 to 64 and `num_iterations` of
1, 2 and 4. GRPO was not tuned: it has the learning rate of RLOO instead of its default 1e-6, which
would change nothing in so few steps.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

# Set before the imports that read them: this benchmark uses no network.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
from torch import Tensor

try:
    import datasets
    import transformers
    import trl
    from tokenizers import Tokenizer, models, pre_tokenizers
except ImportError as error:
    sys.exit(f'{error.name} is missing: pip install "alignpro-lite[benchmarks]"')

from alignpro_lite.train.objective import log_variance

LETTERS, LENGTH = "abcdefg", 3
PROMPTS = 3
STRENGTH = 0.5
"""λ."""
SCALES = (0.2, 0.4, 0.6)
"""Standard deviation of R over the rewrites of each prompt."""
NOISE = 0.4
"""Standard deviation of the reward of an answer around R."""
GOAL = 0.05
"""KL(ρ_θ ‖ ρ*) in nats, mean over prompts."""

REWRITES = torch.cartesian_prod(*[torch.arange(len(LETTERS))] * LENGTH)
"""Token ids of every rewrite; shape (343, LENGTH)."""


class Target:
    """The known problem, and the frozen target's noisy rewards, each call counted."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rewards = _rewards(self.generator)
        self.calls = 0

    def answer(self, prompts: Tensor, rewrites: Tensor) -> Tensor:
        """A noisy reward for each pair of a prompt and a rewrite, given by index."""
        self.calls += rewrites.numel()
        noise = torch.randn(rewrites.shape, generator=self.generator)
        return self.rewards[prompts, rewrites] + NOISE * noise


def _rewards(generator: torch.Generator) -> Tensor:
    """R(x, x'): the sum of a value of each letter and each pair of neighbours; (PROMPTS, 343)."""
    letters = torch.randn(PROMPTS, LENGTH, len(LETTERS), generator=generator)
    pairs = torch.randn(PROMPTS, LENGTH - 1, len(LETTERS), len(LETTERS), generator=generator)
    rewards = torch.zeros(PROMPTS, len(REWRITES))
    for place in range(LENGTH):
        rewards += letters[:, place, REWRITES[:, place]]
    for place in range(LENGTH - 1):
        rewards += pairs[:, place, REWRITES[:, place], REWRITES[:, place + 1]]
    rewards = (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, keepdim=True)
    return rewards * torch.tensor(SCALES)[:, None]


def make_model(seed: int) -> transformers.LlamaForCausalLM:
    """A one-layer Llama with random weights: ρ_sft, and the start of every method."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(LETTERS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=8,
        initializer_range=0.1,
        bos_token_id=None,
        # Outside the vocabulary, so every rewrite has LENGTH tokens.
        eos_token_id=len(LETTERS),
    )
    return transformers.LlamaForCausalLM(config)


def log_policy(model: transformers.LlamaForCausalLM, rewrites: Tensor) -> Tensor:
    """The log ρ(x'|x) of rewrites given by index, shape (PROMPTS, K).

    Prompt i is the letter i.
    """
    count = rewrites.shape[1]
    prompts = torch.arange(PROMPTS).repeat_interleave(count)[:, None]
    sequences = torch.cat([prompts, REWRITES[rewrites.flatten()]], 1)
    scores: Tensor = model(sequences[:, :-1]).logits.log_softmax(-1)
    return scores.gather(2, sequences[:, 1:, None]).sum((1, 2)).view(PROMPTS, count)


@torch.no_grad()
def enumerate_policy(model: transformers.LlamaForCausalLM) -> Tensor:
    """The log ρ(x'|x) of every rewrite; shape (PROMPTS, 343)."""
    return log_policy(model, torch.arange(len(REWRITES)).expand(PROMPTS, -1))


def exact_divergences(
    model: transformers.LlamaForCausalLM, target: Target, seed: int
) -> list[float]:
    """Exact KL(ρ_θ ‖ ρ*) of a trained model for each prompt, with ρ* from Lemma 5.1."""
    log_reference = enumerate_policy(make_model(seed))
    log_optimum = (log_reference + target.rewards / STRENGTH).log_softmax(-1)
    found = enumerate_policy(model)
    divergences: list[float] = (found.exp() * (found - log_optimum)).sum(-1).tolist()
    return divergences


def train_ours(target: Target, seed: int, calls: int) -> transformers.LlamaForCausalLM:
    """Log-variance with replay: some new rewrites, then steps on all rewrites so far."""
    fresh, replays, batch = 64, 16, 64
    model = make_model(seed)
    rounds = calls // (PROMPTS * fresh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, rounds * replays)
    log_reference = enumerate_policy(model)
    drawn = torch.empty(PROMPTS, 0, dtype=torch.long)
    rewards = torch.empty(PROMPTS, 0)
    prompts = torch.arange(PROMPTS)[:, None].expand(-1, fresh)
    for _ in range(rounds):
        new = torch.multinomial(enumerate_policy(model).exp(), fresh, replacement=True)
        drawn = torch.cat([drawn, new], 1)
        rewards = torch.cat([rewards, target.answer(prompts, new)], 1)
        for _ in range(replays):
            picked = torch.rand(drawn.shape).topk(batch).indices
            chosen = drawn.gather(1, picked)
            spread = log_variance(
                log_policy(model, chosen),
                log_reference.gather(1, chosen),
                rewards.gather(1, picked),
                STRENGTH,
            )
            optimizer.zero_grad()
            (spread.loss / STRENGTH**2).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            decay.step()
    return model


def train_rloo(target: Target, seed: int, calls: int) -> transformers.LlamaForCausalLM:
    """RLOO of trl with β = λ, so that its optimum is ρ* too."""
    with tempfile.TemporaryDirectory() as folder:
        shared = shared_arguments(folder, seed, calls, group=64, iterations=4)
        arguments = trl.RLOOConfig(**shared, beta=STRENGTH)
        return run_trainer(trl.RLOOTrainer, arguments, target, seed)


def train_grpo_defaults(target: Target, seed: int, calls: int) -> transformers.LlamaForCausalLM:
    """GRPO of trl with its defaults: groups of 8, β = 0, rewards divided by their deviation."""
    with tempfile.TemporaryDirectory() as folder:
        shared = shared_arguments(folder, seed, calls, group=8, iterations=1)
        return run_trainer(trl.GRPOTrainer, trl.GRPOConfig(**shared), target, seed)


def train_grpo_regularised(target: Target, seed: int, calls: int) -> transformers.LlamaForCausalLM:
    """GRPO of trl with β = λ, rewards still divided by their deviation."""
    with tempfile.TemporaryDirectory() as folder:
        shared = shared_arguments(folder, seed, calls, group=16, iterations=1)
        arguments = trl.GRPOConfig(**shared, beta=STRENGTH * 15 / 16)
        return run_trainer(trl.GRPOTrainer, arguments, target, seed)


def train_grpo_unscaled(target: Target, seed: int, calls: int) -> transformers.LlamaForCausalLM:
    """GRPO of trl with β = λ, no division, and the loss of Dr. GRPO."""
    with tempfile.TemporaryDirectory() as folder:
        shared = shared_arguments(folder, seed, calls, group=16, iterations=1)
        arguments = trl.GRPOConfig(
            **shared, beta=STRENGTH * 15 / 16, scale_rewards="none", loss_type="dr_grpo"
        )
        return run_trainer(trl.GRPOTrainer, arguments, target, seed)


def shared_arguments(
    folder: str, seed: int, calls: int, group: int, iterations: int
) -> dict[str, Any]:
    """Arguments of both trainers: `iterations` steps on every `group` new rewrites of a prompt."""
    return {
        "output_dir": folder,
        "seed": seed,
        "max_steps": calls // (PROMPTS * group) * iterations,
        "num_iterations": iterations,
        "num_generations": group,
        "per_device_train_batch_size": PROMPTS * group,
        "max_completion_length": LENGTH,
        "learning_rate": 3e-3,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
    }


def run_trainer(
    trainer_class: type[Any], arguments: Any, target: Target, seed: int
) -> transformers.LlamaForCausalLM:
    """Train with a trainer of trl and the target as its reward function."""

    def reward(
        prompts: list[str], completion_ids: list[list[int]], **_unused: object
    ) -> list[float]:
        indices = torch.tensor([LETTERS.index(prompt) for prompt in prompts])
        places = len(LETTERS) ** torch.arange(LENGTH - 1, -1, -1)
        return target.answer(indices, (torch.tensor(completion_ids) * places).sum(1)).tolist()

    # The trainers load their frozen copy from the folder of the model.
    folder = arguments.output_dir
    make_model(seed).save_pretrained(folder)
    model: transformers.LlamaForCausalLM = transformers.LlamaForCausalLM.from_pretrained(folder)
    trainer = trainer_class(
        model=model,
        args=arguments,
        reward_funcs=reward,
        train_dataset=datasets.Dataset.from_dict({"prompt": list(LETTERS[:PROMPTS])}),
        processing_class=make_tokenizer(),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    model.eval()
    return model


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token for each letter, and a stop token that the model never writes."""
    vocabulary = {letter: token for token, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary | {"<eos>": len(LETTERS)}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
    )


Trainer = Callable[[Target, int, int], transformers.LlamaForCausalLM]
METHODS: dict[str, Trainer] = {
    "log-variance, replay (ours)": train_ours,
    "RLOO, β = λ": train_rloo,
    "GRPO, defaults (β = 0)": train_grpo_defaults,
    "GRPO, β = λ": train_grpo_regularised,
    "Dr. GRPO, β = λ, unscaled": train_grpo_unscaled,
}


def calls_to_goal(calls: list[int], divergences: list[float]) -> str:
    """Calls at which a method first reaches the goal, interpolated on log scales."""
    if divergences[0] <= GOAL:
        return f"<= {calls[0]}"
    points = list(zip(calls, divergences, strict=True))
    for (low, before), (high, after) in itertools.pairwise(points):
        if after <= GOAL:
            share = math.log(before / GOAL) / math.log(before / after)
            return f"~ {low * (high / low) ** share:.0f}"
    return f"> {calls[-1]}"


def table_row(name: str, train: Trainer, budgets: list[int], seeds: int) -> str:
    """Train with every budget and seed; a row of the table."""
    means = []
    for calls in budgets:
        divergences = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            target = Target(seed)
            divergences.append(exact_divergences(train(target, seed, calls), target, seed))
            if target.calls != calls:
                raise RuntimeError(f"{name}: expected {calls} target calls, found {target.calls}")
        by_prompt = [statistics.mean(values) for values in zip(*divergences, strict=True)]
        means.append(statistics.mean(by_prompt))
    cells = "".join(f"{mean:9.4f}" for mean in means)
    last = " ".join(f"{value:.3f}" for value in by_prompt)
    return f"{name:28}{cells}{calls_to_goal(budgets, means):>10}   {last}"


def main() -> None:
    """Print KL(ρ_θ ‖ ρ*) in nats, mean over seeds and prompts, for each number of target calls."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calls", default="3072,6144,12288,24576")
    options = parser.parse_args()
    budgets = sorted(int(calls) for calls in options.calls.split(","))
    if any(calls % (PROMPTS * 64) for calls in budgets):
        parser.error(f"--calls must be multiples of {PROMPTS * 64}, found {options.calls}")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    heads = "".join(f"{calls:9}" for calls in budgets)
    print(f"{'target calls':28}{heads}  for {GOAL}   last, by prompt")
    for name, train in METHODS.items():
        print(table_row(name, train, budgets, options.seeds), flush=True)


if __name__ == "__main__":
    main()

"""The shipped default bundle against no prompter, on held-out prompts, as it is deployed.

    python benchmarks/default_prompter.py ../shared/data [--prompts 150] [--answers 4]

The report of a training run measures the policy in torch; this measures the exported graph with
the sampling of its sidecar, against the deployed GGUF. Needs the bundle, the target and the
rewards of configs/prompter.toml: `make models`, and `alignpro-lite export bundle reward/NAME`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from alignpro_lite.eval.arms import Bench
from alignpro_lite.loading import load_prompter
from alignpro_lite.prompter import OnnxPrompter
from alignpro_lite.registry import Cache, load
from alignpro_lite.sampling import Sampling, stream_seed
from alignpro_lite.train.assemble import answer_plan, load_prompts, open_reward, open_target
from alignpro_lite.train.config import read_config
from alignpro_lite.train.prompter_config import PrompterConfig
from alignpro_lite.train.prompter_report import REWARD, SECOND, Report, against, summary, table

CONFIG = Path(__file__).parents[1] / "configs" / "prompter.toml"


class BundleRewriter:
    """A deployed prompter as an arm of a comparison."""

    def __init__(self, prompter: OnnxPrompter, sampling: Sampling) -> None:
        self._prompter = prompter
        self._sampling = sampling

    def rewrites(self, prompts: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """Draw rewrites; see `Rewriter`."""
        return [
            [
                rewrite.text
                for rewrite in self._prompter.rewrite(
                    prompt, count, replace(self._sampling, seed=stream_seed(seed, number))
                )
            ]
            for number, prompt in enumerate(prompts)
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--answers", type=int, default=4)
    options = parser.parse_args()
    config = read_config(CONFIG, PrompterConfig)
    known, cache = load(), Cache.open(None)
    plan = answer_plan(config.answers.model_copy(update={"count": options.answers}))
    with (
        load_prompter() as prompter,
        closing(open_target(config.target, cache.root)) as target,
        open_reward(config.reward, known, cache) as reward,
        open_reward(config.second_reward, known, cache) as second,
    ):
        prompts = load_prompts(
            config.data, options.data, prompter.prompt_tokens, config.training.seed
        ).held_out[: options.prompts]
        bench = Bench(target, {REWARD: reward, SECOND: second}, prompts, plan, seed=1)
        plain = bench.arm("no prompter", bench.unchanged(), 1)
        own = BundleRewriter(prompter, prompter.bundle.sidecar.sampling)
        shipped = bench.arm("default bundle", bench.rewritten(own), 2)
    report = Report((plain, shipped), against(plain, [shipped], bench.seed), {})
    print(table(summary(report, prompts)))


if __name__ == "__main__":
    main()

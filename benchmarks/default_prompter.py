"""The shipped default bundle against no prompter, on held-out prompts, as it is deployed.

    python benchmarks/default_prompter.py DATA [--prompts 150] [--answers 4] [--report DIR]

The report of a training run measures the policy in torch; this measures the exported graph with
the sampling of its sidecar, against the deployed GGUF, beside its reference ρ_sft (the same graph,
its adapter off, at temperature 1) and the best of 8 rewrites from that. KL is that of the deployed
sampling to ρ_sft, over all prompts. Needs the bundle, the target and the rewards of
configs/prompter.toml: `make models reward`, and `alignpro-lite export bundle reward/second`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from alignpro_lite.bundle import open_bundle
from alignpro_lite.eval.arms import Bench
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.models import answer_plan, load_prompts, open_reward, open_target
from alignpro_lite.hardware import usable_cores
from alignpro_lite.onnx_decoder import DecoderSettings
from alignpro_lite.prompter import OnnxPrompter
from alignpro_lite.registry import Cache, installed_path, load
from alignpro_lite.sampling import Sampling, stream_seed
from alignpro_lite.train.prompter_config import PrompterConfig
from alignpro_lite.train.prompter_report import (
    REWARD,
    SECOND,
    Report,
    against,
    summary,
    table,
    write_report,
)

SHIPPED = "default bundle"
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


def kl_to_reference(prompter: OnnxPrompter, prompts: Sequence[str]) -> float:
    """Estimate KL(q ‖ ρ_sft) in nats from one rewrite a prompt, q as deployed."""
    sampling = prompter.bundle.sidecar.sampling
    ratios = []
    for number, prompt in enumerate(prompts):
        seeded = replace(sampling, seed=stream_seed(2, number))
        (rewrite,) = prompter.rewrite(prompt, 1, seeded)
        (reference,) = prompter.reference_score(prompt, [rewrite.tokens])
        ratios.append(rewrite.log_proposal - reference)
    return math.fsum(ratios) / len(ratios)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--report", type=Path, help="folder for twenty exchanges to read")
    options = parser.parse_args()
    config = read_config(CONFIG, PrompterConfig)
    known, cache = load(), Cache.open(None)
    plan = answer_plan(config.answers.model_copy(update={"count": options.answers}))
    bundle = open_bundle(installed_path(known.default("bundle"), cache))
    settings = DecoderSettings("cpu", 0, 16, usable_cores())
    with (
        OnnxPrompter(bundle, settings) as prompter,
        OnnxPrompter(bundle, settings, adapter=0.0) as untrained,
        closing(open_target(config.target, cache.root)) as target,
        open_reward(config.reward, known, cache) as reward,
        open_reward(config.second_reward, known, cache) as second,
    ):
        prompts = load_prompts(
            config.data, options.data, prompter.prompt_tokens, config.training.seed
        ).held_out[: options.prompts]
        bench = Bench(target, {REWARD: reward, SECOND: second}, prompts, plan, seed=1)
        plain = bench.arm("no prompter", bench.unchanged(), 1)
        own = BundleRewriter(prompter, bundle.sidecar.sampling)
        shipped = bench.arm(SHIPPED, bench.rewritten(own), 2)
        base = BundleRewriter(untrained, Sampling())
        arms = [
            shipped,
            bench.arm("ρ_sft", bench.rewritten(base), 3),
            bench.arm("best of 8 from ρ_sft", bench.best_of(base, 8, REWARD), 4),
        ]
        kl = {SHIPPED: kl_to_reference(prompter, prompts), "ρ_sft": 0.0}
    report = Report((plain, *arms), against(plain, arms, bench.seed), kl)
    data = summary(report, prompts)
    print(table(data))
    print(json.dumps(data["arms"][SHIPPED]["against_no_prompter"], indent=2))
    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        write_report(options.report, data, report, prompts, SHIPPED)


if __name__ == "__main__":
    main()

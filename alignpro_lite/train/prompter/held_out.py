"""What a trained prompter did on prompts it never saw, and what its reward does not see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignpro_lite.eval.arms import Arm, Bench, Rewriter
from alignpro_lite.measure.statistics import Comparison, compare
from alignpro_lite.measure.text import describe_answers, describe_rewrites, distinct_share
from alignpro_lite.registry.storage import write_text

REWARD = "reward"
SECOND = "second_reward"
PLAIN = "no prompter"
SAMPLES = 20
REPORT = "report.md"


@dataclass(frozen=True)
class Report:
    """The arms, and each of them held against sending the prompt as it is.

    Attributes:
        arms: The answers; the first arm sends the prompt as it is.
        comparisons: By arm and reward, against the first arm.
        kl: Estimated KL(ρ ‖ ρ_sft) of each arm with a prompter, in nats.
    """

    arms: tuple[Arm, ...]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    kl: Mapping[str, float]


def measure(
    bench: Bench,
    rewriters: Mapping[str, Rewriter],
    best_of: tuple[str, int],
    kl: Mapping[str, float],
    on_stage: Callable[[str], None],
) -> Report:
    """Answer the held-out prompts in every arm and compare.

    Args:
        bench: Prompts, target and rewards; `reward` must be among their names.
        rewriters: Arms with a prompter, by name.
        best_of: The arm whose rewrites are tried out, and how many of them.
        kl: Of the arms, where it is known.
        on_stage: Told which arm begins.
    """
    base, count = best_of
    sent: dict[str, Callable[[], Sequence[Sequence[str]]]] = {PLAIN: bench.unchanged}
    for name, rewriter in rewriters.items():
        sent[name] = lambda rewriter=rewriter: bench.rewritten(rewriter)  # type: ignore[misc]
    sent[f"best of {count} from {base}"] = lambda: bench.best_of(rewriters[base], count, REWARD)
    arms = []
    for number, (name, make) in enumerate(sent.items()):
        on_stage(name)
        arms.append(bench.arm(name, make(), bench.seed + number))
    return Report(tuple(arms), against(arms[0], arms[1:], bench.seed), kl)


def against(plain: Arm, arms: Sequence[Arm], seed: int) -> dict[str, Mapping[str, Comparison]]:
    """Every reward of every arm held against the arm that sends prompts as they are."""
    return {
        arm.name: {key: compare(arm.rewards[key], plain.rewards[key], seed) for key in arm.rewards}
        for arm in arms
    }


def summary(report: Report, prompts: Sequence[str]) -> dict[str, Any]:
    """The report as plain data for report.json."""
    arms = {}
    for arm in report.arms:
        flat = [x for row in arm.sent for x in row]
        owners = [prompt for prompt, row in zip(prompts, arm.sent, strict=True) for _ in row]
        hints = [_added(x, prompt) for x, prompt in zip(flat, owners, strict=True)]
        arms[arm.name] = {
            "rewards": {key: float(values.mean()) for key, values in arm.rewards.items()},
            "kl": report.kl.get(arm.name),
            "rewrites": asdict(describe_rewrites(owners, flat))
            | {"distinct_additions": distinct_share(hints)},
            "answers": asdict(describe_answers([y for row in arm.answers for y in row])),
            "against_no_prompter": {
                key: asdict(one) for key, one in report.comparisons.get(arm.name, {}).items()
            },
        }
    return {"prompts": len(prompts), "answers": len(report.arms[0].sent[0]), "arms": arms}


def write_report(
    folder: Path, data: Mapping[str, Any], report: Report, prompts: Sequence[str], name: str
) -> None:
    """Write `summary` to report.json, and report.md with twenty exchanges of one arm to read."""
    write_text(folder / "report.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / REPORT, _markdown(data, report, prompts, name))


def table(data: Mapping[str, Any]) -> str:
    """The figures of `summary` as a Markdown table, one line an arm."""
    lines = [
        "| arm | reward | gain (95 %) | win rate | variance | second reward, win rate | KL | "
        "words sent | words answered |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in data["arms"].items():
        lines.append("| " + " | ".join([name, *_cells(arm)]) + " |")
    return "\n".join(lines)


def _cells(arm: Mapping[str, Any]) -> list[str]:
    own = arm["against_no_prompter"].get(REWARD)
    second = arm["against_no_prompter"].get(SECOND)
    rewards = arm["rewards"]
    cells = [f"{rewards[REWARD]:.3f}", "", "", "", "", ""]
    if own:
        gain = own["mean_difference"]
        cells[1] = f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        cells[2] = f"{own['win_rate']['value']:.1%}"
        cells[3] = f"{own['first_variance']:.3f} (none: {own['second_variance']:.3f})"
    if SECOND in rewards:
        cells[4] = f"{rewards[SECOND]:.3f}"
    if second:
        cells[4] += f", {second['win_rate']['value']:.1%}"
    if arm["kl"] is not None:
        cells[5] = f"{arm['kl']:.2f}"
    return [*cells, f"{arm['rewrites']['words']:.1f}", f"{arm['answers']['words']:.1f}"]


def _markdown(data: Mapping[str, Any], report: Report, prompts: Sequence[str], name: str) -> str:
    arm = next(arm for arm in report.arms if arm.name == name)
    chosen = np.linspace(0, len(prompts) - 1, min(SAMPLES, len(prompts))).astype(int)
    parts = ["# Report", table(data), f"# {len(chosen)} exchanges of the arm {name}"]
    for place in chosen:
        reward, plain = (one.rewards[REWARD][place, 0] for one in (arm, report.arms[0]))
        parts.append(
            f"## {prompts[place]}\n\n"
            f"**Sent:** {arm.sent[place][0]}\n\n"
            f"**Answer ({reward:+.2f}):** {arm.answers[place][0]}\n\n"
            f"**Without prompter ({plain:+.2f}):** {report.arms[0].answers[place][0]}"
        )
    return "\n\n".join(parts) + "\n"


def _added(rewrite: str, prompt: str) -> str:
    """What a rewrite adds to a prompt that it begins with; otherwise all of it."""
    return rewrite.removeprefix(prompt.rstrip()).strip()

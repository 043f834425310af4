"""What an evaluation found, as plain values: the report, the figures and summary.json show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.measure.text import AnswerText, RewriteText
from alignpro_lite.registry.storage import write_text

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Cell:
    """One system on one data set under one judge.

    Attributes:
        data: Name of the data set, or ALL.
        system: Name of the system.
        judge: Name of the reward.
        prompts: How many prompts.
        answers: How many answers to each.
        mean: Mean reward.
        within: Variance of the reward over answers to one prompt, averaged over prompts.
        between: Variance of the prompts' means, without the noise that their answers bring.
        words: Mean length of an answer.
        kl: Mean of log q(x'|x) - log ρ_sft(x'|x) over rewrites that may be used, in nats; for draws
            from ρ* the estimate of KL(ρ*‖ρ_sft). None where unknown.
    """

    data: str
    system: str
    judge: str
    prompts: int
    answers: int
    mean: Estimate
    within: Estimate
    between: float
    words: float
    kl: float | None


@dataclass(frozen=True)
class Versus:
    """A system compared with the baseline on the same prompts.

    Attributes:
        data: Name of the data set, or ALL.
        system: Name of the system.
        judge: Name of the reward.
        gain: Mean reward, system minus baseline.
        p: Two-sided p value of no gain, by flipping the signs of the prompts' differences.
        p_adjusted: The same after Holm's correction for all comparisons of this judge.
        win: Share of prompts on which the system's mean reward is higher.
        tie: Share on which it is equal.
        loss: Share on which it is lower.
        answer_win: Probability that one answer beats one of the baseline, ties half.
        length_controlled: The same, had both answers been of one length.
        variance: Variance within a prompt, system minus baseline.
        recovered: Share of the oracle's gain; None without an oracle, or for the oracle.
    """

    data: str
    system: str
    judge: str
    gain: Estimate
    p: float
    p_adjusted: float
    win: Estimate
    tie: Estimate
    loss: Estimate
    answer_win: Estimate
    length_controlled: Estimate
    variance: Estimate
    recovered: Estimate | None


@dataclass(frozen=True)
class WinMatrix:
    """Who beats whom, over all data sets.

    Attributes:
        judge: Name of the reward, or of the judge model.
        systems: Names, in the order of rows and columns.
        rates: rates[i][j]: probability that an answer of system i beats one of j, ties half; 0.5
            on the diagonal and between systems that share no prompt.
    """

    judge: str
    systems: tuple[str, ...]
    rates: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Agreement:
    """How often two judges prefer the same answer of a pair.

    Attributes:
        first: Name of one.
        second: Name of the other.
        share: Share of pairs; ties of either count half.
    """

    first: str
    second: str
    share: Estimate


@dataclass(frozen=True)
class DialPoint:
    """Reward and KL at one setting.

    Attributes:
        setting: What was set, such as λ = 0.02 or gate 0.5.
        kl: KL to ρ_sft, in nats.
        reward: Mean reward with its interval.
    """

    setting: str
    kl: float
    reward: Estimate


@dataclass(frozen=True)
class DialCurve:
    """Reward against KL as a dial is turned.

    Attributes:
        name: Such as sampling ρ*.
        points: In the order of the dial.
    """

    name: str
    points: tuple[DialPoint, ...]


@dataclass(frozen=True)
class ModelUsed:
    """A model that took part.

    Attributes:
        role: What it did, such as target.
        name: As the configuration names it.
        sha256: Digest of its file, or of the list of digests of its bundle.
        size: Bytes.
    """

    role: str
    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Summary:
    """All that an evaluation found.

    Attributes:
        baseline: Name of the system that the others are compared with.
        oracle: Name of the oracle, or None.
        judges: Names of the rewards; the first is the one that was optimised.
        data: Names of the data sets, without ALL.
        systems: Names of the systems.
        cells: System x data set x judge; ALL where there are several, for systems that answer all.
        versus: Against the baseline, likewise.
        matrices: One a judge.
        agreements: One a pair of judges.
        rewrites: What each system's rewrites did to their prompts, which no reward sees.
        answers: What each system's answers look like.
        dial: Curves of reward against KL; empty if not measured.
        models: What took part.
        configuration: As it was resolved.
        versions: Versions of packages, and the machine.
        cost: Seconds by system.
        notes: What a reader has to know, one sentence each.
    """

    baseline: str
    oracle: str | None
    judges: tuple[str, ...]
    data: tuple[str, ...]
    systems: tuple[str, ...]
    cells: tuple[Cell, ...]
    versus: tuple[Versus, ...]
    matrices: tuple[WinMatrix, ...]
    agreements: tuple[Agreement, ...]
    rewrites: Mapping[str, RewriteText]
    answers: Mapping[str, AnswerText]
    dial: tuple[DialCurve, ...]
    models: tuple[ModelUsed, ...]
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    cost: Mapping[str, float]
    notes: tuple[str, ...]

    def cell(self, data: str, system: str, judge: str) -> Cell | None:
        """The cell of a system, or None if it was not run on that data set."""
        wanted = (data, system, judge)
        return next((c for c in self.cells if (c.data, c.system, c.judge) == wanted), None)

    def against_baseline(self, data: str, system: str, judge: str) -> Versus | None:
        """How a system compares with the baseline, or None if they share too few prompts."""
        wanted = (data, system, judge)
        return next((v for v in self.versus if (v.data, v.system, v.judge) == wanted), None)

    @property
    def overall(self) -> str:
        """The data set that stands for all: ALL, or the only one there is."""
        return ALL if any(cell.data == ALL for cell in self.cells) else self.data[0]


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `SUMMARY` into the folder of an evaluation."""
    text = json.dumps(asdict(summary), indent=2, ensure_ascii=False)
    write_text(folder / SUMMARY, text + "\n")

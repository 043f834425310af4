"""What an evaluation found, as plain values: the report, the figures and summary.json show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.measure.adaptation import Adaptation
from alignpro_lite.measure.harm import Harm
from alignpro_lite.measure.segments import Segments
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
        kl: Mean of log q(x'|x) - log ρ_sft(x'|x) over rewrites that may be used, in nats, where q
            is what draws them, its temperature included, and ρ_sft is at temperature 1. None where
            q is unknown, as for draws from ρ*.
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
class Difference:
    """Two systems compared on the prompts that both have answered.

    Attributes:
        first: Name of one.
        second: Name of the other.
        judge: Name of the reward.
        prompts: How many prompts.
        gain: Mean reward, first minus second, paired by prompt.
    """

    first: str
    second: str
    judge: str
    prompts: int
    gain: Estimate


@dataclass(frozen=True)
class KindResult:
    """A system on the prompts of one kind.

    Attributes:
        kind: The kind, or ALL.
        system: Name of the system.
        judge: Name of the reward.
        prompts: How many prompts.
        gain: Mean reward over the baseline's, paired by prompt; not corrected for many kinds.
        over_constant: Mean reward over that of the best constant hint, likewise; None where there
            is none, or for itself.
        harm: How often all answers got worse.
    """

    kind: str
    system: str
    judge: str
    prompts: int
    gain: Estimate
    over_constant: Estimate | None
    harm: Harm


@dataclass(frozen=True)
class BestOf:
    """The best of several answers to the unchanged prompt, chosen by the first judge.

    Attributes:
        calls: How many answers; as many calls of the target.
        judge: Name of the reward that scores the chosen answer.
        prompts: How many prompts.
        gain: Expected reward over the baseline's.
    """

    calls: int
    judge: str
    prompts: int
    gain: Estimate


@dataclass(frozen=True)
class EqualCalls:
    """A system beside the best of as many answers as it asks for.

    Attributes:
        system: Name of the system.
        judge: Name of the reward.
        calls: Calls of the target for one answer.
        prompts: How many prompts.
        gain: Mean reward over the baseline's.
        best: Gain of the best of `calls` answers to the unchanged prompt.
        difference: The system's reward minus that, paired by prompt.
    """

    system: str
    judge: str
    calls: int
    prompts: int
    gain: Estimate
    best: Estimate
    difference: Estimate


@dataclass(frozen=True)
class JudgeAccuracy:
    """How often one part of a judge prefers the answer that people prefer, on one set of pairs.

    Attributes:
        judge: Name of the judge.
        part: Name of the part.
        weight: Its weight in the judge.
        data: The file of pairs, held out from the part's training; None if nothing is known.
        pairs: How many; 0 if nothing is known.
        accuracy: Share of pairs that it gets right; None if nothing is known.
        length: Share that the longer answer gets right.
    """

    judge: str
    part: str
    weight: float
    data: str | None
    pairs: int
    accuracy: Estimate | None
    length: float | None

    @property
    def is_below_length(self) -> bool:
        """Whether one does better by always taking the longer answer."""
        return (
            self.accuracy is not None
            and self.length is not None
            and self.accuracy.value < self.length
        )


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
        kl: KL to ρ_sft of what is drawn, in nats; for draws from ρ* an upper limit of it.
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
class ConstraintAccuracy:
    """How often a system's answers follow the constraints in their prompts, as IFEval counts.

    Attributes:
        data: Name of the data set.
        system: Name of the system.
        prompts: How many prompts.
        constraints: How many constraints they have together.
        prompt_strict: Share of answers that follow all constraints of their prompt.
        prompt_loose: The same by the loose rule; see `reward.ifeval.Followed`.
        constraint_strict: Share of all constraints that are followed.
        constraint_loose: The same by the loose rule.
    """

    data: str
    system: str
    prompts: int
    constraints: int
    prompt_strict: Estimate
    prompt_loose: Estimate
    constraint_strict: Estimate
    constraint_loose: Estimate


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
        controls: Systems that need neither training nor a search.
        differences: Every two systems other than the baseline, under every judge.
        constant: Name of the system that gives all prompts the best constant hint, or None.
        by_kind: System x kind of prompt under every judge.
        adaptations: How rewrites depend on their prompts, by system; those that change any.
        segments: What each system's answers are like further down.
        frontier: The best of several answers to the unchanged prompt, by their number.
        equal_calls: Systems that ask the target several times for an answer, beside the frontier.
        accuracies: How often the judges are right.
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
        constraints: IFEval's accuracies, of data that have constraints.
    """

    baseline: str
    oracle: str | None
    judges: tuple[str, ...]
    data: tuple[str, ...]
    systems: tuple[str, ...]
    cells: tuple[Cell, ...]
    versus: tuple[Versus, ...]
    controls: tuple[str, ...]
    differences: tuple[Difference, ...]
    constant: str | None
    by_kind: tuple[KindResult, ...]
    adaptations: Mapping[str, Adaptation]
    segments: Mapping[str, Segments]
    frontier: tuple[BestOf, ...]
    equal_calls: tuple[EqualCalls, ...]
    accuracies: tuple[JudgeAccuracy, ...]
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
    constraints: tuple[ConstraintAccuracy, ...] = ()

    def cell(self, data: str, system: str, judge: str) -> Cell | None:
        """The cell of a system, or None if it was not run on that data set."""
        wanted = (data, system, judge)
        return next((c for c in self.cells if (c.data, c.system, c.judge) == wanted), None)

    def against_baseline(self, data: str, system: str, judge: str) -> Versus | None:
        """How a system compares with the baseline, or None if they share too few prompts."""
        wanted = (data, system, judge)
        return next((v for v in self.versus if (v.data, v.system, v.judge) == wanted), None)

    def difference(self, first: str, second: str, judge: str) -> Difference | None:
        """One system minus another one, or None if they share too few prompts."""
        for found in self.differences:
            if (found.first, found.second, found.judge) == (first, second, judge):
                return found
            if (found.second, found.first, found.judge) == (first, second, judge):
                low, high = -found.gain.high, -found.gain.low
                turned = Estimate(-found.gain.value, low, high)
                return replace(found, first=first, second=second, gain=turned)
        return None

    @property
    def overall(self) -> str:
        """The data set that stands for all: ALL, or the only one there is."""
        return ALL if any(cell.data == ALL for cell in self.cells) else self.data[0]


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `SUMMARY` into the folder of an evaluation."""
    text = json.dumps(asdict(summary), indent=2, ensure_ascii=False)
    write_text(folder / SUMMARY, text + "\n")

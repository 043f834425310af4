"""`eval pairs`: how often a reward or a judge is right about pairs of answers that people judged.

Every verdict is kept, so that a run that is stopped goes on where it was. Verdicts can be written
down as preferences, from which a small reward model is distilled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alignpro_lite.eval.inputs import named_model, scorer_used
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.pair_judge import ENOUGH, verdict_of
from alignpro_lite.experiment.run_folder import Places, claim, sole_run
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.loading import plan_models
from alignpro_lite.measure.preference_pairs import pair_accuracy, pair_log_loss
from alignpro_lite.measure.statistics import Estimate, wilson
from alignpro_lite.registry.record import Count, Record, plain
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.judge import AnswerPair, Tie, Verdict, require_sense
from alignpro_lite.reward.loading import open_judge, open_reward, scorer_named
from alignpro_lite.reward.reward import Reward

VERDICTS = "verdicts.jsonl"
ACCURACY = "accuracy.json"
Comparer = Callable[[AnswerPair], Verdict]
"""What is measured: says which of two answers is the better one."""


class PairsPlan(Record):
    """What `eval pairs` measures, recorded in its folder.

    Attributes:
        data: The file of pairs.
        reward: A reward or a judge, named as for `run`.
        target: Who judges as `judge:target`.
        rows: Only the first pairs; None for all.
    """

    data: str
    reward: str
    target: str
    rows: Count | None = None


@dataclass(frozen=True)
class PairsFound:
    """What was found about pairs of which the first answer is known to be the better one.

    Attributes:
        name: The reward or judge.
        pairs: How many.
        right: Share of which it prefers the better answer; a tie counts half.
        longer: The same for always preferring the longer answer.
        log_loss: Mean of -log P(the better answer wins), in nats; tossing a coin costs 0.693.
        same_letter: Share of pairs of which it named the same letter in both orders, so that one
            order alone says nothing; None for a reward of single answers.
        ties: How many ties, by the reason.
    """

    name: str
    pairs: int
    right: Estimate
    longer: Estimate
    log_loss: float
    same_letter: Estimate | None
    ties: dict[Tie, int]

    def __str__(self) -> str:
        """A small table."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.pairs} pairs, the share that is right, with its 95 % interval"
        names = (self.name, "the longer answer")
        width = max(map(len, names))
        for name, share in zip(names, (self.right, self.longer), strict=True):
            yield f"{name:<{width}}  {share.value:.3f}  ({share.low:.3f} to {share.high:.3f})"
        yield f"log-loss {self.log_loss:.3f} (tossing a coin: 0.693)"
        if (same := self.same_letter) is not None:
            yield (
                f"the same letter in both orders: {same.value:.3f} "
                f"({same.low:.3f} to {same.high:.3f}) of the pairs"
            )
        for tie, count in self.ties.items():
            yield f"ties because {tie}: {count}"


def judge_preferences(
    pairs: Sequence[AnswerPair], plan: PairsPlan, places: Places, note: Callable[[str], None]
) -> tuple[PairsFound, list[Verdict]]:
    """Start a measurement or resume it.

    Args:
        pairs: The better answer first, at least one.
        plan: What is measured.
        places: Where models are, and the folder of the measurement.
        note: Called with each progress message.

    Returns:
        What was found, and the verdict on every pair.

    Raises:
        InputError: The folder belongs to another measurement.
        RewardError: The judge does not judge, or the reward failed.
        AlignProError: A model is missing or damaged; what was judged is kept.
    """
    claim(places.run, plan)
    with sole_run(places.run):
        journal = Journal(places.run / VERDICTS, _identity(pairs, plan, places))
        known = [verdict_of(row, journal.file, n) for n, row in enumerate(journal.read(), start=1)]
        if known:
            note(f"Resuming: {len(known)} of {len(pairs)} pairs are judged.")
        if len(known) < len(pairs):
            known = _judged(pairs, known, plan, places, journal)
        found = found_of(plan.reward, pairs, known)
        write_text(places.run / ACCURACY, json.dumps(asdict(found), indent=2) + "\n")
    return found, known


def _identity(pairs: Sequence[AnswerPair], plan: PairsPlan, places: Places) -> str:
    """Names the plan, the texts and the model; verdicts of two of these never mix."""
    source, store = scorer_named(plan.reward), places.store
    model = (
        named_model("judge", "target", plan.target, store)
        if source.is_target
        else scorer_used("judge", source, store)
    )
    whole = [plain(plan), [asdict(pair) for pair in pairs], asdict(model)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]


def _judged(
    pairs: Sequence[AnswerPair],
    known: Sequence[Verdict],
    plan: PairsPlan,
    places: Places,
    journal: Journal,
) -> list[Verdict]:
    """The verdicts on all pairs, each of the missing ones written down at once."""
    verdicts = list(known)
    with (
        _comparer(plan, places) as compare,
        tqdm(total=len(pairs), initial=len(known), unit="pair") as bar,
    ):
        for pair in pairs[len(known) :]:
            require_sense(plan.reward, verdicts, at_least=ENOUGH)
            verdicts.append(compare(pair))
            journal.append([asdict(verdicts[-1])])
            bar.update()
    require_sense(plan.reward, verdicts, at_least=1)
    return verdicts


@contextmanager
def _comparer(plan: PairsPlan, places: Places) -> Iterator[Comparer]:
    """Load what is measured; the target only where it judges."""
    source = scorer_named(plan.reward)
    with ExitStack() as stack:
        if source.kind != "judge":
            reward = stack.enter_context(open_reward([source], places.store, usable_cores()))
            yield lambda pair: _by_reward(reward, pair)
            return
        target = None
        if source.is_target:
            planned = plan_models(plan.target, None, places.store, DeviceRequest())
            target = stack.enter_context(planned.load_target())
        judge = open_judge(source.source, plan.reward, places.store, usable_cores(), target)
        stack.callback(judge.close)
        yield lambda pair: judge.verdict(pair.prompt, pair.answer, pair.other)


def _by_reward(reward: Reward, pair: AnswerPair) -> Verdict:
    """The difference of two rewards as a margin, by Bradley and Terry (1952)."""
    if pair.answer.strip() == pair.other.strip():
        return Verdict(0.0, None, None, Tie.EQUAL)
    exchanges = [Exchange(pair.prompt, answer) for answer in (pair.answer, pair.other)]
    better, worse = reward.score(exchanges).total
    margin = float(better - worse)
    return Verdict(margin, None, None, None) if np.isfinite(margin) else _UNSCORED


_UNSCORED = Verdict(0.0, None, None, Tie.UNSCORED)


def found_of(name: str, pairs: Sequence[AnswerPair], verdicts: Sequence[Verdict]) -> PairsFound:
    """Sum up verdicts.

    Args:
        name: The reward or judge.
        pairs: The better answer first, at least one.
        verdicts: One a pair.
    """
    margins = np.array([verdict.margin for verdict in verdicts])
    lengths = np.array([float(len(pair.answer) - len(pair.other)) for pair in pairs])
    letters = [found.same_letter for found in verdicts if found.same_letter is not None]
    ties = [found.tie for found in verdicts if found.tie is not None]
    return PairsFound(
        name=name,
        pairs=len(pairs),
        right=pair_accuracy(margins),
        longer=pair_accuracy(lengths),
        log_loss=pair_log_loss(margins),
        same_letter=wilson(sum(letters), len(letters)) if letters else None,
        ties={tie: ties.count(tie) for tie in Tie if tie in ties},
    )


def write_labels(file: Path, pairs: Sequence[AnswerPair], verdicts: Sequence[Verdict]) -> int:
    """Write preferences as a judge has them, whatever people said; `train reward` reads them.

    Args:
        file: JSON lines of prompt, chosen, rejected and margin, the log-odds of the preference.
        pairs: What was judged.
        verdicts: One a pair; ties are left out.

    Returns:
        How many were written.

    Raises:
        RegistryError: The file cannot be written.
    """
    rows = [
        {
            "prompt": pair.prompt,
            "chosen": pair.answer if verdict.margin > 0 else pair.other,
            "rejected": pair.other if verdict.margin > 0 else pair.answer,
            "margin": abs(verdict.margin),
        }
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if verdict.preference
    ]
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)

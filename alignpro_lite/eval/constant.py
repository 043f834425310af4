"""The best constant hint: what a prompter is worth that gives every prompt the same hint.

A learned prompter that does no better has learned one sentence. So this system is measured beside
it, whether somebody asked for it or not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import InputError
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.evaluation import Evaluation
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.record import Origin, Record, parse_written, plain
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.rollout import Answer

CONSTANTS = "constants.jsonl"
"""Which hints were chosen, so that a resumed evaluation goes on with the same."""
CHOSEN_ON = 24
"""The most prompts that a hint is chosen on; none of them is judged."""
_TRIED = 4
"""Hints that are tried: those that the prompter wrote most often."""
_ANSWERS = 2
"""Answers to each of those prompts with each of those hints."""
_WRITTEN, _TRIALS = 1, 2
"""Numbers of the random streams of a choice."""


class ConstantHint(Record):
    """One hint for every prompt.

    Attributes:
        text: The hint; empty if the prompter wrote none that may be used.
        written: How often the prompter wrote just this.
        of: How many hints it wrote for the prompts of the choice.
        tried: How many of its most frequent hints were tried; at most 1 if no reward chose.
    """

    text: str
    written: int
    of: int
    tried: int

    def note(self, system: str) -> str:
        """What a reader of the report has to know."""
        if not self.text:
            why = "its best frequent hint is the empty one" if self.of else "it wrote none to use"
            return f"{system} adds nothing: of the hints of its prompter, {why}."
        how = (
            f"the best of the {self.tried} hints that its prompter writes most often, chosen on "
            "prompts that are not judged"
            if self.tried > 1
            else "the hint that its prompter writes most often"
        )
        return (
            f"{system} adds the same hint to every prompt, {how} ({self.written} of {self.of} "
            f"times): “{self.text}”"
        )

    def rewrite(self, template: RewriteTemplate) -> Callable[[str], str]:
        """What turns a prompt into the one with this hint."""
        return lambda prompt: template.apply(prompt, self.text)


def best_constant(
    bench: Bench,
    template: RewriteTemplate,
    prompts: Sequence[str],
    hints: Sequence[str],
    seed: int,
) -> ConstantHint:
    """Of the hints that were written most often, the one whose answers score best.

    Args:
        bench: Answers; its first judge decides.
        template: Adds a hint to a prompt.
        prompts: What the hints are tried on; none of them may be judged. If there is none, the
            most frequent hint is taken, because its choice looks at no reward.
        hints: What the prompter wrote and may be used.
        seed: Seed of the trial answers, the same for all hints.

    Raises:
        AlignProError: The target or the judge failed altogether.
    """
    counts = Counter(hints)
    often = [hint for hint, _ in counts.most_common(_TRIED if prompts else 1)]

    def worth(hint: str) -> float:
        return _tried(bench, prompts, [template.apply(prompt, hint) for prompt in prompts], seed)

    best = max(often, key=worth) if len(often) > 1 else next(iter(often), "")
    return ConstantHint(best, counts[best], len(hints), len(often))


def _tried(bench: Bench, prompts: Sequence[str], sent: Sequence[str], seed: int) -> float:
    """Mean reward of a few answers to each text, without those that failed or have no score.

    A trial is no comparison that is reported, so it need not stop at a single failure.
    """
    conversations = [[Message("user", text)] for text in sent]
    outcomes = bench.target.answers(conversations, bench.plan.with_count(_ANSWERS), seed)
    exchanges = [
        Exchange(prompt, answer.text, bench.rivals(prompt))
        for prompt, answers in zip(prompts, outcomes, strict=True)
        for answer in answers
        if isinstance(answer, Answer)
    ]
    if not exchanges:
        return -math.inf
    scores = next(iter(bench.judges.values())).score(exchanges)
    known = scores.total[~scores.failed]
    return float(known.mean()) if known.size else -math.inf


def choose_constants(
    evaluation: Evaluation, note: Callable[[str], None]
) -> Mapping[str, ConstantHint]:
    """Choose the hint of every constant system, or read what an earlier run chose.

    Raises:
        InputError: The file of choices is damaged.
        AlignProError: A model is missing or failed.
    """
    journal, bundles = evaluation.journal(CONSTANTS), evaluation.constants
    return {
        name: remembered(journal, name, partial(_chosen, evaluation, name, section.bundle, note))
        for name, section in bundles.items()
    }


def remembered(journal: Journal, name: str, choose: Callable[[], ConstantHint]) -> ConstantHint:
    """The hint of a system, chosen once and kept.

    Args:
        journal: `CONSTANTS` of a run.
        name: Name of the system.
        choose: Chooses it, the first time.

    Raises:
        InputError: The file of choices is damaged.
    """
    origin = Origin(journal.file, InputError, CURE)
    for row in journal.read():
        if row.pop("system", None) == name:
            return parse_written(ConstantHint, row, origin)
    found = choose()
    journal.append([{"system": name} | plain(found)])
    return found


def _chosen(
    evaluation: Evaluation, name: str, bundle: str, note: Callable[[str], None]
) -> ConstantHint:
    note(f"Choosing the hint of {name}.")
    prompter, seed = evaluation.loaded.prompter(bundle), evaluation.config.seed
    spare = evaluation.spare[:CHOSEN_ON]
    shown = spare or evaluation.mixed(CHOSEN_ON)
    hints = _hints(prompter, shown, stream_seed(seed, _WRITTEN))
    bench = evaluation.loaded.bench
    return best_constant(bench, prompter.template, spare, hints, stream_seed(seed, _TRIALS))


def _hints(prompter: OnnxPrompter, prompts: Sequence[str], seed: int) -> list[str]:
    """What a prompter adds to each prompt as users get it, where it may be used."""
    usual = prompter.bundle.sidecar.sampling
    hints = []
    for number, prompt in enumerate(prompts):
        request = Request().with_seed(stream_seed(seed, number))
        source = CandidateSource(prompter, protect(prompt), request, usual, Cancellation())
        hints += [found.rewrite.output.strip() for found in source.candidates(1, weighed=False)]
    return hints

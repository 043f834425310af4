"""The four accuracies of IFEval as they are published: by prompt and by constraint, both rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.eval.summary import ConstraintAccuracy
from alignpro_lite.measure.shares import pooled_share
from alignpro_lite.measure.statistics import FloatArray, bootstrap_mean
from alignpro_lite.reward.exchange import References
from alignpro_lite.reward.ifeval import ConstraintCheck

_STRICT, _LOOSE = 0, 1


def constraint_accuracies(
    lineup: Lineup, records: Sequence[ResultRow], references: References
) -> tuple[ConstraintAccuracy, ...]:
    """Check every answer to prompts with constraints, whatever the judges are.

    Args:
        lineup: Which systems answered which prompts.
        records: What they answered.
        references: What is known about right answers, by the prompt.

    Raises:
        MissingDependencyError: The checkers are needed, and not installed.
        RewardError: A checker failed.
    """
    constrained = {
        data
        for data, prompts in lineup.prompts.items()
        if all(prompt in references and references[prompt].check == "ifeval" for prompt in prompts)
    }
    return tuple(_accuracies(lineup, records, references, constrained)) if constrained else ()


def _accuracies(
    lineup: Lineup, records: Sequence[ResultRow], references: References, constrained: set[str]
) -> Iterator[ConstraintAccuracy]:
    check = ConstraintCheck()
    for data in (name for name in lineup.prompts if name in constrained):
        for system in lineup.systems:
            rows = [row for row in records if (row.data, row.system) == (data, system)]
            if len(rows) < 2:
                continue
            followed = [_followed(check, row, references[row.prompt].text) for row in rows]
            by_prompt = np.array([found.all(axis=1).mean(axis=1) for found in followed])
            counts = np.array([found.mean(axis=2).sum(axis=1) for found in followed])
            sizes = np.array([float(found.shape[1]) for found in followed])
            yield ConstraintAccuracy(
                data=data,
                system=system,
                prompts=len(rows),
                constraints=int(sizes.sum()),
                prompt_strict=bootstrap_mean(by_prompt[:, _STRICT], lineup.seed),
                prompt_loose=bootstrap_mean(by_prompt[:, _LOOSE], lineup.seed),
                constraint_strict=pooled_share(counts[:, _STRICT], sizes, lineup.seed),
                constraint_loose=pooled_share(counts[:, _LOOSE], sizes, lineup.seed),
            )


def _followed(check: ConstraintCheck, row: ResultRow, reference: str) -> FloatArray:
    """What the answers to a prompt follow, 0 or 1, shape (rules, constraints, answers)."""
    found = [check.followed(row.prompt, answer, reference) for answer in row.answers]
    both = [[each.strict for each in found], [each.loose for each in found]]
    return np.array(both, np.float64).transpose(0, 2, 1)

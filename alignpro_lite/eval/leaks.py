"""Which systems told the target the right answer: what such a rewrite earns is not its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from alignpro_lite.eval.records import ResultRow
from alignpro_lite.reward.exchange import References
from alignpro_lite.reward.leak import gives_away


def leak_notes(records: Sequence[ResultRow], references: References) -> Iterator[str]:
    """A sentence for each system whose rewrites give right answers away.

    Args:
        records: What was sent.
        references: What is known about right answers, by the prompt.
    """
    sent, leaked = Counter[str](), Counter[str]()
    for record in records:
        reference = references.get(record.prompt)
        sent[record.system] += len(record.sent)
        leaked[record.system] += sum(
            gives_away(record.prompt, rewrite, reference) for rewrite in record.sent
        )
    for system, count in leaked.items():
        if count:
            yield (
                f"{count} of {sent[system]} prompts that {system} sent give the right answer away, "
                "and the user's own do not: what they earn is not the target's work."
            )

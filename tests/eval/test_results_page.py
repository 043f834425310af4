"""The page of results and the paragraph of the README, made from one evaluation."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import asdict, replace

import numpy as np
import pytest

from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.summary import JudgeAccuracy
from alignpro_lite.measure.statistics import Estimate
from tests.support import ROOT
from tests.support.records import lineup_of, records_of
from tests.test_claims import QUOTED, normal, unsupported

TOOL = runpy.run_path(str(ROOT / "tools" / "generate_results.py"))
DATA = ("dolly", "lakes")
GAINS = {
    "no prompter": 0.0,
    "ρ_sft": 0.05,
    "prompter": 0.07,
    "ρ*": 0.2,
    "oracle": 0.1,
    "BPO": 0.04,
    "best constant hint": 0.068,
}
ACCURACIES = (
    JudgeAccuracy("reward", "helpful", 1.0, "pairs", 251, Estimate(0.6, 0.54, 0.66), 0.52),
    JudgeAccuracy("second", "helpful", 1.0, "pairs", 747, Estimate(0.533, 0.5, 0.57), 0.568),
)


def scores(system, number):
    random = np.random.default_rng(number)
    return tuple(random.normal(GAINS[system] + number / 10, 0.1, 4))


@pytest.fixture(scope="module")
def found():
    """A summary as it is read from summary.json."""
    lineup = lineup_of(
        dict.fromkeys(GAINS, DATA), prompts=6, controls=("ρ_sft", "best constant hint")
    )
    lineup = replace(lineup, judges=("reward", "second"), oracle="oracle", calls={"ρ*": 4})
    lineup = replace(lineup, constant="best constant hint")
    records = records_of(lineup, scores)
    pools = {
        (data, n): dict.fromkeys(lineup.judges, np.array(scores("no prompter", n)))
        for data in DATA
        for n in range(6)
    }
    summary = summarise(
        lineup, records, pools, ACCURACIES, {"answers": {"count": 4, "max_tokens": 64}}
    )
    return json.loads(json.dumps(asdict(summary)))


def test_every_figure_of_the_readme_is_on_the_page(found):
    """Holds down: "78 %" and "72 %" were on no page."""
    page, said = TOOL["page"](found, None, None, None), TOOL["claims"](found)
    assert len(QUOTED.findall(normal(said))) == 7
    assert unsupported(said, page) == []
    assert "mere length" in said, "the second judge is below it"
    assert "constant" not in said or "every prompt alike" in said


@pytest.mark.parametrize("section", ["## All systems", "## In the paper's layout", "## Compared"])
def test_every_evaluation_is_shown_with_all_it_has_to_be_read_with(found, section):
    """Holds down: BPO under the reward of its rival alone; 167 % without best of n beside it."""
    page = TOOL["page"](found, found, found, None)
    _, _, rest = page.partition(section)
    part = rest.partition("\n## ")[0]
    for needed in (
        "Judged by reward:",
        "Judged by second:",
        "minus ρ_sft | minus best constant hint | minus BPO",
        "| best of 4 | 4 |",
        "| prompter | open | 12 |",
        "each answer worse (luck: 6%)",
        "| system | cut | words 1 to 48 |",
        "| ρ* | 4 |",
        "The judge second is below length",
        "| second | 1 helpful | pairs | 747 | 0.533 (0.500 to 0.570) | 0.568 |",
    ):
        assert needed in part, needed
    assert "The judge reward is below" not in part


def test_what_was_not_measured_has_no_section(found):
    some = [system for system in found["systems"] if system != "oracle"]
    page = TOOL["page"]({**found, "systems": some}, None, None, None)
    assert "paper's layout" not in page
    assert "BPO's own" not in page
    assert "λ dial" not in page
    assert "theorem" not in page


def test_only_what_is_between_its_markers_is_written(found):
    readme = "Before.\n\n<!-- generated: results -->\n\nOld 78 %.\n\n<!-- end -->\n\nAfter."
    written = TOOL["CLAIMS"].sub(lambda match: "New.", readme)
    assert written == readme.replace("Old 78 %.", "New.")
    assert not re.search(TOOL["CLAIMS"], "No markers here.")

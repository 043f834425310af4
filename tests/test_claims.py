"""Every figure that a document quotes from the page of results is there, with its interval."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    *sorted(
        path
        # A log has figures of its own, and what it says of other pages stays as it was.
        for path in (ROOT / "docs").glob("*.md")
        if path.name not in ("results.md", "training-log.md")
    ),
]
RESULTS = ROOT / "docs" / "results.md"
FIGURE = r"(?<![\w.,/-])[-+]?(?:\d+\.\d+(?!\w|\.\d)|\d+%)"
"""A number with a decimal point, or one in per cent."""
QUOTED = re.compile(rf"{FIGURE} \({FIGURE} to {FIGURE}\)")
"""A figure with its interval."""


def normal(text: str) -> str:
    """A text without what programs read, its white space and signs as the page of results has."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+(?=%)", "", " ".join(text.split())).replace("\u2212", "-")


def unsupported(text: str, page: str) -> list[str]:
    """Figures of a text that do not stand on a page, or stand in the text without an interval."""
    quoted = QUOTED.findall(normal(text))
    missing = [figure for figure in quoted if figure not in normal(page)]
    return missing + re.findall(FIGURE, QUOTED.sub(" ", normal(text)))


def paragraphs(path: Path) -> list[str]:
    """Paragraphs, items of lists and rows of tables."""
    return re.split(r"\n\s*\n|\n(?=- |\|)", path.read_text(encoding="utf-8"))


def quoting(path: Path) -> list[str]:
    """Paragraphs that send their reader to the page of results."""
    return [text for text in paragraphs(path) if re.search(r"\]\((?:docs/)?results\.md", text)]


PAGE = "| a | +0.0667 (+0.0547 to +0.0788) | 65% (62% to 68%) | 0.78 | 78% (70% to 80%) |"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It gains +0.0667 (+0.0547 to +0.0788).", []),
        ("It wins 65 % (62 % to\n68 %) of the time.", []),
        ("It wins 65 % of the time.", ["65%"]),
        ("It scores higher on 78 %, it says.", ["78%"]),
        ("It gains +0.0667 (+0.0547 to +0.0799).", ["+0.0667 (+0.0547 to +0.0799)"]),
        ("It gains 0.78.", ["0.78"]),
        ("On 286 prompts, 20 minutes on 2 cores, see `0.4`, v0.3.36 and [it](0.5.md).", []),
        ("```text\n72 tok/s, 2.40 s\n```", []),
    ],
)
def test_a_figure_without_its_page_or_its_interval_is_found(text, found):
    """Holds down: 78 % was quoted, and 78 % is on any page of a hundred figures."""
    assert unsupported(text, PAGE) == found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_figure_beside_a_link_to_the_results_is_there(path):
    """Holds down: a README that quoted 78 % and 72 %, which the page it named did not have."""
    page = RESULTS.read_text(encoding="utf-8")
    assert [found for text in quoting(path) for found in unsupported(text, page)] == []


def test_a_share_in_the_readme_names_its_page():
    """A per cent without a link to its page could be anything."""
    for text in paragraphs(ROOT / "README.md"):
        if re.search(r"\d%", normal(text)):
            assert "results.md" in text, text

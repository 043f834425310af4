"""The report of an evaluation: whole, offline, and safe to open whatever the texts hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from msgspec import structs

pytest.importorskip("matplotlib")

from alignpro_lite.eval.evaluate import FIGURES, PAGE, TEXT, write_report
from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.eval.report import figures, page
from alignpro_lite.eval.report.figures import PALETTE, inline_figures, looks, write_figures
from alignpro_lite.eval.report.markdown import exchanges_as_markdown
from alignpro_lite.eval.report.tables import number
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.eval.summary import (
    Agreement,
    BestOf,
    Cell,
    DialCurve,
    DialPoint,
    Difference,
    EqualCalls,
    JudgeAccuracy,
    KindResult,
    ModelUsed,
    Summary,
    Versus,
    WinMatrix,
)
from alignpro_lite.measure.adaptation import Adaptation, Information
from alignpro_lite.measure.harm import Harm
from alignpro_lite.measure.segments import Segments
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.measure.text import AnswerText, KeptShares, RewriteText
from alignpro_lite.rewriting.certificate import word_changes

ATTACK = "</script><img src=x onerror=alert(1)><!-- &lt;b&gt; {{ 7 * 7 }}"
ODD_NAME = 'x" <b>&$y$ id="z'
SYSTEMS = ("none", "learned", ODD_NAME)
DATA = ("alpaca", "dolly")
JUDGES = ("default", "second")
GAINS = {"none": 0.0, "learned": 0.4, ODD_NAME: -0.3}
PROMPTS = (
    f"Say {ATTACK}",
    "First line\r\nSecond line\r\n\r\n    indented",
    "كيف أحافظ على سلامتي على الإنترنت؟ 🎉👩‍🚀",
    "Read https://example.org/ and \u2028 tell",
)
REWRITES = RewriteText(
    words=9.87,
    characters=50.0,
    growth=1.5,
    similarity=0.75,
    kept=KeptShares(0.9, None, 1.0),
    unchanged=0.5,
    distinct_additions=0.125,
    repeated=0.0,
)
INFORMATION = Information(0.9, 0.6, 1.5, 0.012)


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1)


def cell(data: str, system: str, judge: str) -> Cell:
    kl = 1.5 if system == "learned" else None
    mean = estimate(0.2 + GAINS[system])
    return Cell(data, system, judge, 4, 2, mean, estimate(0.5), 0.1, 12.0, kl)


def versus(data: str, system: str, judge: str) -> Versus:
    share, gain = estimate(0.4), estimate(GAINS[system])
    return Versus(
        data=data,
        system=system,
        judge=judge,
        gain=gain,
        p=0.0001,
        p_adjusted=0.0002,
        win=share,
        tie=estimate(0.2),
        loss=share,
        answer_win=share,
        length_controlled=share,
        variance=estimate(-0.01),
        recovered=estimate(0.7) if system == "learned" else None,
    )


HARM = Harm(estimate(0.3), 0.0625, estimate(0.2), 1 / 70)


@pytest.fixture(scope="module")
def summary() -> Summary:
    places = [(data, system, j) for j in JUDGES for data in (*DATA, ALL) for system in SYSTEMS]
    points = [DialPoint(f"λ {kl}", kl, estimate(kl / 4)) for kl in (0.1, 0.5, 2.0)]
    return Summary(
        baseline="none",
        oracle=ODD_NAME,
        judges=JUDGES,
        data=DATA,
        systems=SYSTEMS,
        cells=tuple(cell(*place) for place in places),
        versus=tuple(versus(*place) for place in places if place[1] != "none"),
        controls=(),
        differences=tuple(Difference("learned", ODD_NAME, j, 8, estimate(0.05)) for j in JUDGES),
        constant=ODD_NAME,
        by_kind=tuple(
            KindResult(kind, "learned", j, 4, estimate(0.4), estimate(0.05), HARM)
            for j in JUDGES
            for kind in (ALL, "maths")
        ),
        adaptations={"learned": Adaptation(8, 0.25, 0.5, 5, INFORMATION, INFORMATION)},
        segments=dict.fromkeys(
            SYSTEMS, Segments((1.0, 0.5, 0.0, 0.0), (0.1, 0.3, None, None), 0.9)
        ),
        frontier=tuple(BestOf(2, j, 8, estimate(0.3)) for j in JUDGES),
        equal_calls=tuple(
            EqualCalls("learned", j, 2, 8, *map(estimate, (0.4, 0.3, 0.1))) for j in JUDGES
        ),
        accuracies=tuple(
            JudgeAccuracy(j, "helpfulness", 1.0, "pairs.jsonl", 90, estimate(0.6), 0.55)
            for j in JUDGES
        ),
        matrices=tuple(
            WinMatrix(j, SYSTEMS, ((0.5, 0.2, 0.7), (0.8, 0.5, 0.9), (0.3, 0.1, 0.5)))
            for j in JUDGES
        ),
        agreements=(Agreement(*JUDGES, estimate(0.7)),),
        rewrites=dict.fromkeys(SYSTEMS, REWRITES),
        answers=dict.fromkeys(SYSTEMS, AnswerText(12.34, 60.0, 0.0, 0.25)),
        dial=(DialCurve("sampling ρ*", tuple(points)), DialCurve("learned", tuple(points))),
        models=(ModelUsed("target", ATTACK, "ab" * 32, 1000),),
        configuration={"seed": 0, "text": ATTACK},
        versions={"python": "3.12"},
        cost={"none": 4.0, "learned": 4000.0},
        notes=(f"A note: {ATTACK}",),
    )


@pytest.fixture(scope="module")
def records() -> list[ResultRow]:
    return [
        ResultRow(
            data=data,
            system=system,
            number=number,
            prompt=prompt,
            sent=(prompt, f"{prompt}\nBe brief. {ATTACK}")
            if system == "learned"
            else (prompt,) * 2,
            answers=(f"{ATTACK} {system}", "Yes.\r\nNo. 🎉"),
            rewards=dict.fromkeys(JUDGES, (GAINS[system], 0.1 + 0.2)),
            log_ratios=(),
            reason="",
            seconds=1.0,
            cut=(False, True),
        )
        for data in DATA
        for number, prompt in enumerate(PROMPTS)
        for system in SYSTEMS
    ]


class Page(HTMLParser):
    """Sorts a page as a browser would: elements, attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, summary, records):
    place = tmp_path_factory.mktemp("report")
    write_report(place, summary, records)
    return place


@pytest.fixture(scope="module")
def source(folder) -> str:
    return (folder / PAGE).read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_may_not(source):
    shown = Page(source)
    assert shown.values("src") == []
    assert all(link.startswith("#") for link in shown.values("href"))
    assert shown.tags["link"] == shown.tags["iframe"] == shown.tags["object"] == 0
    assert not re.search(r"@import|url\((?!#)", source)
    policy = next(value for value in shown.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'")


def test_the_policy_lets_the_script_run_as_it_stands_in_the_page(source):
    shown = Page(source)
    assert len(shown.scripts) == 2
    policy = next(value for value in shown.values("content") if "script-src" in value)
    assert f"'{page._digest(shown.scripts[1])}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "innerHTML" not in source


def test_no_text_becomes_markup(source):
    shown = Page(source)
    assert shown.tags["img"] == shown.tags["b"] == 0
    assert "<img" not in source
    assert not any(key.startswith("on") for _, key, _ in shown.attributes)
    assert ATTACK in shown.text  # of a note, a model and the configuration
    assert "</" not in shown.scripts[0]
    assert "<" not in shown.scripts[0]


def test_the_examples_are_what_was_recorded(source, records):
    found = json.loads(Page(source).scripts[0])
    assert found["systems"] == list(SYSTEMS)
    assert [(card["data"], card["number"]) for card in found["cards"]] == [
        (data, number) for data in DATA for number in range(len(PROMPTS))
    ]
    for record in records:
        card = found["cards"][DATA.index(record.data) * len(PROMPTS) + record.number]
        run = card["runs"][SYSTEMS.index(record.system)]
        assert card["prompt"] == record.prompt
        assert run["answers"] == list(record.answers)
        assert run["rewards"] == {name: list(values) for name, values in record.rewards.items()}
        sent = [written(run["rewrites"][place], record.prompt) for place in run["sent"]]
        assert sent == list(record.sent)


def written(pieces: list[list] | None, prompt: str) -> str:
    if pieces is None:
        return prompt
    return "".join(text for kind, text in pieces if kind != 1)


def test_a_rewrite_shows_what_was_removed():
    pieces = page._pieces("one two three", "one four three")
    assert pieces == [(0, "one "), (1, "two"), (2, "four"), (0, " three")]


def test_texts_that_share_little_are_not_mixed_word_by_word():
    before, after = "How do I bake a good bread", "Explain a recipe in five steps"
    assert len(word_changes(before, after)) > 2
    assert page._pieces(before, after) == [(1, before), (2, after)]


def test_ids_are_unique_in_the_page(source):
    shown = Page(source)
    ids = Counter(shown.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    targets = [link.removeprefix("#") for link in shown.values("href")]
    targets += re.findall(r"url\(#([^)]*)\)", source)
    assert targets
    assert set(targets) <= set(ids)


def test_figures_take_the_colours_of_the_page(summary):
    figures = inline_figures(summary)
    assert list(figures) == ["mean", "variance", "dial", "wins-1", "wins-2"]
    for svg in figures.values():
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert "#ffffff" not in svg
        assert "http" not in svg
        assert not re.search(r"<(style|metadata)", svg)


def test_a_name_is_text_in_a_figure(summary):
    root = ElementTree.fromstring(inline_figures(summary)["mean"])
    assert ODD_NAME in {element.text for element in root.iter("text")}


def test_figures_are_written_and_repeat(folder, summary, tmp_path):
    names = [f"{name}.{kind}" for name in inline_figures(summary) for kind in ("png", "svg")]
    first = {file.name: file.read_bytes() for file in (folder / FIGURES).iterdir()}
    assert sorted(first) == sorted(names)
    for name, content in first.items():
        assert len(content) > 2000
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
        assert b"dc:date" not in content
    write_figures(summary, tmp_path / "again")
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == first


def test_a_curve_may_have_one_point_or_none(summary):
    point = DialPoint("gate 0", -0.01, estimate(0.0))
    some = replace(summary, dial=(DialCurve("one", (point,)), DialCurve("none of them", ())))
    drawn = inline_figures(some)["dial"]
    assert "gate 0" in drawn
    assert "none of them" not in drawn


def test_systems_look_different_however_many_there_are(summary):
    names = ("none", *(f"s{number}" for number in range(2 * len(PALETTE))))
    found = looks(replace(summary, systems=names))
    for shapes in (figures._HATCHES, figures._MARKERS):
        assert len({(colour, shapes[turn]) for colour, turn in found.values()}) == len(names)


def test_the_markdown_names_every_system_and_keeps_its_columns(folder):
    text = (folder / TEXT).read_text(encoding="utf-8")
    plain = text.replace("\\", "")
    assert all(f"| {name} |" in plain for name in SYSTEMS)
    assert "<b>" not in text.replace("\\<", "")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    results = len(JUDGES) * 3
    widths = [10] * results + [7] * len(JUDGES) + [len(SYSTEMS)] * len(JUDGES)
    widths += [6] * len(JUDGES) + [6, 7, 6, 11]
    for table, columns in zip(tables, widths, strict=True):
        lines = table.splitlines()
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {columns + 1}
    assert "| +0.400 (+0.300 to +0.500) ▲ |" in text
    assert "| 9.9 | 1.50 | 50 % | 75 % | 90 % | – | 100 % | 12 % | 12.3 | 25 % |" in text
    assert "| learned | all kinds | 4 | +0.400 (+0.300 to +0.500) ▲ | +0.050" in text
    assert (
        "| learned | 8 | 25 % | 50 % | 5 | 0.30 (0.90 less 0.60 by chance, of 1.50, p 0.012)"
        in text
    )
    assert "| none | 90 % | 10 % (reached by 100 %) | 30 % (reached by 50 %) | – (" in text
    assert text.count("\n## ") == len(tables) + 1


def test_verdicts_follow_interval_and_p_together(summary):
    better, worse, constant, harm, calls, oracle = verdicts(summary)
    assert constant.text == (
        f"learned shows nothing beyond one hint for all prompts: +0.050 against {ODD_NAME} "
        "(\N{MINUS SIGN}0.050 to +0.150)."
    )
    assert harm.text == (
        "learned does harm: on 30 % of 4 prompts each answer is worse than none's, where luck "
        "makes 6 %."
    )
    assert calls.text.startswith("learned asks 2 times for an answer.")
    assert oracle.tone == "worse"
    assert (better.tone, worse.tone) == ("better", "worse")
    assert better.text == (
        "learned beats none beyond the noise: its mean reward is 0.400 higher (95 % interval "
        "+0.300 to +0.500, p < 0.001 after Holm's correction); second finds it better."
    )
    doubtful = tuple(replace(versus, p_adjusted=0.06) for versus in summary.versus)
    assert [verdict.tone for verdict in verdicts(replace(summary, versus=doubtful))][:2] == [
        "same"
    ] * 2
    wide = tuple(replace(versus, gain=Estimate(0.4, -0.1, 0.9)) for versus in summary.versus)
    assert [verdict.tone for verdict in verdicts(replace(summary, versus=wide))][:2] == ["same"] * 2
    assert "too few prompts" in verdicts(replace(summary, versus=()))[0].text


def test_a_system_for_some_data_sets_has_a_verdict_on_each(summary):
    """Holds down: only the first of its data sets was spoken of."""
    first, *_ = (versus for versus in summary.versus if versus.data == ALL)
    parts = tuple(replace(first, data=name) for name in summary.data)
    found = verdicts(replace(summary, versus=parts))
    told = [verdict.text for verdict in found if f"{first.system} beats" in verdict.text]
    assert [sentence.split(",")[0] for sentence in told] == [f"On {name}" for name in summary.data]


def test_what_was_not_measured_leaves_no_gap(tmp_path, summary, records):
    """One data set has no ALL; no dial, no oracle, no KL, one judge, a system that did not run."""
    cells = [replace(cell, kl=None) for cell in summary.cells if cell.data == "alpaca"]
    bare = replace(
        summary,
        oracle=None,
        judges=JUDGES[:1],
        data=("alpaca",),
        systems=(*SYSTEMS, "absent"),
        cells=tuple(cell for cell in cells if cell.judge == "default"),
        versus=tuple(
            replace(versus, recovered=None) for versus in summary.versus if versus.data != ALL
        ),
        differences=(),
        constant=None,
        by_kind=(),
        adaptations={},
        frontier=(),
        equal_calls=(),
        accuracies=(),
        matrices=summary.matrices[:1],
        agreements=(),
        dial=(),
        notes=(),
    )
    write_report(tmp_path, bare, [record for record in records if record.data == "alpaca"])
    shown = Page((tmp_path / PAGE).read_text(encoding="utf-8"))
    for gone in (
        "By kind of prompt",
        "How different",
        "does harm",
        "Agreement",
        "Notes",
        "Reward against KL",
        "The curves as numbers",
        "None",
    ):
        assert gone not in shown.text
    assert "learned beats none" in shown.text
    assert not (tmp_path / FIGURES / "dial.svg").exists()
    assert json.loads(shown.scripts[0])["cards"][0]["runs"][3] is None


def test_numbers_read_well():
    assert number(-0.0001, signed=True) == "0.000"
    assert number(-1.5) == "\N{MINUS SIGN}1.500"


def test_a_reward_that_is_no_number_does_not_break_the_page(summary, records):
    broken = structs.replace(records[0], rewards={"default": (None, 1.0)})
    shown = Page(page.as_page(summary, [broken, *records[1:]]))
    assert "**None (no score):**" in exchanges_as_markdown(
        summary, [broken, *records[1:]], "learned"
    )
    run = json.loads(shown.scripts[0])["cards"][0]["runs"][0]
    assert run["rewards"] == {"default": [None, 1.0]}


def test_exchanges_are_those_of_one_system_beside_the_baseline(summary, records):
    text = exchanges_as_markdown(summary, records, "learned")
    assert text.count("**Sent:**") == text.count("**None (0.00):**") == len(DATA) * len(PROMPTS)
    assert f"**Answer (+0.40):** {ATTACK} learned" in text
    many = [structs.replace(record, number=n) for n in range(30) for record in records[:2]]
    assert exchanges_as_markdown(summary, many, "learned").count("**Sent:**") == 20

"""The figures of an evaluation: files to keep, and SVG that a page can embed."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from alignpro_lite.eval.summary import Cell, DialCurve, Summary, WinMatrix
from alignpro_lite.measure.statistics import Estimate

INK = "#1f2328"
"""The colour of text and axes in the files."""
GREY = "#999999"
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442")
"""The colours of Okabe and Ito, which people with any colour vision can tell apart."""

_PLACEHOLDER = "#010203"
"""Nothing else is drawn in it, so it can become the colour of the page's text."""
_WIN, _LOSS = PALETTE[0], PALETTE[3]
_STRONGEST = 0.7
"""Opacity of a certain win; numbers on it stay readable on a light and a dark page."""
_HATCHES = ("", "///", "...", "xxx")
_MARKERS = "osD^"
_DASHES = ("-", "--", ":", "-.")
_WIDTH = 6.4
_DPI = 200
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def looks(summary: Summary) -> dict[str, tuple[str, int]]:
    """The colour of every system, and how often the colours were used up before; grey the baseline.

    The second number chooses the hatch of a system's bars and the marker of its points.
    """
    others = [name for name in summary.systems if name != summary.baseline]
    found = {summary.baseline: (GREY, 0)}
    for number, name in enumerate(others):
        turn, place = divmod(number, len(PALETTE))
        found[name] = PALETTE[place], turn % len(_HATCHES)
    return found


def mean_figure(summary: Summary, ink: str = INK) -> Figure:
    """Draw the mean reward: a group for each data set, a bar for each system."""
    return _bars(summary, "mean reward", lambda cell: cell.mean, ink)


def variance_figure(summary: Summary, ink: str = INK) -> Figure:
    """Draw the variance of the reward over answers to one prompt, like `mean_figure`."""
    return _bars(summary, "variance within a prompt", lambda cell: cell.within, ink)


def dial_figure(summary: Summary, ink: str = INK) -> Figure | None:
    """Draw reward against KL: curves as lines, systems as points; None if no KL is known."""
    data, judge = summary.overall, summary.judges[0]
    cells = [summary.cell(data, name, judge) for name in summary.systems]
    points = [(cell.system, cell.kl, cell.mean) for cell in cells if cell and cell.kl is not None]
    curves = [curve for curve in summary.dial if curve.points]
    if not curves and not points:
        return None
    styles = looks(summary)
    with matplotlib.rc_context(_style(ink)):
        figure, axes = _empty(_WIDTH, 4.2)
        legend = [_draw_curve(axes, curve, turn, ink) for turn, curve in enumerate(curves)]
        for name, kl, mean in points:
            colour, turn = styles[name]
            _draw_interval(axes, kl, mean, colour)
            legend += axes.plot(
                [kl], [mean.value], _MARKERS[turn], color=colour, markersize=8,
                markeredgecolor=ink, zorder=4, linestyle="none", label=name,
            )  # fmt: skip
        # Reward grows roughly with the root of KL, and a root scale spreads the crowd near zero.
        # An estimate of a KL can be below zero.
        axes.set_xscale("function", functions=(_root, _square))
        axes.set_xlabel("KL to ρ_sft of what is drawn, nats (root scale); of draws at λ: at most")
        axes.set_ylabel(f"mean reward, {judge}")
        axes.margins(0.08, 0.12)
        _place_legend(figure, legend)
        _label_points(figure, axes, curves)
    return figure


def matrix_figure(matrix: WinMatrix, ink: str = INK) -> Figure:
    """Draw who beats whom, with the numbers in the squares."""
    count = len(matrix.systems)
    with matplotlib.rc_context(_style(ink)):
        figure, axes = _empty(_WIDTH, 1.4 + 0.5 * count)
        axes.grid(visible=False)
        for row, rates in enumerate(matrix.rates):
            for column, rate in enumerate(rates):
                _draw_rate(axes, row, column, rate)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        names = [_folded(name, max(6, 60 // count)) for name in matrix.systems]
        axes.set_xticks(range(count), names)
        axes.set_yticks(range(count), [_folded(name, 22) for name in matrix.systems])
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(f"row beats column, {matrix.judge}")
        axes.spines[:].set_visible(False)
    return figure


def write_figures(summary: Summary, folder: Path) -> None:
    """Write every figure as PNG and SVG; the same summary gives the same bytes.

    Args:
        summary: What to draw.
        folder: Created if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in _figures(summary, INK).items():
        with matplotlib.rc_context({**_style(INK), "svg.hashsalt": name}):
            figure.savefig(
                folder / f"{name}.png", dpi=_DPI, facecolor="white", metadata={"Software": None}
            )
            figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})


def inline_figures(summary: Summary) -> dict[str, str]:
    """Draw every figure as SVG for one HTML page, in the colour of the text around it.

    Returns:
        By name, in the order of the report: mean, variance, dial if a KL is known, then
        wins-1, wins-2, ... for the matrices. No id occurs in two of them.
    """
    found = {}
    for name, figure in _figures(summary, _PLACEHOLDER).items():
        stream = io.StringIO()
        with matplotlib.rc_context({**_style(_PLACEHOLDER), "svg.hashsalt": name}):
            figure.savefig(stream, format="svg", facecolor="none", metadata={"Date": None})
        found[name] = _for_page(stream.getvalue(), name)
    return found


def _figures(summary: Summary, ink: str) -> dict[str, Figure]:
    found = {"mean": mean_figure(summary, ink), "variance": variance_figure(summary, ink)}
    dial = dial_figure(summary, ink)
    if dial is not None:
        found["dial"] = dial
    for number, matrix in enumerate(summary.matrices, start=1):
        found[f"wins-{number}"] = matrix_figure(matrix, ink)
    return found


def _style(ink: str) -> dict[Any, Any]:
    """Settings that must hold while a figure is made and while it is saved."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys((*inked, "hatch.color", "grid.color"), ink),
        "font.size": 9,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.alpha": 0.15,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name may hold dollar signs
        "axes.unicode_minus": True,
    }


def _empty(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="y")
    return figure, axes


def _bars(summary: Summary, label: str, value: Callable[[Cell], Estimate], ink: str) -> Figure:
    names, judge = summary.systems, summary.judges[0]
    bar, styles = 0.84 / len(names), looks(summary)
    with matplotlib.rc_context(_style(ink)):
        figure, axes = _empty(max(_WIDTH, 1.4 + 0.16 * len(names) * len(summary.data)), 3.6)
        legend: list[Artist] = []
        for number, name in enumerate(names):
            colour, turn = styles[name]
            style: dict[str, Any] = {
                "facecolor": colour,
                "hatch": _HATCHES[turn],
                "edgecolor": ink,
                "linewidth": 0.5,
            }
            legend.append(Patch(label=name, **style))
            for group, data in enumerate(summary.data):
                if cell := summary.cell(data, name, judge):
                    found = value(cell)
                    place = group + (number - (len(names) - 1) / 2) * bar
                    axes.bar(place, found.value, bar * 0.92, **style)
                    _draw_interval(axes, place, found, ink)
        axes.axhline(0, color=ink, linewidth=0.8)
        axes.set_xticks(range(len(summary.data)), [_folded(name, 20) for name in summary.data])
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel(f"{label}, {judge}")
        _place_legend(figure, legend)
    return figure


def _draw_interval(axes: Axes, place: float, found: Estimate, colour: str) -> None:
    axes.vlines(place, found.low, found.high, color=colour, linewidth=1.2, zorder=3)


def _draw_curve(axes: Axes, curve: DialCurve, turn: int, ink: str) -> Artist:
    """A line in the colour of the text, since colours mean systems; dashes tell curves apart."""
    points = sorted(curve.points, key=lambda point: point.kl)
    places = [point.kl for point in points]
    rewards = [point.reward for point in points]
    axes.fill_between(
        places, [reward.low for reward in rewards], [reward.high for reward in rewards],
        color=ink, alpha=0.08, linewidth=0,
    )  # fmt: skip
    (line,) = axes.plot(
        places, [reward.value for reward in rewards], _DASHES[turn % len(_DASHES)], color=ink,
        marker=_MARKERS[turn % len(_MARKERS)], markersize=3.5, linewidth=1.1, label=curve.name,
    )  # fmt: skip
    return line


def _label_points(figure: Figure, axes: Axes, curves: Sequence[DialCurve]) -> None:
    """Write the settings next to their points, the ends of curves first, where there is room."""
    figure.draw_without_rendering()  # lays the axes out
    taken: list[Bbox] = []
    for turn, curve in enumerate(curves):
        # A rising curve leaves room above on the left and below on the right; neighbouring curves
        # take opposite sides, or their labels would collide.
        above = turn % 2 == 0
        for point in dict.fromkeys((curve.points[-1], *curve.points)):
            label = axes.annotate(
                point.setting, (point.kl, point.reward.value), (0, 4 if above else -4),
                textcoords="offset points", fontsize=6.5,
                ha="right" if above else "left", va="bottom" if above else "top",
            )  # fmt: skip
            box = label.get_window_extent()
            if any(box.overlaps(other) for other in taken):
                label.remove()
            else:
                taken.append(box)


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.copysign(np.sqrt(np.abs(values)), values)


def _square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.copysign(np.square(values), values)


def _draw_rate(axes: Axes, row: int, column: int, rate: float) -> None:
    """One square; opacity shows its strength, so it suits a white and a black page."""
    if row == column:
        axes.text(column, row, "–", ha="center", va="center", alpha=0.5)
        return
    strength = min(2 * abs(rate - 0.5), 1) * _STRONGEST
    axes.add_patch(
        Rectangle(
            (column - 0.48, row - 0.46), 0.96, 0.92, facecolor=_WIN if rate > 0.5 else _LOSS,
            alpha=strength, linewidth=0,
        )
    )  # fmt: skip
    axes.text(column, row, f"{rate:.0%}".replace("%", " %"), ha="center", va="center")


def _place_legend(figure: Figure, entries: Sequence[Artist]) -> None:
    labels = [str(entry.get_label()) for entry in entries]
    columns = max(1, min(len(entries), 4, 84 // (max(map(len, labels)) + 6)))
    figure.legend(list(entries), labels, loc="outside upper center", ncols=columns)


def _folded(name: str, width: int) -> str:
    return "\n".join(textwrap.wrap(name, width)) or name


def _for_page(svg: str, name: str) -> str:
    """Fit a matplotlib SVG into a page: ids of its own, no style rules, the page's colours."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # Style rules would apply to the whole page; metadata holds web addresses.
            if child.tag.endswith(("}style", "}metadata")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            key.replace(_LINK, "href"): _adapted(key, value, name)
            for key, value in element.attrib.items()
        }
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", name)
    return ElementTree.tostring(root, encoding="unicode")


def _adapted(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == _LINK:
        return value.replace("#", f"#{name}-")
    value = value.replace("url(#", f"url(#{name}-").replace(_PLACEHOLDER, "currentColor")
    return re.sub(r"(px) 'DejaVu Sans'[^;]*", r"\1 system-ui, sans-serif", value)

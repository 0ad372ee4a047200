"""Plots: lines, groups of bars, rows of bars, and grids of percentages. Each is drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

_STYLE: Final = Path(__file__).with_suffix(".mplstyle")
# Okabe and Ito's colours, which can be told apart without red or green; each has a marker of its own as well.
_LOOKS: Final = {
    "mean": ("#0072b2", "o"),
    "cls": ("#d55e00", "s"),
    "max": ("#111111", "D"),
    "last": ("#e69f00", "^"),
    "weighted_mean": ("#009e73", "v"),
    "gem(p=3)": ("#56b4e9", "P"),
}
_OTHERS: Final = (("#5b4b8a", "X"), ("#bfa14a", "*"), ("#cc79a7", "<"), ("#7a7a7a", ">"))

Looks = Mapping[str, tuple[str, str]]
"""Colour and marker of each series."""


@dataclass(frozen=True)
class Panel:
    """One set of axes, with a line or a group of bars for each series. Steps stand at even distances."""

    title: str
    x: str
    y: str
    steps: Sequence[object]
    series: Mapping[str, Sequence[float]]
    limits: tuple[float | None, float | None] = (None, None)
    logarithmic: bool = False


def curves(panels: Sequence[Panel], title: str) -> Figure:
    """Draw a line for each series, panels side by side, one legend under them."""

    def draw(axes: Axes, panel: Panel, looks: Looks) -> None:
        for name, values in panel.series.items():
            colour, marker = looks[name]
            places = range(len(values))
            axes.plot(places, rounded(values), color=colour, marker=marker, markersize=5.5, label=name)

    return _side_by_side(panels, title, draw)


def bars(panels: Sequence[Panel], title: str) -> Figure:
    """Draw groups of bars with their figures, panels side by side, one legend under them."""

    def draw(axes: Axes, panel: Panel, looks: Looks) -> None:
        width = 0.8 / len(panel.series)
        for place, (name, values) in enumerate(panel.series.items()):
            left = [step - 0.4 + width * (place + 0.5) for step in range(len(values))]
            drawn = axes.bar(left, rounded(values), width * 0.94, color=looks[name][0], label=name)
            axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8, color="#444444")
        axes.tick_params(axis="x", labelsize=9)

    return _side_by_side(panels, title, draw)


def rows(panels: Mapping[str, Mapping[str, float]], title: str, *, logarithmic: Collection[str] = ()) -> Figure:
    """Draw horizontal bars with their figures; panels share their rows. A logarithmic axis begins at 0 too."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    with _figure(title, len(panels), height=0.7 + 0.25 * len(names), sharey=True) as (figure, row):
        row[0].set_yticks(range(len(names)), names)
        for axes, (heading, panel) in zip(row, panels.items(), strict=True):
            places = [names.index(name) for name in panel]
            drawn = axes.barh(places, list(panel.values()), height=0.62, color=_LOOKS["mean"][0])
            axes.bar_label(drawn, fmt=_figure_of, padding=4, fontsize=9, color="#444444")
            axes.margins(x=0.25)
            if heading in logarithmic:
                axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_visible(False)
            axes.set_title(heading)
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(left=False)
        row[0].invert_yaxis()
    return figure


def grid(table: Mapping[str, Sequence[float]], columns: Sequence[str], title: str) -> Figure:
    """Draw percentages as a table, the larger the darker."""
    values = [rounded(row) for row in table.values()]
    with _figure(title, 1, height=0.8 + 0.36 * (len(table) + 1)) as (figure, (axes,)):
        # By the square root, or everything but a lone token would be white.
        axes.pcolormesh(values, cmap="Blues", norm=PowerNorm(0.5, 0, 100), edgecolors="white", linewidth=2)
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                colour = "white" if value > 35 else "#222222" if value >= 0.5 else "#b0b0b0"
                axes.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks([place + 0.5 for place in range(len(columns))], columns)
        axes.set_yticks([place + 0.5 for place in range(len(table))], list(table))
        axes.invert_yaxis()
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure on white, without date and version, so that it changes only where its numbers do."""
    with mpl.rc_context(fname=_STYLE):
        figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})


def rounded(value: Any) -> Any:
    """Round to four significant digits: more than a figure shows, and the same on other machines."""
    if isinstance(value, dict):
        return {str(key): rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@contextmanager
def _figure(
    title: str, panels: int, *, height: float = 4.2, sharey: bool = False
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    with mpl.rc_context(fname=_STYLE):
        figure = Figure(figsize=(9.6, height), layout=ConstrainedLayoutEngine(w_pad=0.1, wspace=0.02))
        row: Sequence[Axes] = figure.subplots(1, panels, squeeze=False, sharey=sharey)[0]
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, row


def _side_by_side(panels: Sequence[Panel], title: str, draw: Callable[[Axes, Panel, Looks], None]) -> Figure:
    """Draw panels, and a legend of all their series under them; a strategy has the same look in every figure."""
    names = dict.fromkeys(name for panel in panels for name in panel.series)
    looks = _LOOKS | dict(zip((name for name in names if name not in _LOOKS), _OTHERS, strict=False))
    with _figure(title, len(panels)) as (figure, row):
        for axes, panel in zip(row, panels, strict=True):
            draw(axes, panel, looks)
            axes.set_xticks(range(len(panel.steps)), [str(step).replace("_", "_\n") for step in panel.steps])
            if panel.logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
            axes.set_ylim(*panel.limits)
            axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
            axes.grid(axis="y")
            axes.tick_params(length=0)
        handles = {
            label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        columns = 6 if len(handles) <= 6 else 4
        figure.legend([*handles.values()], [*handles], loc="outside lower center", ncols=columns)
    return figure


def _figure_of(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"

"""How the figures look, and where they are kept: SVG on white, the same from the same numbers, and those as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.plots import mpl, plt

_STYLE: Final = {
    "svg.hashsalt": "millpond",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.titlesize": 12.5,
    "figure.titleweight": "bold",
    "legend.frameon": False,
}
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


@dataclass(frozen=True)
class Figure:
    """A drawing and the numbers in it."""

    drawing: Any
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One set of axes, with a line or a group of bars a series. Steps stand at even distances."""

    title: str
    x: str
    y: str
    steps: Sequence[object]
    series: Mapping[str, Sequence[float]]
    limits: tuple[float | None, float | None] = (None, None)


def curves(panels: Sequence[Panel], title: str) -> Any:
    """A line a series, panels side by side, one legend under them."""
    looks = _looks([name for panel in panels for name in panel.series])
    with _figure(title, len(panels)) as (figure, row):
        for axes, panel in zip(row, panels, strict=True):
            for name, values in panel.series.items():
                colour, marker = looks[name]
                axes.plot(
                    range(len(values)), _rounded(values), color=colour, marker=marker, markersize=5.5, label=name
                )
            _frame(axes, panel)
        _legend(figure, row)
    return figure


def bars(panels: Sequence[Panel], title: str) -> Any:
    """Groups of bars with their figures, panels side by side, one legend under them."""
    looks = _looks([name for panel in panels for name in panel.series])
    with _figure(title, len(panels)) as (figure, row):
        for axes, panel in zip(row, panels, strict=True):
            width = 0.8 / len(panel.series)
            for place, (name, values) in enumerate(panel.series.items()):
                left = [step - 0.4 + width * (place + 0.5) for step in range(len(values))]
                drawn = axes.bar(left, _rounded(values), width * 0.94, color=looks[name][0], label=name)
                axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8, color="#444444")
            _frame(axes, panel)
            axes.tick_params(axis="x", labelsize=9)
        _legend(figure, row)
    return figure


def rows(panels: Mapping[str, Mapping[str, float]], title: str, *, logarithmic: Collection[str] = ()) -> Any:
    """Horizontal bars with their figures; panels share their rows. A logarithmic axis begins at 0 too."""
    with _figure(title, len(panels), sharey=True) as (figure, row):
        for axes, (heading, panel) in zip(row, panels.items(), strict=True):
            drawn = axes.barh(list(panel), list(panel.values()), height=0.62, color=_LOOKS["mean"][0])
            axes.bar_label(drawn, fmt=lambda value: f"{value:,.0f}", padding=4, fontsize=9, color="#444444")
            axes.margins(x=0.25)
            if heading in logarithmic:
                axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_visible(False)
            axes.set_title(heading)
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(left=False)
        row[0].invert_yaxis()
    return figure


def grid(table: Mapping[str, Sequence[float]], columns: Sequence[str], title: str) -> Any:
    """Percentages as a table, the larger the darker."""
    values = [_rounded(row) for row in table.values()]
    with _figure(title, 1, height=0.8 + 0.36 * (len(table) + 1)) as (figure, (axes,)):
        # By the square root, or everything but a lone token would be white.
        axes.pcolormesh(values, cmap="Blues", norm=mpl.colors.PowerNorm(0.5, 0, 100), edgecolors="white", linewidth=2)
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


class Gallery:
    """A folder of figures. What is hung replaces the figure of this name and its numbers, and leaves the others."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._index = folder / "figures.json"

    def hang(self, name: str, figure: Figure) -> None:
        """Write NAME.svg, and the numbers under NAME in figures.json."""
        with mpl.rc_context(_STYLE):
            # Without date and version a figure changes only where its numbers do.
            figure.drawing.savefig(
                self._folder / f"{name}.svg", facecolor="white", metadata={"Date": None, "Creator": None}
            )
        numbers = json.loads(self._index.read_text()) if self._index.exists() else {}
        numbers[name] = _rounded(figure.numbers)
        self._index.write_text(json.dumps(dict(sorted(numbers.items())), indent=1) + "\n")


@contextmanager
def _figure(title: str, panels: int, *, height: float = 4.2, sharey: bool = False) -> Iterator[tuple[Any, Any]]:
    with mpl.rc_context(_STYLE):
        figure, row = plt.subplots(
            1, panels, figsize=(9.6, height), layout="constrained", squeeze=False, sharey=sharey
        )
        figure.get_layout_engine().set(w_pad=0.1, wspace=0.02)
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, row[0]
        plt.close(figure)


def _frame(axes: Any, panel: Panel) -> None:
    axes.set_xticks(range(len(panel.steps)), [str(step).replace("_", "_\n") for step in panel.steps])
    axes.set_ylim(*panel.limits)
    axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
    axes.grid(axis="y")
    axes.tick_params(length=0)


def _legend(figure: Any, row: Any) -> None:
    found = {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=6 if len(found) <= 6 else 4)


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each series; a strategy has its own in every figure."""
    others = [name for name in dict.fromkeys(names) if name not in _LOOKS]
    return _LOOKS | dict(zip(others, _OTHERS, strict=False))


def _rounded(value: Any) -> Any:
    """Four significant digits: more than a figure shows, and no less the same on another machine."""
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value

"""Plots: lines over a doubling axis, and bars. Each is drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter


def lines(
    steps: Sequence[int], series: Mapping[str, Sequence[float]], *, x: str, y: str, title: str, log_y: bool = False
) -> Figure:
    """One line a series over steps that double."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for (name, values), marker in zip(series.items(), "osD^vPX*" * len(series), strict=False):
        axes.plot(steps, values, marker=marker, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(steps)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    plt.close(figure)
    return figure


def bars(panels: Mapping[str, Mapping[str, float]], *, x: str, title: str) -> Figure:
    """Horizontal bars with their figures, a panel a measurement, each to its own scale."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colours = {name: f"C{place % 10}" for place, name in enumerate(names)}
    heights = [len(panel) for panel in panels.values()]
    figure, rows = plt.subplots(
        len(panels),
        figsize=(8, 0.8 * len(panels) + 0.32 * sum(heights) + 0.6),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    for axes, (heading, panel) in zip(rows[:, 0], panels.items(), strict=True):
        drawn = axes.barh(list(panel), list(panel.values()), color=[colours[name] for name in panel])
        axes.bar_label(
            drawn, fmt=lambda value: f"{value:.0f}" if value >= 100 else f"{value:.1f}", padding=3, fontsize=9
        )
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(heading, fontsize=10, loc="left")
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1, 0].set_xlabel(x)
    figure.suptitle(title)
    plt.close(figure)
    return figure

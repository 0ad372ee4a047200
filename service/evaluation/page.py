"""A report as one HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.evaluation.comparison import Score
from service.evaluation.perturbations import LABELS
from service.evaluation.report import AXES, Axis, DataSet, Report, Row
from service.pages import render


def page(report: Report, command: str | None = None) -> str:
    """Render a report as HTML.

    Args:
        report: of an evaluation.
        command: that fits a pooler, if that is advised.
    """
    sections = [(data, *_plots(data)) for data in report.data]
    return render("evaluation.html", report=report, command=command, sections=sections)


def _plots(data: DataSet) -> tuple[Any, ...]:
    """Return the bars of scores and differences, the label and lines of each perturbation, and the curves."""
    compared = data.compared_best_first
    scores = _bars((row.strategy, row.scores[data.metrics[0]], "") for row in compared)
    differences = _bars(
        (row.strategy, row.difference, row.difference.verdict.replace(" ", "-")) for row in compared if row.difference
    )
    spoiled = [(label, _lines(data.best_first, kind)) for kind, label in LABELS.items()]
    return scores, differences, spoiled, _curves(data)


def _curves(data: DataSet) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return axis, heading and lines of each axis that there are curves along."""
    metric = data.metrics[0]
    by_axis: dict[Axis, list[dict[str, Any]]] = {}
    for curve in data.curves:
        points = [(at, 100 * each.scores[metric].value) for at, each in curve.points]
        by_axis.setdefault(curve.axis, []).append({"label": curve.pooling, "points": points})
    return [(axis, AXES[axis], lines) for axis, lines in by_axis.items()]


def _bars(found: Iterable[tuple[str, Score, str]]) -> list[dict[str, Any]]:
    return [
        {"label": label, "kind": kind} | {end: 100 * getattr(each, end) for end in ("value", "low", "high")}
        for label, each, kind in found
    ]


def _lines(rows: Iterable[Row], kind: str) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        found = row.robustness[kind]
        points = [(0.0, found[0].score + found[0].lost), *((each.level, each.score) for each in found)]
        lines.append({"label": row.strategy, "points": [(level, 100 * score) for level, score in points]})
    return lines

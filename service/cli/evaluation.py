"""Prints the report of an evaluation as tables."""

from __future__ import annotations

from textwrap import indent
from typing import Final

from rich.table import Column, Table
from rich.text import Text

from service.cli.console import out, say
from service.evaluation.comparison import Score
from service.evaluation.perturbations import CUT, FILLER, NOISE, Perturbation
from service.evaluation.report import AXES, Curve, DataSet, Report, Row

_SHOWN: Final = (
    Perturbation(NOISE, 0.2),
    Perturbation(FILLER, 2),
    Perturbation(CUT, 0.5),
)
"""As many as fit a terminal; JSON and the page have every level."""
_BAR: Final = 24
"""Characters of the longest bar."""
_STYLES: Final = {"better": "green", "worse": "red", "within noise": "dim"}


def print_report(report: Report) -> None:
    """Print the tables of each data set, and the advice."""
    declared = f"declares {report.declared}" if report.declared else "declares no pooling"
    say(f"{report.model} {declared}; {report.runtime}. Scores are x 100, in brackets their 95 % intervals.")
    for data in report.data:
        say(f"\n{data.name}: {data.kind}, {data.size} {data.items}, {data.texts} texts\n")
        out.print(_scores(report, data))
        for curve in data.curves:
            say(f"\n{data.metrics[0]} of {curve.pooling} {AXES[curve.axis]}\n")
            out.print(_curve(curve, data.metrics[0]))
        say(f"\n{data.metrics[0]} lost when texts are spoiled, over {data.sample} {data.items}; what vectors hold\n")
        out.print(_details(data))
        speed, seconds = data.speed, data.seconds
        say(
            f"\nAll poolings together took {speed.ratio:.2f} times the encoder's pass alone: {speed.together:.2f} s "
            f"against {speed.alone:.2f} s for {speed.tokens} tokens. "
            f"In all: {', '.join(f'{stage} {took:.1f} s' for stage, took in seconds.items())}."
        )
    say(f"\n{report.advice}\n{indent(report.yaml, '    ')}")


def _scores(report: Report, data: DataSet) -> Table:
    dims = {strategy.name: str(strategy.dim) for strategy in report.strategies}
    table = _table("pooling", "dim", *data.metrics, f"against {data.reference}", "")
    for row in data.compared_best_first:
        cells: list[str | Text] = ["", ""]
        if (difference := row.difference) is not None:
            reach = f"({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
            cells = [
                f"{100 * difference.value:+.2f} {reach}",
                Text(difference.verdict, style=_STYLES[difference.verdict]),
            ]
        scores = (_score(row.scores[metric]) for metric in data.metrics)
        table.add_row(row.strategy, dims.get(row.strategy, ""), *scores, *cells)
    return table


def _curve(curve: Curve, metric: str) -> Table:
    table = _table(curve.axis, metric, "")
    table.columns[-1].justify = "left"
    highest = max(each.scores[metric].value for _, each in curve.points)
    for at, each in curve.points:
        score = each.scores[metric]
        bar = round(_BAR * max(score.value, 0.0) / highest) if highest > 0 else 0
        table.add_row(str(at), _score(score), "▇" * bar)
    return table


def _details(data: DataSet) -> Table:
    table = _table(
        "pooling",
        *(f"{shown.kind} {_level(shown)}" for shown in _SHOWN),
        *("words recovered", "sameness", "moved by padding", "time beside encoder"),
    )
    for row in data.best_first:
        lost = (f"{-100 * _lost(row, shown):+.2f}" for shown in _SHOWN)
        table.add_row(
            row.strategy, *lost, *_information(row), f"{row.padding:.0e}", f"{100 * row.pooling_share:.1f} %"
        )
    return table


def _lost(row: Row, shown: Perturbation) -> float:
    return next(each.lost for each in row.robustness[shown.kind] if each.level == shown.level)


def _level(shown: Perturbation) -> str:
    return str(int(shown.level)) if shown.kind == FILLER else f"{100 * shown.level:.0f} %"


def _information(row: Row) -> tuple[str, str]:
    found = row.information
    return ("", "") if found is None else (f"{100 * found.words_recovered:.1f} %", f"{found.sameness:.2f}")


def _score(score: Score) -> str:
    return f"{100 * score.value:.2f} ({100 * score.low:.2f} to {100 * score.high:.2f})"


def _table(first: str, *others: str) -> Table:
    numbers = (Column(header, justify="right") for header in others)
    return Table(Column(first, overflow="fold"), *numbers, box=None, pad_edge=False)

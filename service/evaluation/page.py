"""A report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from service.evaluation import perturbations, plots
from service.evaluation.comparison import Difference
from service.evaluation.report import DataSet, Report, Row, Score, Scored

_STYLE: Final = """
:root { color-scheme: light dark; --grid: #8884; --quiet: #777; --better: #1a7f37; --worse: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1160px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small, .quiet { color: var(--quiet); }
.advice { border-left: 4px solid var(--better); padding: .3em 1em; font-size: 1.1em; }
pre { background: var(--grid); padding: .5em 1em; overflow-x: auto; }
.better { color: var(--better); } .worse { color: var(--worse); }
svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.grid { stroke: var(--grid); } .zero { stroke: currentColor; }
.bar line { stroke: currentColor; stroke-width: 2; } .bar circle { fill: currentColor; }
.plots { display: flex; flex-wrap: wrap; gap: 1em; }
.legend span { display: inline-block; margin-right: 1.4em; }
"""


def page(report: Report, command: str | None = None) -> str:
    """The report as HTML.

    Args:
        report: what was found.
        command: one that fits a pooler, where that is advised.

    """
    declared = f"declares {report.declared}" if report.declared else "declares no pooling"
    body = [
        f"<h1>Poolings of {escape(report.model)}</h1>",
        f"<p>The checkpoint {escape(declared)}. Token states by {escape(report.runtime)}.</p>",
        f'<p class="advice">{escape(report.advice)}</p>',
        f"<pre>{escape(report.yaml)}</pre>",
    ]
    if command is not None:
        body.append(f"<p>To fit one:</p><pre>{escape(command)}</pre>")
    for data in report.data:
        body += _data_set(data)
    if report.notes:
        body.append(_list("Notes", report.notes))
    style = f"<style>{_STYLE}</style>"
    head = f'<meta charset="utf-8"><title>Poolings of {escape(report.model)}</title>{style}'
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{chr(10).join(body)}\n</body>\n</html>\n'


def _data_set(data: DataSet) -> Iterator[str]:
    metric = data.metrics[0]
    rows, compared = data.best_first, data.compared_best_first
    yield f"<h2>{escape(data.name)}</h2>"
    yield f"<p>{escape(data.kind)}: {data.size} {data.items}, {data.texts} texts. Scores are x 100.</p>"
    yield _scores(data, compared)
    yield "<div class='plots'>"
    yield plots.intervals([_bar(row, row.scores[metric]) for row in compared], f"{metric} x 100, 95 % interval")
    if len(compared) > 1:
        differences = [_bar(row, row.difference, _kind(row.difference)) for row in compared if row.difference]
        yield plots.intervals(differences, f"difference to {data.reference}, {metric} x 100", zero=True)
    yield "</div>"
    yield (
        "<p class='quiet'>Both by bootstrap over the same items for every pooling. The intervals of the differences "
        "are wide enough for all of them to hold at once with 95 % certainty; one that reaches 0 is noise.</p>"
    )
    yield f"<h3>When texts are spoiled</h3><p>{metric} x 100 over {data.sample} {data.items}.</p>"
    yield plots.legend([row.strategy for row in rows])
    yield "<div class='plots'>"
    for kind, label in perturbations.LABELS.items():
        yield plots.lines([_line(row, kind) for row in rows], label, metric)
    yield "</div>"
    yield "<h3>What is in a vector, and what it costs</h3>"
    yield _details(rows)
    speed = data.speed
    yield (
        f"<p>All poolings together took {speed.ratio:.2f} times as long as the encoder's pass alone "
        f"({speed.together:.2f} s against {speed.alone:.2f} s for {speed.texts} texts of {speed.tokens} tokens).</p>"
    )


def _scores(data: DataSet, rows: Sequence[Scored]) -> str:
    head = ["pooling", *data.metrics, f"against {data.reference}", ""]
    body = []
    for row in rows:
        cells = [escape(row.strategy), *(_score(row.scores[metric]) for metric in data.metrics)]
        if row.difference is None:
            cells += ["", ""]
        else:
            difference = row.difference
            reach = f"<small>({100 * difference.low:+.2f} to {100 * difference.high:+.2f})</small>"
            verdict = f'<span class="{_kind(difference)}">{difference.verdict}</span>'
            cells += [f"{100 * difference.value:+.2f} {reach}", verdict]
        body.append(cells)
    return _table(head, body)


def _details(rows: Sequence[Row]) -> str:
    head = ["pooling", "words recovered", "sameness", "moved by padding", "time beside the encoder"]
    body = []
    for row in rows:
        found = row.information
        known = ["", ""]
        if found is not None:
            words = f"{100 * found.words_recovered:.1f} % <small>(chance {100 * found.chance:.1f} %)</small>"
            known = [words, f"{found.sameness:.2f}"]
        body.append([escape(row.strategy), *known, f"{row.padding:.1e}", f"{100 * row.pooling_share:.1f} %"])
    about = (
        "<p class='quiet'>Words recovered: of the words in a text, how many a linear map reads off its vector. "
        "Sameness: the mean cosine of random texts; near 1 all look alike. Moved by padding: the largest change of "
        "a number in a unit vector when its text is padded; rounding and no more.</p>"
    )
    return _table(head, body) + about


def _score(score: Score) -> str:
    return f"{100 * score.value:.2f} <small>({100 * score.low:.2f} to {100 * score.high:.2f})</small>"


def _bar(row: Scored, found: Score | Difference, kind: str = "") -> plots.Bar:
    return plots.Bar(row.strategy, 100 * found.value, 100 * found.low, 100 * found.high, kind)


def _kind(difference: Difference) -> str:
    return difference.verdict.replace(" ", "-")


def _line(row: Row, kind: str) -> plots.Line:
    found = row.robustness[kind]
    whole = found[0].score + found[0].lost
    return plots.Line(row.strategy, [(0.0, 100 * whole), *((each.level, 100 * each.score) for each in found)])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<tr>{header}</tr>\n{body}\n</table>"


def _list(title: str, items: Sequence[str]) -> str:
    return f"<h2>{title}</h2><ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"

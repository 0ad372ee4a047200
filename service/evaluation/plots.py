"""Two kinds of plot as SVG, to stand inside a page: intervals in rows, and lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#6b6b6b")
"""Told apart by the colour-blind too (after Okabe & Ito); further lines are dashed."""

_WIDTH, _LABELS, _ROW, _EDGE = 560, 170, 26, 14
_LINES_WIDTH, _LINES_HEIGHT = 360, 240
_TICK: Final = 4


@dataclass(frozen=True)
class Bar:
    """A value and its interval; `kind` is its CSS class."""

    label: str
    value: float
    low: float
    high: float
    kind: str = ""


def intervals(bars: Sequence[Bar], label: str, *, zero: bool = False) -> str:
    """One row a bar: a dot at the value, a line from low to high.

    Args:
        bars: from top to bottom.
        label: of the axis.
        zero: whether the axis must show 0, with a line through all rows.

    """
    lowest, highest = min(bar.low for bar in bars), max(bar.high for bar in bars)
    if zero:
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    axis = _Axis(lowest, highest, _LABELS, _WIDTH - _EDGE)
    bottom = _ROW * len(bars) + _EDGE
    shapes = []
    for tick in axis.ticks:
        x = axis(tick)
        shapes.append(_line(x, _EDGE, x, bottom, "zero" if zero and tick == 0 else "grid"))
        shapes.append(_text(x, bottom + 16, _number(tick), "middle"))
    shapes.append(_text((_LABELS + _WIDTH) / 2, bottom + 34, label, "middle"))
    for place, bar in enumerate(bars):
        y = _EDGE + _ROW * (place + 0.5)
        about = f"{bar.label}: {bar.value:.2f} ({bar.low:.2f} to {bar.high:.2f})"
        shapes.append(_text(_LABELS - 10, y + 4, _shortened(bar.label), "end"))
        shapes.append(
            f'<g class="bar {bar.kind}"><title>{escape(about)}</title>'
            f"{_line(axis(bar.low), y, axis(bar.high), y)}"
            f'<circle cx="{axis(bar.value):.1f}" cy="{y:.1f}" r="4.5"/></g>'
        )
    return _svg(_WIDTH, bottom + 42, shapes, label)


@dataclass(frozen=True)
class Line:
    """Points (x, y) of one thing."""

    label: str
    points: Sequence[tuple[float, float]]


def lines(found: Sequence[Line], x_label: str, y_label: str) -> str:
    """Lines over one another, coloured as in `legend`."""
    points = [point for line in found for point in line.points]
    left, bottom = 52, _LINES_HEIGHT - 44
    across = _Axis(min(x for x, _ in points), max(x for x, _ in points), left, _LINES_WIDTH - _EDGE, margin=0.0)
    up = _Axis(min(y for _, y in points), max(y for _, y in points), bottom, _EDGE)
    shapes = []
    for tick in up.ticks:
        shapes.append(_line(left, up(tick), _LINES_WIDTH - _EDGE, up(tick), "grid"))
        shapes.append(_text(left - 8, up(tick) + 4, _number(tick), "end"))
    shapes += [_text(across(x), bottom + 16, _number(x), "middle") for x in sorted({x for x, _ in points})]
    shapes.append(_text((left + _LINES_WIDTH) / 2, bottom + 36, x_label, "middle"))
    for line, style in zip(found, _styles(), strict=False):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        shapes.append(f'<polyline points="{path}" {style}><title>{escape(line.label)}</title></polyline>')
    return _svg(_LINES_WIDTH, _LINES_HEIGHT, shapes, f"{y_label} over {x_label}")


def legend(labels: Sequence[str]) -> str:
    """Which line is whose, for any number of plots with the same lines in the same order."""
    entries = []
    for label, style in zip(labels, _styles(), strict=False):
        sample = f'<svg width="28" height="10" aria-hidden="true"><polyline points="1,5 27,5" {style}/></svg>'
        entries.append(f"<span>{sample} {escape(label)}</span>")
    return f'<p class="legend">{"".join(entries)}</p>'


class _Axis:
    """From values to places in a drawing, with some air on both sides and ticks at round numbers."""

    def __init__(self, low: float, high: float, start: float, end: float, *, margin: float = 0.04) -> None:
        span = (high - low) or abs(high) or 1.0
        self._low, self._high = low - margin * span, low + (1 + margin) * span
        self._start, self._end = start, end
        step = 10 ** math.floor(math.log10(span / _TICK))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICK + 1)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        self.ticks = [round(place * step, 10) for place in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)


def _styles() -> Iterator[str]:
    dashes = ("none", "6 3", "2 3")
    for dash in dashes * 100:
        for colour in COLOURS:
            yield f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'


def _svg(width: float, height: float, shapes: Sequence[str], about: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(about)}">{"".join(shapes)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.10g}"


def _shortened(label: str, most: int = 22) -> str:
    return label if len(label) <= most else f"…{label[1 - most :]}"

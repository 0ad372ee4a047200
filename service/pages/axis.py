"""The axis of a plot."""

from __future__ import annotations

import math
from typing import Final

_TICKS: Final = 4
"""About how many an axis has."""


class Axis:
    """Maps values to coordinates, with a margin at both ends and ticks at round numbers.

    Args:
        low: the lowest value.
        high: the highest value.
        start: coordinate of the low end.
        end: coordinate of the high end.
        margin: at each end, as a share of the values' range.
    """

    def __init__(self, low: float, high: float, start: float, end: float, margin: float = 0.04) -> None:
        span = (high - low) or abs(high) or 1.0
        self._low, self._high = low - margin * span, low + (1 + margin) * span
        self._start, self._end = start, end
        step = 10 ** math.floor(math.log10(span / _TICKS))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICKS + 1)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        self.ticks = [round(number * step, 10) for number in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)

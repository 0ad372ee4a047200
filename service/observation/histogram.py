"""Sizes and durations counted by buckets, cheaply enough for every request and every pass."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Final

DURATIONS: Final = tuple(1e-5 * 1.5**power for power in range(1, 36))
"""Bounds in seconds from 15 µs to 15 s, those of text-embeddings-inference."""
POWERS_OF_TWO: Final = tuple(float(2**power) for power in range(21))
"""Bounds of numbers of texts or tokens."""


class Histogram:
    """Counts values by the bucket that they fall into; a bound belongs to the bucket that it ends.

    Whoever adds values from several threads does so under a lock. Reading needs none.

    Args:
        bounds: the upper bounds of the buckets, ascending; beyond the last is one more.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """Of all values."""

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @classmethod
    def together(cls, bounds: Sequence[float], some: Iterable[Histogram]) -> Histogram:
        """Return one of the values of several, which have these bounds."""
        found = cls(bounds)
        for each in some:
            found._counts = [sum(counts) for counts in zip(found._counts, each._counts, strict=True)]
            found.sum += each.sum
        return found

    def __len__(self) -> int:
        """Return how many values were counted."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, infinity at last, and how many values do not exceed it."""
        return zip((*self._bounds, inf), accumulate(list(self._counts)), strict=True)

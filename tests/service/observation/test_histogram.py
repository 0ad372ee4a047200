"""Values counted by buckets."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from service.observation import Histogram

BOUNDS = (1.0, 2.0, 4.0)
VALUES = st.lists(st.tuples(st.sampled_from([0, 0.5, 1, 1.5, 2, 3, 4, 5, 1e9]), st.integers(0, 5)))


def counted(values: list[tuple[float, int]]) -> Histogram:
    histogram = Histogram(BOUNDS)
    for value, times in values:
        histogram.add(value, times)
    return histogram


@given(VALUES)
def test_a_bucket_holds_what_does_not_exceed_its_bound(values: list[tuple[float, int]]) -> None:
    histogram = counted(values)
    for bound, number in histogram.cumulative():
        assert number == sum(times for value, times in values if value <= bound)
    assert [bound for bound, _ in histogram.cumulative()] == [*BOUNDS, math.inf]
    assert len(histogram) == sum(times for _, times in values)
    assert histogram.sum == sum(value * times for value, times in values)


@given(VALUES, VALUES)
def test_several_together_are_one_of_all_values(some: list[tuple[float, int]], more: list[tuple[float, int]]) -> None:
    together = Histogram.together(BOUNDS, [counted(some), counted(more)])
    assert [*together.cumulative()] == [*counted(some + more).cumulative()]
    assert together.sum == counted(some).sum + counted(more).sum

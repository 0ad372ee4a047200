"""Values on data drawn anew, and what may be said of many differences at once."""

import numpy as np
import pytest

from pooling.tasks.bootstrap import interval, resample, simultaneous


def test_two_statistics_are_resampled_on_the_same_draws():
    values = np.random.default_rng(0).normal(size=(50, 2))
    both = resample(lambda items: values[items].mean(axis=0), 50, samples=30)
    assert both.shape == (30, 2)
    one = resample(lambda items: values[items, 1].mean(), 50, samples=30)
    assert both[:, 1] == pytest.approx(one)
    assert len(np.unique(both)) == 60


def test_the_interval_is_the_middle_95_percent():
    values = np.stack([np.arange(1001.0), np.full(1001, 7.0)], axis=1)
    low, high = interval(values)
    assert low == pytest.approx([25.0, 7.0])
    assert high == pytest.approx([975.0, 7.0])


def test_one_difference_has_its_normal_interval_and_many_have_wider_ones():
    draws = np.random.default_rng(0).normal(size=(20_000, 10))
    low, high = simultaneous(np.zeros(1), draws[:, :1])
    assert (-low[0], high[0]) == (pytest.approx(1.96, abs=0.05), pytest.approx(1.96, abs=0.05))
    _, high = simultaneous(np.zeros(10), draws)
    assert high == pytest.approx(np.full(10, 2.80), abs=0.06)  # two-sided, 0.95 ** (1 / 10) each


def test_what_never_varies_is_known_exactly():
    draws = np.random.default_rng(0).normal(size=(1000, 2)) * [1.0, 0.0]
    low, high = simultaneous(np.array([0.5, 0.0]), draws)
    assert low[1] == high[1] == 0.0
    assert low[0] < 0.5 < high[0]


@pytest.mark.slow
def test_all_intervals_together_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = rng.normal(size=(80, 7))
        found = resample(lambda items, values=values: values[items].mean(axis=0), 80, samples=200)
        low, high = simultaneous(values.mean(axis=0), found)
        held += bool(((low <= 0) & (high >= 0)).all())
    assert 0.88 <= held / 200 <= 0.99

"""The interval of one difference."""

import numpy as np
import pytest

from pooling.tasks import paired_bootstrap


def test_of_a_mean_it_is_nearly_the_normal_one():
    values = np.random.default_rng(0).normal(1.0, 2.0, size=400)
    low, high = paired_bootstrap(lambda items: values[items].mean(), 400, samples=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_it_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        values = rng.normal(0.5, 1.0, size=60)
        low, high = paired_bootstrap(lambda items, values=values: values[items].mean(), 60, samples=200)
        held += low <= 0.5 <= high
    assert 0.9 <= held / 200 <= 0.98


def test_draws_come_with_repetition_and_from_the_seed():
    drawn = []

    def statistic(items):
        drawn.append(items)
        return float(items.mean())

    first = paired_bootstrap(statistic, 50, samples=20, seed=3)
    assert all(len(items) == 50 and len(set(items.tolist())) < 50 for items in drawn)
    assert first == paired_bootstrap(statistic, 50, samples=20, seed=3) != paired_bootstrap(statistic, 50, samples=20)

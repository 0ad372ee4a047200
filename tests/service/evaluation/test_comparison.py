"""Which differences are more than noise."""

import numpy as np
import pytest

from pooling.tasks import Retrieval
from service.evaluation.comparison import Difference, compare

QUERIES = 60


@pytest.fixture
def search():
    ids = [str(place) for place in range(QUERIES)]
    return Retrieval({each: each for each in ids}, {each: each for each in ids}, {each: {each: 1} for each in ids})


def outcomes(search, *levels, spread=0.1, seed=0):
    """Of strategies with these mean scores: what is hard is hard for all, and each has noise of its own."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=(1, search.size, 4))
    own = rng.normal(size=(len(levels), search.size, 4)) * spread
    return np.array(levels)[:, None, None] + hard + own


def test_differences_are_paired(search):
    found = compare(search, ["a", "b", "c"], outcomes(search, 0.5, 0.4, 0.495), samples=300)
    against = found.against("a")
    assert [against[name].verdict for name in "abc"] == ["within noise", "worse", "within noise"]
    assert against["a"] == Difference(0.0, 0.0, 0.0)
    assert found.against("b")["a"].verdict == "better"
    assert against["b"].value == pytest.approx(found.score("b") - found.score("a"))
    assert against["b"].low < against["b"].value < against["b"].high < 0
    # Unpaired, the intervals of both scores overlap: hard queries spread them far wider than a and b differ.
    low, high = found.intervals()
    assert low[0, 0] < found.score("b") and high[1, 0] > found.score("a")


def test_the_best_of_many_equal_ones_is_seldom_called_better(search):
    names = [str(place) for place in range(8)]
    wrong = 0
    for seed in range(40):
        found = compare(search, names, outcomes(search, *[0.5] * 8, seed=seed), samples=200)
        wrong += any(each.verdict != "within noise" for each in found.against("0").values())
    assert wrong <= 6


def test_equal_ones_are_equal(search):
    same = np.repeat(outcomes(search, 0.5), 2, axis=0)
    assert compare(search, ["a", "b"], same, samples=50).against("a")["b"] == Difference(0.0, 0.0, 0.0)

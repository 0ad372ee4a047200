"""Several rankings as one, by reciprocal ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.collections.fusion import Part, fuse

items = st.text("abcdefgh", min_size=1, max_size=1)
rankings = st.lists(items, unique=True).map(lambda own: [(item, -float(place)) for place, item in enumerate(own)])
several = st.dictionaries(st.sampled_from(["dense", "keyword", "third"]), rankings)
weights = st.floats(0.01, 100)


def test_by_hand():
    fused = fuse({"dense": [("a", 0.9), ("b", 0.8)], "keyword": [("b", 7.0), ("c", 3.0)]})
    assert [(one.item, one.score) for one in fused] == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)]
    assert fused[0].parts == {"dense": Part(2, 0.8), "keyword": Part(1, 7.0)}
    assert fused[1].parts == {"dense": Part(1, 0.9)}


def test_weights_and_what_counts_for_nothing():
    both = {"dense": [("a", 0.9)], "keyword": [("b", 7.0), ("a", 6.0)]}
    assert [one.item for one in fuse(both)] == ["a", "b"]
    weighted = fuse(both, {"dense": 0.0, "keyword": 2.0})
    assert [(one.item, one.score) for one in weighted] == [("b", 2 / 61), ("a", 2 / 62)]
    assert [one.item for one in fuse(both, {"keyword": 0.0})] == ["a"]


def test_equal_sums_keep_the_order_of_the_rankings():
    fused = fuse({"dense": [("a", 1.0), ("b", 0.5)], "keyword": [("c", 2.0), ("d", 1.0)]})
    assert [one.item for one in fused] == ["a", "c", "b", "d"]


@given(several)
def test_every_item_once_the_best_first_with_its_parts(given_rankings):
    fused = fuse(given_rankings)
    assert sorted(one.item for one in fused) == sorted({item for own in given_rankings.values() for item, _ in own})
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)
    for one in fused:
        assert one.parts == {
            name: Part(place + 1, score)
            for name, own in given_rankings.items()
            for place, (item, score) in enumerate(own)
            if item == one.item
        }
        assert one.score == pytest.approx(sum(1 / (60 + part.rank) for part in one.parts.values()))


@given(rankings, weights)
def test_one_ranking_keeps_its_order_whatever_its_weight(own, weight):
    assert [(one.item, one.parts["dense"].score) for one in fuse({"dense": own}, {"dense": weight})] == own


@given(several, weights)
def test_only_the_ratio_of_weights_matters(given_rankings, factor):
    fused = {one.item: one.score for one in fuse(given_rankings)}
    scaled = fuse(given_rankings, dict.fromkeys(given_rankings, factor))
    assert {one.item: one.score for one in scaled} == pytest.approx({i: factor * s for i, s in fused.items()})


@given(rankings, rankings, items)
def test_a_better_rank_is_never_worse(first, second, item):
    """An item that moves to the top of one ranking does not fall in the fused one."""
    before = [one.item for one in fuse({"dense": first, "keyword": second})]
    moved = [(item, 1.0), *((other, score) for other, score in first if other != item)]
    after = [one.item for one in fuse({"dense": moved, "keyword": second})]
    if item in before:
        assert after.index(item) <= before.index(item)

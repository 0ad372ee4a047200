"""Hits that differ from each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.collections.diversity import diversified, rescaled
from service.index import build
from service.similarity import SIMILARITIES

shares = st.floats(0, 1)


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 12))
    vectors = draw(arrays(np.float32, (count, 3), elements=st.integers(-9, 9).map(float)))
    vectors[~vectors.any(axis=1)] = 1
    relevance = np.sort(draw(arrays(np.float64, count, elements=st.floats(-1, 1))))[::-1]
    return relevance, SIMILARITIES["cosine"].of_each_pair(vectors)


def test_by_hand():
    """The second is a copy of the first, so the third is worth more: 0.5 * 0.6 - 0.5 * 0 over 0.5 * 0.9 - 0.5 * 1."""
    relevance = np.array([0.95, 0.9, 0.6])
    similarities = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], float)
    assert diversified(relevance, similarities, 0.5, 3) == [0, 2, 1]
    assert diversified(relevance, similarities, 0.1, 3) == [0, 1, 2]


@given(candidates(), shares, st.integers(1, 15))
def test_each_is_the_best_that_is_left(given_candidates, diversity, k):
    relevance, similarities = given_candidates
    chosen = diversified(relevance, similarities, diversity, k)
    assert len(chosen) == len(set(chosen)) == min(k, len(relevance))
    for step in range(1, len(chosen)):
        worth = (1 - diversity) * relevance - diversity * similarities[:, chosen[:step]].max(axis=1)
        left = [place for place in range(len(relevance)) if place not in chosen[:step]]
        assert worth[chosen[step]] == worth[left].max()


@given(candidates())
def test_none_keeps_the_order_and_the_first_is_the_most_relevant(given_candidates):
    relevance, similarities = given_candidates
    assert diversified(relevance, similarities, 0, 20) == list(range(len(relevance)))
    assert diversified(relevance, similarities, 1, 20)[:1] == [0][: len(relevance)]


@given(candidates(), st.floats(0.001, 1000))
def test_rescaled_scores_keep_their_order_and_their_scale_does_not_matter(given_candidates, factor):
    scores, similarities = given_candidates
    assume(not len(scores) or not 0 < np.ptp(scores) < 1e-6)  # in floats, three and less than that is three
    moved = rescaled(scores, similarities)
    assert np.all(np.diff(moved) <= 1e-9)
    np.testing.assert_allclose(rescaled(factor * scores + 3, similarities), moved, atol=1e-5)
    if len(scores) > 1:
        others = similarities[~np.eye(len(scores), dtype=bool)]
        assert moved.max() <= others.max() + 1e-9 and moved.min() >= others.min() - 1e-9


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_of_each_pair_are_the_scores_of_a_search(name):
    similarity = SIMILARITIES[name]
    vectors = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
    index = build("flat", 5, similarity)
    index.add(np.arange(7), vectors)
    scores, keys, _ = index.search(vectors, 7)
    pairs = similarity.of_each_pair(vectors)
    np.testing.assert_allclose(np.take_along_axis(pairs, keys, axis=1), scores, atol=1e-5)

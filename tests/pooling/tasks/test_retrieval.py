"""Exact search, and rankings scored by hand."""

from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from pooling.tasks.retrieval import METRICS, measure, search, search_spans


def test_scores_by_hand():
    assert METRICS == ("ndcg@10", "recall@10", "mrr@10", "map@100")
    [found] = measure([["a", "b", "c"]], [{"b": 3, "c": 1, "z": 2}])
    gain, ideal = 3 / log2(3) + 1 / log2(4), 3 + 2 / log2(3) + 1 / log2(4)
    assert found == pytest.approx([gain / ideal, 2 / 3, 1 / 2, (1 / 2 + 2 / 3) / 3])


@settings(deadline=None)
@given(st.permutations(range(12)), st.dictionaries(st.integers(0, 11), st.integers(1, 5), min_size=1))
def test_ndcg_is_that_of_scikit_learn(ranking, grades):
    scores = [[-ranking.index(document) for document in range(12)]]
    wanted = ndcg_score([[grades.get(document, 0) for document in range(12)]], scores, k=10, ignore_ties=True)
    [found] = measure([[str(document) for document in ranking]], [{str(key): grade for key, grade in grades.items()}])
    assert found[0] == pytest.approx(wanted)


def test_what_is_found_below_the_tenth_place_counts_for_map_alone():
    ranking = [f"d{place}" for place in range(1, 101)]
    tenth, eleventh, none = measure([ranking] * 3, [{"d10": 1}, {"d11": 1}, {"other": 1}])
    assert tenth == pytest.approx([1 / log2(11), 1.0, 0.1, 0.1])
    assert eleventh == pytest.approx([0.0, 0.0, 0.0, 1 / 11])
    assert none.tolist() == [0.0] * 4


@pytest.mark.parametrize("count", [7, 9000])
def test_search_is_that_of_all_cosines_and_equal_ones_keep_their_order(count):
    rng = np.random.default_rng(0)
    documents = rng.integers(-2, 3, size=(count, 3)).astype(np.float32)  # many alike, some zero
    documents[1] = documents[0]
    queries = rng.normal(size=(300, 3)).astype(np.float32)
    found = search(queries, documents, k=20)
    assert found.shape == (300, min(20, count))

    def unit(vectors):
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    scores = unit(queries) @ unit(documents).T
    wanted = np.sort(scores, axis=1)[:, ::-1][:, :20]
    assert np.take_along_axis(scores, found, axis=1) == pytest.approx(wanted, abs=1e-6)
    same = np.array_equal
    for row in found:
        for left, right in pairwise(row):
            assert left < right or not same(documents[left], documents[right])


@pytest.mark.parametrize("counts", [[2, 1, 3], [1] * 9000, [5000, 1, 9000, 1, 2, 8192, 8192], [9000]])
def test_a_document_is_found_by_its_best_span(counts):
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *counts])
    spans = rng.integers(-2, 3, size=(starts[-1], 3)).astype(np.float32)
    spans[0] = spans[-1]
    queries = rng.normal(size=(300, 3)).astype(np.float32)
    found = search_spans(queries, spans, starts, k=20)
    cosines = queries @ (spans / np.maximum(np.linalg.norm(spans, axis=1, keepdims=True), 1e-12)).T
    best = np.stack([cosines[:, a:b].max(axis=1) for a, b in pairwise(starts)], axis=1)
    wanted = np.sort(best, axis=1)[:, ::-1][:, :20]
    assert np.take_along_axis(best, found, axis=1) == pytest.approx(wanted, abs=1e-5)
    assert all(len(set(row)) == len(row) == min(20, len(counts)) for row in found.tolist())
    if set(counts) == {1}:
        assert np.array_equal(found, search(queries, spans, k=20))

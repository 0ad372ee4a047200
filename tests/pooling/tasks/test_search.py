"""Exact search: all cosines, ties in order, documents by their best span."""

from itertools import pairwise

import numpy as np
import pytest

from pooling.tasks.comparison import COMPARISONS
from pooling.tasks.search import search, search_spans


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


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("count", [7, 9000])
def test_by_any_comparison(name, count):
    rng = np.random.default_rng(2)
    documents, queries = (rng.normal(size=(n, 5)).astype(np.float32) * 3 for n in (count, 30))
    wide = documents.astype(np.float64)
    scores = -np.linalg.norm(wide[None] - queries[:, None], axis=2) if name == "euclidean" else queries @ wide.T
    if name == "cosine":
        scores = scores / np.linalg.norm(wide, axis=1)
    wanted = np.sort(scores, axis=1)[:, ::-1][:, :20]
    found = search(queries, documents, 20, COMPARISONS[name])
    assert np.take_along_axis(scores, found, axis=1) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    starts = np.arange(0, count + 1, 2 if count % 2 == 0 else 7)
    best = np.maximum.reduceat(scores[:, : starts[-1]], starts[:-1], axis=1)
    by_spans = search_spans(queries, documents[: starts[-1]], starts, 20, COMPARISONS[name])
    wanted = np.sort(best, axis=1)[:, ::-1][:, :20]
    assert np.take_along_axis(best, by_spans, axis=1) == pytest.approx(wanted, rel=1e-5, abs=1e-5)

"""How long texts are made of abstracts, and to which of them a span belongs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.chunking import by_pooling, joined, owner, score


def test_abstracts_are_joined_and_found_again():
    documents = {"a": "one", "c": "three", "d": "four", "e": "five"}
    first, second = joined(documents, size=3)
    assert (first.text, second.text) == ("one\n\nthree\n\nfour", "five")
    for long in (first, second):
        for name, (start, end) in long.abstracts.items():
            assert long.text[start:end] == documents[name]
    assert [owner(span, first.abstracts) for span in ((0, 3), (0, 6), (2, 8), (8, 13), (12, 16))] == list("aaccd")


def test_an_abstract_ranks_by_the_best_of_its_spans():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    queries = np.array([[1, 0], [0, 1]], np.float32)
    ndcg, recall, mrr = score(["a", "a", "b", "c"], vectors, queries, [{"c": 1}, {"b": 1, "a": 1}]).T
    assert mrr.tolist() == [0.5, 1.0]
    assert recall.tolist() == [1.0, 1.0]
    assert ndcg == pytest.approx([1 / np.log2(3), 1.0])


def test_each_pooling_has_its_unit_vectors():
    vectors = np.array([[3, 4, 0, 2, 5, 12]], np.float32)
    first, second, _ = by_pooling(vectors)
    assert first[0].tolist() == pytest.approx([0.6, 0.8])
    assert second.tolist() == [[0, 1]]

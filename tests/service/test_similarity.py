"""Similarities score as sentence-transformers does, and refuse what they cannot compare."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sentence_transformers import SimilarityFunction

from pooling.tasks.comparison import COMPARISONS
from service.api.schemas.collections import SimilarityName
from service.errors import InvalidVector
from service.index import build
from service.similarity import SIMILARITIES


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scores_are_those_of_sentence_transformers(name):
    rng = np.random.default_rng(2)
    queries, vectors = (rng.normal(size=(count, 12)).astype(np.float32) * 3 for count in (5, 20))
    index = build("flat", 12, SIMILARITIES[name])
    index.add(np.arange(20), vectors)
    scores, keys, _ = index.search(queries, 20)
    theirs = SimilarityFunction.to_similarity_fn(name)(queries, vectors).numpy()
    assert np.array_equal(keys, np.argsort(-theirs, axis=1, kind="stable"))
    np.testing.assert_allclose(scores, np.take_along_axis(theirs, keys, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "vectors", "words"),
    [
        ("cosine", [[1, 0], [0, 0]], "vector 1 is all zeros"),
        ("dot", [[0, 0], [0, 2e15]], "vector 1 holds a number beyond 1e[+]15"),
        ("euclidean", [[-2e15, 0]], "vector 0 holds a number beyond 1e[+]15"),
    ],
)
def test_vectors_that_cannot_be_compared(name, vectors, words):
    with pytest.raises(InvalidVector, match=words):
        SIMILARITIES[name].check(np.array(vectors, np.float32))


@pytest.mark.parametrize("name", ["dot", "euclidean"])
def test_what_passes_the_check_has_finite_scores(name):
    dim = 65_536
    ends = np.full((2, dim), 1e15, np.float32) * np.array([[1], [-1]], np.float32)
    zero = np.zeros((1, dim), np.float32)
    similarity = SIMILARITIES[name]
    index = build("flat", dim, similarity)
    for number, row in enumerate(np.concatenate([ends, zero])):
        similarity.check(row[None])
        index.add(np.array([number]), row[None])
    scores, keys, _ = index.search(ends[:1], 3)
    assert np.isfinite(scores).all() and keys.tolist() == [[0, 2, 1]]


def test_every_part_knows_the_same_names():
    assert [*SIMILARITIES] == [*COMPARISONS] == [*get_args(SimilarityName)]
    assert all(each.name == name for name, each in SIMILARITIES.items())

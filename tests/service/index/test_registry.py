"""A kind of index is one class, registered by its name."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from service.errors import Conflict, InvalidIndex
from service.index import KINDS, IndexState, VectorIndex, build
from service.index.flat import ExactIndex
from service.similarity import COSINE
from service.store import Document
from tests.support.definitions import definition


class Farthest(VectorIndex):
    """Finds the vector that is the least similar."""

    kind = "farthest"
    summary = "the least similar first"

    def __init__(self, dim, similarity):
        self._keys, self._vectors = np.empty(0, np.int64), np.empty((0, dim), np.float32)

    def __len__(self):
        return len(self._keys)

    @property
    def count(self):
        return len(set(self._keys.tolist()))

    @property
    def state(self):
        return IndexState("farthest")

    @property
    def memory_bytes(self):
        return self._keys.nbytes + self._vectors.nbytes

    def add(self, keys, vectors):
        self._keys, self._vectors = np.append(self._keys, keys), np.vstack([self._vectors, vectors])

    def remove(self, keys):
        kept = ~np.isin(self._keys, keys)
        self._keys, self._vectors = self._keys[kept], self._vectors[kept]

    def view(self):
        return copy.copy(self)

    def search(self, vectors, k, allowed=None, *, distinct=False, exact=False):
        scores = vectors @ self._vectors.T
        order = np.argsort(scores, axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), self._keys[order], np.zeros_like(order)


@pytest.fixture
def farthest(monkeypatch):
    monkeypatch.setitem(KINDS, Farthest.kind, Farthest)


def test_a_registered_kind_is_chosen_searched_changed_and_loaded_by_name(farthest, collections, folder, fill):
    collection, _ = collections.create("notes", definition(), 2, "farthest")
    fill(collection, {"near": ([1, 0], {}), "middle": ([0.5, 1], {}), "far": ([0, 1], {}), "gone": ([-1, 0], {})})
    collection.delete("gone")
    query = np.array([[1, 0]], np.float32)
    assert [hit.id for hit in collection.search(query, 2)[0]] == ["far", "middle"]
    assert (collection.index_kind, collection.count()) == ("farthest", 3)
    collection.upsert([Document("far", "", {})], np.array([[-1, 1]], np.float32))
    collections.close()
    reopened = type(collections)(folder)
    assert [hit.id for hit in reopened.get("notes").search(query, 3)[0]] == ["far", "middle", "near"]
    with pytest.raises(Conflict, match='index: stored "farthest", asked "flat"'):
        reopened.create("notes", definition(), 2, "flat")
    assert reopened.create("notes", definition(), 2) == (reopened.get("notes"), False)
    reopened.close()


def test_an_unknown_kind_names_the_registered_ones(farthest):
    with pytest.raises(InvalidIndex, match=r"unknown index kind 'hnws'; known: auto, farthest, flat, hnsw, ivf\."):
        build("hnws", 3, COSINE)
    assert isinstance(build("flat", 3, COSINE), ExactIndex)

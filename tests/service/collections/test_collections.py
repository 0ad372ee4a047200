"""What collections do, one promise a test."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.errors import (
    Conflict,
)
from service.index import KINDS
from service.index.flat import ExactIndex
from service.store import Chunked, Document
from service.store import transaction as transaction_module
from tests.support.definitions import definition

X, Y, DIAGONAL = [1, 0], [0, 1], [1, 1]


def ids(hits):
    return [hit.id for hit in hits]


def array(*rows):
    return np.array(rows, np.float32)


@pytest.fixture
def collection(collections):
    return collections.create("notes", definition(), 2)[0]


# Collections by name


@pytest.mark.parametrize(
    ("asked", "dim", "index"),
    [
        (definition("other"), 2, "flat"),
        (definition(size=3), 2, "flat"),
        (definition(), 3, "flat"),
        (definition(), 2, "twin"),
    ],
)
def test_another_definition_is_a_conflict_that_shows_both(collections, monkeypatch, asked, dim, index):
    monkeypatch.setitem(KINDS, "twin", ExactIndex)
    collection = collections.create("notes", definition(), 2, "flat")[0]
    with pytest.raises(Conflict) as raised:
        collections.create("notes", asked, dim, index)
    stored, same = {"dimension": 2, "index": "flat"}, {"similarity": "cosine", "keyword": {"tokenizer": "unicode61"}}
    assert raised.value.extra["stored"] == {**definition().to_json(), **stored, **same}
    assert raised.value.extra["asked"] == {**asked.to_json(), "dimension": dim, "index": index, **same}
    assert "stored" in str(raised.value)
    assert collections.get("notes") is collection
    assert collection.definition == definition()


def test_an_index_and_a_recall_that_are_not_given_are_those_of_the_collection(collections, folder):
    for name, index, recall in (("a", "flat", None), ("b", "hnsw", 0.9), ("c", "auto", None)):
        made = collections.create(name, definition(), 2, index, recall)[0]
        assert collections.create(name, definition(), 2) == (made, False)
        assert collections.create(name, definition(), 2, index, recall) == (made, False)
    assert collections.create("c", definition(), 2, recall=0.98)[1] is False
    with pytest.raises(Conflict, match=r"recall: stored 0\.9, asked 0\.95"):
        collections.create("b", definition(), 2, recall=0.95)
    collections.close()
    reopened = EmbeddedEngine(folder)
    assert [(each.index_kind, each.recall) for each in reopened.list()] == [
        ("flat", None),
        ("hnsw", 0.9),
        ("auto", None),
    ]
    reopened.close()


# Documents


# Vectors


# Spans


def test_documents_of_many_spans_are_read_in_bounded_blocks(collections, folder, monkeypatch):
    monkeypatch.setattr(transaction_module, "_BLOCK", 100)
    collection = collections.create("notes", definition(), 2)[0]
    rng = np.random.default_rng(1)
    counts = [int(count) for count in rng.integers(1, 40, 30)]
    vectors = rng.normal(size=(sum(counts), 2)).astype(np.float32)
    documents = [Document(str(place), "", {}) for place in range(30)]
    collection.upsert(documents, Chunked(vectors, [tuple((i, i + 1) for i in range(count)) for count in counts]))
    before = collection.search(array(X, Y), 1000)
    assert len(before[0]) == sum(counts)
    collections.close()
    opened = EmbeddedEngine(folder)
    assert opened.get("notes").search(array(X, Y), 1000) == before
    opened.close()


# Filters


# Index and store agree


def test_a_failing_index_is_rebuilt_from_the_store(collections, monkeypatch, fill, caplog):
    class Fragile(ExactIndex):
        failing = False

        def add(self, keys, vectors):
            if Fragile.failing:
                Fragile.failing = False
                raise MemoryError("no room")
            super().add(keys, vectors)

    monkeypatch.setitem(KINDS, "fragile", Fragile)
    collection = collections.create("notes", definition(), 2, "fragile")[0]
    fill(collection, {"a": (X, {}), "b": (DIAGONAL, {})})
    Fragile.failing = True
    assert fill(collection, {"a": (Y, {}), "c": (Y, {})}) == 2  # durable, so it counts
    assert "no room" in caplog.text
    assert ids(collection.search(array(Y), 5)[0]) == ["a", "c", "b"]
    Fragile.failing = True
    fill(collection, {"d": (X, {})})
    fill(collection, {"e": (X, {})})  # while the index still waits to be rebuilt
    assert collection.count() == 5
    assert ids(collection.search(array(X), 2)[0]) == ["d", "e"]


def test_a_search_and_a_change_do_not_wait_for_each_other(collections, monkeypatch, fill):
    """A search that is under way finds what it found when it began, documents that are gone since included."""
    entered, released = threading.Event(), threading.Event()

    class Slow(ExactIndex):
        def view(self):
            return SlowView(super().view())

    class SlowView:
        def __init__(self, view):
            self.view = view

        def __getattr__(self, name):
            return getattr(self.view, name)

        def __len__(self):
            return len(self.view)

        def search(self, *arguments, **options):
            entered.set()
            assert released.wait(60)
            return self.view.search(*arguments, **options)

    monkeypatch.setitem(KINDS, "slow", Slow)
    collection = collections.create("notes", definition(), 2, "slow")[0]
    fill(collection, {"a": (X, {"n": 1}), "b": (Y, {"n": 1})})
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(collection.search, array(X), 5, {"n": 1})
        assert entered.wait(60)
        try:
            collection.delete("a")
            fill(collection, {"b": (X, {"n": 2}), "c": (X, {"n": 1})})
        finally:
            released.set()
        assert [(hit.id, hit.metadata) for hit in under_way.result()[0]] == [("a", {"n": 1}), ("b", {"n": 1})]
    assert ids(collection.search(array(X), 5)[0]) == ["b", "c"]


def test_reading_waits_for_no_writer_in_preparation(collections, collection, fill, folder):
    """A transaction held open elsewhere delays writers, not searches."""
    fill(collection, {"a": (X, {})})
    blocker = sqlite3.connect(folder / "millpond.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=fill, args=(collection, {"b": (X, {})}))
    writer.start()
    assert ids(collection.search(array(X), 5)[0]) == ["a"]
    assert collection.fetch("a").id == "a"
    blocker.execute("ROLLBACK")
    blocker.close()
    writer.join()
    assert ids(collection.search(array(X), 5)[0]) == ["a", "b"]

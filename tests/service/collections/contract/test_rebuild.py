"""A collection takes other vectors, on every engine: beside the present ones, and all at once in the end."""

import threading

import numpy as np
import pytest

from service.errors import InvalidVector, NotFound, StaleDefinition, StoreUnavailable
from service.store import Document
from tests.service.collections.test_rebuild import CHUNKED, NEW, OLD, anew, build, found, put, vectors
from tests.support.definitions import definition


@pytest.fixture
def collection(collections):
    made = collections.create("notes", OLD, 4)[0]
    put(made, [f"{i}" for i in range(20)])
    return made


@pytest.mark.parametrize("dim", [4, 6])
def test_it_is_searched_as_it_was_until_it_is_as_if_made_anew(collections, reopen, collection, dim):
    before, created = found(collection), collection.created
    collection.begin_rebuild(NEW, dim)
    while build(collection, NEW, dim, most=7):
        assert (collection.definition, collection.dim, found(collection)) == (OLD, 4, before)
    assert collection.rebuild().done == collection.count() == 20
    assert collection.finish_rebuild()
    assert (collection.definition, collection.dim, collection.created) == (NEW, dim, created)
    assert collection.rebuild() is None
    expected = anew(collections, [f"{i}" for i in range(20)], dim=dim)
    assert found(collection) == expected
    put(collection, ["20"])
    collection.delete("20")
    reopened = reopen().get("notes")
    assert (reopened.definition, reopened.dim, found(reopened)) == (NEW, dim, expected)


@pytest.mark.parametrize(("before", "after"), [(OLD, CHUNKED[0]), (CHUNKED[0], CHUNKED[1]), (CHUNKED[0], NEW)])
def test_documents_are_cut_and_joined_again(collections, reopen, before, after):
    collection = collections.create("notes", before, 4)[0]
    texts = ["x" * (i % 5) + f"{i}" for i in range(20)]
    put(collection, texts)
    shown = found(collection)
    collection.begin_rebuild(after, 6)
    build(collection, after, 6, most=7)
    opened = reopen()
    collection = opened.get("notes")
    assert (found(collection), collection.rebuild().done) == (shown, 7)
    while build(collection, after, 6, most=7):
        assert found(collection) == shown
    assert collection.finish_rebuild()
    expected = anew(opened, texts, under=after)
    assert found(collection) == expected
    assert collection.chunks() == opened.get("anew").chunks() >= collection.count() == 20
    assert [collection.fetch(text).spans for text in texts] == [
        opened.get("anew").fetch(text).spans for text in texts
    ]
    put(collection, ["21"])
    collection.delete("21")
    assert found(reopen().get("notes")) == expected


def test_equal_scores_keep_the_order_in_which_documents_were_stored(collections):
    collection = collections.create("notes", OLD, 2)[0]
    ids = [str(i) for i in range(30)]
    collection.upsert([Document(i, "", {}) for i in ids], np.ones((30, 2), np.float32))
    collection.upsert([Document("7", "", {})], np.ones((1, 2), np.float32))
    expected = [i for i in ids if i != "7"] + ["7"]
    collection.begin_rebuild(NEW, 3)
    keys = [key for key, _ in collection.unbuilt()]
    collection.put_rebuilt(NEW, keys[::-1], np.ones((30, 3), np.float32))
    assert collection.finish_rebuild()
    (hits,) = collection.search(np.ones((1, 3), np.float32), 30)
    assert [hit.id for hit in hits] == expected


def test_changes_meanwhile_are_in_it(collections, collection):
    collection.begin_rebuild(NEW, 6)
    assert build(collection, NEW, 6, most=10) == 10
    collection.delete("3")  # has its new vector
    collection.delete("15")  # has none yet
    put(collection, ["4:changed", "16:changed", "20"])
    assert not collection.finish_rebuild()
    assert collection.definition == OLD
    # A document that goes, or changes, between being read and being stored.
    batch = collection.unbuilt()
    collection.delete("17")
    put(collection, ["18:changed"])
    made = vectors([document.text for _, document in batch], NEW, 6)
    collection.put_rebuilt(NEW, [key for key, _ in batch], made)
    assert [document.text for _, document in collection.unbuilt()] == ["18:changed"]
    assert not collection.finish_rebuild()
    # One that comes with both vectors needs no other.
    collection.upsert(
        [Document("21", "21", {})], vectors(["21"], OLD), under=OLD, also=(NEW, vectors(["21"], NEW, 6))
    )
    assert collection.rebuild().done == collection.count() - 1
    assert build(collection, NEW, 6) == 1
    assert collection.finish_rebuild()
    left = [f"{i}" for i in range(20) if i not in (3, 4, 15, 16, 17, 18)]
    texts = [*left, "4:changed", "16:changed", "20", "18:changed", "21"]
    assert found(collection) == anew(collections, texts)


def test_it_goes_on_after_the_store_was_closed(collections, reopen, collection):
    before = found(collection)
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    opened = reopen()
    again = opened.get("notes")
    assert found(again) == before
    assert (again.rebuild().definition, again.rebuild().done) == (NEW, 12)
    again.begin_rebuild(NEW, 6)
    assert [document.id for _, document in again.unbuilt()] == [f"{i}" for i in range(12, 20)]
    build(again, NEW, 6)
    assert again.finish_rebuild()
    assert found(again) == anew(opened, [f"{i}" for i in range(20)])


@pytest.mark.parametrize(("other", "dim"), [(definition("third"), 6), (NEW, 8)])
def test_another_target_begins_anew(collection, other, dim):
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    collection.begin_rebuild(other, dim)
    assert (collection.rebuild().definition, collection.rebuild().done) == (other, 0)
    if other != NEW:
        with pytest.raises(StaleDefinition):
            build(collection, NEW, 6)
    assert build(collection, other, dim) == 20
    assert collection.finish_rebuild()
    assert (collection.definition, collection.dim) == (other, dim)


def test_abandoning(collection):
    before = found(collection)
    assert not collection.abandon_rebuild()
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    assert collection.abandon_rebuild()
    assert collection.rebuild() is None
    with pytest.raises(StaleDefinition, match="abandoned"):
        collection.put_rebuilt(NEW, [1], np.ones((1, 6), np.float32))
    with pytest.raises(StaleDefinition, match="abandoned"):
        collection.finish_rebuild()
    collection.begin_rebuild(NEW, 6)
    assert collection.rebuild().done == 0
    assert found(collection) == before


def test_a_dropped_collection_takes_its_rebuild_with_it(collections, collection):
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6)
    collections.drop("notes")
    for attempt in (
        collection.rebuild,
        collection.unbuilt,
        collection.finish_rebuild,
        collection.abandon_rebuild,
        lambda: collection.begin_rebuild(NEW, 6),
        lambda: collection.put_rebuilt(NEW, [1], np.ones((1, 6), np.float32)),
    ):
        with pytest.raises(NotFound, match="dropped"):
            attempt()
    assert collections.create("notes", OLD, 4)[0].rebuild() is None


def test_vectors_of_the_former_definition_are_refused(collections, collection):
    other = collections.create("other", OLD, 4)[0]
    collection.begin_rebuild(NEW, 4)
    build(collection, NEW, 4)
    query, document = vectors(["query"], OLD), [Document("x", "x", {})]
    collection.search(query, 1, under=OLD)
    collection.upsert(document, query, under=OLD, also=(NEW, query))
    assert collection.finish_rebuild()
    with pytest.raises(StaleDefinition):
        collection.search(query, 1, under=OLD)
    with pytest.raises(StaleDefinition):
        collection.upsert(document, query, under=OLD)
    collection.search(query, 1, under=NEW)
    collection.upsert(document, query, under=NEW, also=(OLD, query))  # for a rebuild that is none
    other.search(query, 1, under=OLD)


def test_vectors_that_do_not_fit(collection):
    collection.begin_rebuild(NEW, 6)
    (key, _), *_ = collection.unbuilt()
    for bad in (np.ones((1, 4)), np.ones((2, 6)), np.full((1, 6), np.nan), np.zeros((1, 6))):
        with pytest.raises(InvalidVector):
            collection.put_rebuilt(NEW, [key], bad)
    assert collection.rebuild().done == 0


def test_documents_come_in_bounded_parts(collections):
    collection = collections.create("notes", OLD, 4)[0]
    put(collection, ["a" * 100, "b" * 100, "c" * 100, *map(str, range(200))])
    collection.begin_rebuild(NEW, 4)

    def lengths(**options):
        return [len(document.text) for _, document in collection.unbuilt(**options)]

    assert lengths(characters=150) == [100, 100]
    assert lengths(characters=1) == [100]
    assert lengths(most=1) == [100]
    assert len(lengths()) == 64
    assert len(lengths(after=collection.unbuilt()[-1][0], most=1000)) == 203 - 64


@pytest.mark.slow
def test_searches_see_one_definition_whole(collections, collection):
    """Readers and writers go on while the collection is rebuilt again and again."""
    over = threading.Event()
    failures = []
    targets = [definition("number 0")]

    def search():
        while not over.is_set():
            under, query = collection.definition, None
            try:
                query = vectors(["query"], under)
                (hits,) = collection.search(query, 1000, under=under)
            except StaleDefinition:
                continue
            if not hits:
                failures.append("no hits")
                continue
            expected = vectors([hit.text for hit in hits], under)
            cosines = expected @ query[0] / np.linalg.norm(expected, axis=1) / np.linalg.norm(query)
            if np.abs(cosines - [hit.score for hit in hits]).max() > 1e-5:
                failures.append(under)
            if sorted(hit.id for hit in hits) != sorted(str(i) for i in range(20)):
                failures.append([hit.id for hit in hits])

    def write():
        for number in range(10**9):
            if over.is_set():
                return
            under, text = collection.definition, f"{number % 20}:{number}"
            try:
                made = vectors([text], under)
                also = targets[-1], vectors([text], targets[-1])  # or the rebuild might never catch up
                collection.upsert([Document(str(number % 20), text, {})], made, under=under, also=also)
            except StaleDefinition:
                continue

    threads = [threading.Thread(target=work) for work in (search, search, write)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            target = definition(f"number {number}")
            targets.append(target)
            collection.begin_rebuild(target, 4)
            while not collection.finish_rebuild():
                build(collection, target, 4)
            assert collection.definition == target
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_a_closed_store(collections, collection):
    collections.close()
    with pytest.raises(StoreUnavailable):
        collection.begin_rebuild(NEW, 6)

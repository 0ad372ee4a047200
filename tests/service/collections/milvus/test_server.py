"""What other programs, other services and a server that fails do to collections in Milvus."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.collections import Selection
from service.collections.milvus import changing, rows
from service.collections.milvus.generation import physical_name, property_of
from service.collections.milvus.names import CLOSED, alias_of
from service.errors import Conflict, InvalidInput, KeywordsUnavailable, NotFound, StaleDefinition, StoreUnavailable
from service.store import Chunked, Document
from tests.support.definitions import definition

pytestmark = pytest.mark.peers
X, Y = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)


def found_again(read):
    """What is read once the server is there again."""
    until = time.monotonic() + 60
    while True:
        try:
            return read()
        except StoreUnavailable:
            assert time.monotonic() < until
            time.sleep(0.2)


def physical(client, name):
    return client.describe_collection(alias_of(name))["collection_name"]


def test_two_services_share_collections(engine, other, notes):
    same = other.get("notes")
    assert same.fetch("a") == notes.fetch("a")
    same.upsert([Document("b", "two", {})], Y)
    assert [hit.id for hit in notes.search(Y, 1)[0]] == ["b"]
    other.rename("notes", "drafts")
    other.alias("live", "drafts")
    assert (notes.count(), notes.name, engine.get("live") is notes) == (2, "drafts", True)
    with pytest.raises(NotFound):
        engine.get("notes")
    other.drop("drafts")
    with pytest.raises(NotFound, match="'drafts' was dropped"):
        notes.count()
    assert engine.list() == []


def test_services_with_other_poolings_do_not_share(other, notes):
    with pytest.raises(Conflict, match="model: stored"):
        other.create("notes", definition("another"), 2, "flat")
    with pytest.raises(StaleDefinition):
        other.get("notes").upsert([Document("b", "", {})], Y, under=definition("another"))
    assert notes.count() == 1


def test_of_two_services_that_create_at_once_one_does(engine, other):
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda each: each.create("notes", definition(), 2), (engine, other)))
    assert sorted(created for _, created in made) == [False, True]
    assert made[0][0].uid == made[1][0].uid


def test_a_rebuild_by_one_service_is_followed_by_the_other(engine, other, notes):
    there = other.get("notes")
    engine.alias("live", "notes")
    notes.begin_rebuild(definition("new"), 3)
    there.upsert([Document("b", "two", {})], Y)  # after the rebuild has begun
    for key, _ in there.unbuilt():
        there.put_rebuilt(definition("new"), [key], np.ones((1, 3), np.float32))
    assert notes.finish_rebuild()
    with pytest.raises(StaleDefinition):
        there.upsert([Document("c", "", {})], X, under=definition())
    assert (there.count(), there.dim, other.get("live") is there) == (2, 3, True)
    assert [hit.id for hit in there.search(np.ones((1, 3), np.float32), 9)[0]] == ["a", "b"]


def test_no_write_is_lost_at_the_end_of_a_rebuild(engine, other, notes):
    """One service writes all the time while the other finishes: what it was told is stored is there."""
    stored, over = [], threading.Event()

    def write():
        collection = other.get("notes")
        while not over.is_set():
            id_ = str(len(stored))
            vectors = np.ones((1, collection.dim), np.float32)
            try:
                also = (definition("new"), np.ones((1, 3), np.float32))  # or the rebuild would never catch up
                collection.upsert([Document(id_, "", {})], vectors, under=collection.definition, also=also)
            except StaleDefinition:
                collection = other.get("notes")
                continue
            stored.append(id_)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            target = definition("new")
            notes.begin_rebuild(target, 3)
            while not notes.finish_rebuild():
                while batch := notes.unbuilt():
                    keys = [key for key, _ in batch]
                    notes.put_rebuilt(target, keys, np.ones((len(keys), 3), np.float32))
            time.sleep(1)
        finally:
            over.set()
        writing.result()
    found, missing = notes.fetch_many(stored, vectors=True)
    assert missing == [] and {each.vectors.shape for each in found} == {(1, 3)}


def test_the_end_of_a_rebuild_that_was_interrupted(engine, notes, client, monkeypatch):
    monkeypatch.setattr(changing, "PATIENCE", 0.3)
    notes.begin_rebuild(definition("new"), 2)
    name = physical(client, "notes")
    client.rename_collection(name, name + CLOSED)  # what the end of a rebuild does first
    assert notes.fetch("a").text == "one"
    with pytest.raises(StoreUnavailable, match="takes no changes now"):
        notes.upsert([Document("b", "", {})], X)
    notes.begin_rebuild(definition("new"), 2)
    notes.upsert([Document("b", "", {})], X)
    assert notes.count() == 2


def test_what_dies_between_two_calls_leaves_no_mixture(notes, client):
    """The rows of a former storing that were not deleted any more."""
    document = Document("a", "abcdef", {"v": 1})
    notes.upsert([document], Chunked(np.repeat(X, 5, axis=0), [tuple((i, i + 1) for i in range(5))]))
    of = rows.encoded(Document("a", "abc", {"v": 2}))
    left = of.rows(np.repeat(Y, 2, axis=0), ((0, 1), (1, 2)), 2**60, 2**60)
    client.upsert(physical(client, "notes"), left)
    assert notes.fetch("a") == Document("a", "abc", {"v": 2}, ((0, 1), (1, 2)))
    assert [hit.metadata for hit in notes.search(X, 9)[0]] == [{"v": 2}] * 2
    assert notes.search(X, 9, {"v": 1}) == [[]]
    assert (notes.count(), notes.count_matching({"v": 1})) == (1, 0)
    (found,), _ = notes.fetch_many(["a"], vectors=True)
    assert found.vectors.tolist() == np.repeat(Y, 2, axis=0).tolist()
    notes.upsert([Document("a", "abc", {})], X)
    assert notes.chunks() == 1


def test_a_collection_of_another_program(engine, client, notes):
    client.create_collection("vectors", dimension=4)  # is none of ours
    assert [each.name for each in engine.list()] == ["notes"]
    name = physical_name(1, 1)
    client.create_collection(name, dimension=4)
    client.create_alias(name, alias_of("foreign"))
    assert [each.name for each in engine.list()] == ["notes"] and engine.aliases() == {}
    with pytest.raises(StoreUnavailable, match="was made by another program or another version"):
        engine.get("foreign")
    kept = client.describe_collection(alias_of("notes"))["properties"]
    client.alter_collection_properties(name, kept | {property_of("name"): '"foreign"'})
    with pytest.raises(StoreUnavailable, match=r"'foreign' has other fields in Milvus .*bounds: None, not JSON"):
        engine.get("foreign")
    assert engine.get("notes").count() == 1


def test_what_is_refused(engine, notes):
    with pytest.raises(InvalidInput, match="'flat' alone"):
        engine.create("approximate", definition(), 2)[0].search(X, 1, exact=True)
    assert [hit.id for hit in notes.search(X, 1, exact=True)[0]] == ["a"]
    for search in (
        lambda: notes.terms("words"),
        lambda: notes.search_keywords([["words"]], 1),
        lambda: notes.search_hybrid(X, [["words"]], 1),
    ):
        with pytest.raises(KeywordsUnavailable, match="full text came with Milvus"):
            search()
    with pytest.raises(InvalidInput, match="compacts"):
        asyncio.run(engine.compact())


def test_a_large_request_is_stored_in_several_calls(engine, monkeypatch):
    monkeypatch.setattr(rows, "MOST_SENT", 100_000)
    collection = engine.create("large", definition(), 2, "flat")[0]
    documents = [Document(str(i), "x" * 1_000, {"i": i}) for i in range(500)]
    assert collection.upsert(documents, np.repeat(X, 500, axis=0)) == 500
    assert collection.count() == 500
    assert collection.update_metadata(Selection(all=True), lambda before: {"i": -before["i"]}).count == 500
    assert [each.document.metadata["i"] for each in collection.page(500).documents] == [-i for i in range(500)]


def test_more_documents_than_one_query_returns(engine):
    """Milvus returns 16,384 rows at most, and in the order of keys."""
    collection = engine.create("many", definition(), 2, "flat")[0]
    count = 20_000
    for start in range(0, count, 5_000):
        documents = [Document(str(i), "", {"i": i}) for i in range(start, start + 5_000)]
        collection.upsert(documents, np.repeat(X, 5_000, axis=0))
    assert collection.count() == count
    listed, cursor = [], None
    while not listed or cursor:
        page = collection.page(3_000, cursor)
        listed += [each.document.id for each in page.documents]
        cursor = page.cursor
    assert listed == [str(i) for i in range(count)]
    assert [document.id for document in collection.documents()] == listed
    assert collection.delete_many(Selection(filter={"i": {"$gte": 1_000}})).count == 19_000
    assert collection.count() == 1_000


def test_a_server_that_hangs(milvus, notes):
    """The first call waits, and others fail at once until it answers again."""
    milvus.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match=r"cannot be reached: it did not .* within 3 s") as raised:
            notes.fetch("a")
        assert raised.value.retry_after
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            notes.fetch("a")
        assert time.monotonic() - began < 1
    finally:
        milvus.signal(signal.SIGCONT)
    found_again(lambda: notes.fetch("a"))


def test_a_write_that_takes_too_long(milvus, notes):
    """The server hangs between the look at the collection and the write."""
    impatient = milvus.engine(timeout=1)
    physical = impatient.get("notes").look().physical
    milvus.signal(signal.SIGSTOP)
    try:
        with pytest.raises(
            StoreUnavailable, match=r"delete documents within 1 s \(store.timeout\), so that it may be"
        ):
            impatient._client.delete(physical, ["x"])
    finally:
        milvus.signal(signal.SIGCONT)
    impatient.close()
    found_again(lambda: notes.fetch("a"))


def test_a_server_that_is_lost_and_comes_back(milvus, engine, notes):
    milvus.stop()
    with pytest.raises(StoreUnavailable) as raised:
        notes.search(X, 1)
    assert raised.value.retry_after
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        engine.get("notes")
    milvus.start()
    assert found_again(lambda: engine.get("notes")) is notes
    assert [hit.id for hit in found_again(lambda: notes.search(X, 1))[0]] == ["a"]
    notes.upsert([Document("b", "two", {})], Y)
    assert notes.count() == 2

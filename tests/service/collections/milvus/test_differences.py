"""What docs/milvus.md says differs from the embedded engine, as far as no other test of this folder shows it."""

import numpy as np
import pytest

from service.collections import Selection
from service.collections.milvus import moment
from service.collections.milvus.names import alias_of
from service.errors import InvalidDocument, StoreUnavailable, TooLarge
from service.index import EXACT
from service.store import Document
from service.store.filters import Filter
from tests.support.definitions import definition
from tests.support.milvus import MilvusServer

pytestmark = pytest.mark.peers
X = np.array([[1, 0]], np.float32)


@pytest.fixture
def notes(engine):
    collection = engine.create("notes", definition(), 2, "flat")[0]
    collection.upsert([Document(id_, f"text of {id_}", {"n": 1}) for id_ in "abc"], np.repeat(X, 3, axis=0))
    return collection


def test_a_change_of_metadata_may_put_back_what_another_service_has_replaced(milvus, notes):
    other = milvus.engine()

    def change(metadata):
        other.get("notes").upsert([Document("a", "new", {})], X)
        return {"n": 2}

    assert notes.update_metadata(Selection(ids=["a"]), change).count == 1
    assert notes.fetch("a") == Document("a", "text of a", {"n": 2})
    other.close()


def test_changes_of_many_documents_are_checked_before_any_is_stored(notes, monkeypatch):
    monkeypatch.setattr(moment, "MOST_READ", 1)  # each document is a block
    values = iter([{"n": 2}, {"n": 2}, {"x": "é" * 40_000}])
    with pytest.raises(InvalidDocument, match="its metadata has"):
        notes.update_metadata(Selection(all=True), lambda _: next(values))
    assert notes.count_matching({"n": 1}) == 3


def test_an_export_leaves_out_what_is_gone_before_its_turn(notes, monkeypatch):
    monkeypatch.setattr(moment, "MOST_READ", 1)
    exported = notes.exported()
    first = next(exported)[1].id
    notes.delete("b")
    notes.upsert([Document("d", "", {})], X)
    assert [first, *(document.id for _, document, _ in exported)] == ["a", "c"]


def test_the_state_of_an_index_counts_what_is_sealed(milvus, notes):
    assert (notes.chunks(), notes.index_state().tail) == (3, 0)  # compared one by one all the same
    client = milvus.client()
    client.flush(alias_of("notes"))
    assert client.describe_index(alias_of("notes"), "vector")["total_rows"] == 3
    assert [hit.id for hit in notes.search(X, 3)[0]] == ["a", "b", "c"]
    client.close()


def test_indexes(milvus, engine):
    client = milvus.client()
    for kind, there in (("auto", "HNSW"), ("flat", "FLAT"), ("hnsw", "HNSW"), ("ivf", "IVF_FLAT")):
        collection = engine.create(kind, definition(), 2, kind)[0]
        assert client.describe_index(alias_of(kind), "vector")["index_type"] == there
        assert (collection.index_state().uses == EXACT, collection.memory_bytes()) == (kind == "flat", 0)
    client.close()


def test_a_filter_that_can_match_nothing_has_no_warning(notes):
    asked = Filter.of({"nothing": 1})
    assert notes.search(X, 3, asked) == [[]]
    assert asked.warnings == ()


def test_hits_of_one_query(notes):
    with pytest.raises(TooLarge, match="up to 16368 hits"):
        notes.search(X, 16_369)


def test_stored_bytes_of_many_documents_are_estimated(engine):
    collection = engine.create("many", definition(), 2, "flat")[0]
    texts = ["x" * (number % 20) for number in range(18_000)]
    for start in range(0, len(texts), 6_000):
        some = [Document(str(number), texts[number], {}) for number in range(start, start + 6_000)]
        collection.upsert(some, np.repeat(X, 6_000, axis=0))
    assert collection.count() == 18_000
    exact = sum(len(text) + 2 + 8 for text in texts)
    assert collection.stored_bytes() == pytest.approx(exact, rel=0.02)
    collection.delete_many(Selection(ids=[str(number) for number in range(2_000)]))
    assert (collection.count(), collection.stored_bytes()) == (16_000, exact - sum(map(len, texts[:2_000])) - 20_000)


def test_a_quota_that_is_used_up(tmp_path):
    server = MilvusServer(tmp_path / "milvus", "quotaAndLimits.limitWriting.forceDeny=true")
    server.start()
    try:
        engine = server.engine()
        collection = engine.create("notes", definition(), 2)[0]
        with pytest.raises(StoreUnavailable, match="does not store documents now, since a quota of it is") as told:
            collection.upsert([Document("a", "", {})], X)
        assert told.value.retry_after and collection.count() == 0
        engine.close()
    finally:
        server.stop()

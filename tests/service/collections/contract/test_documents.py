"""Documents on every engine: listed, selected, changed, exported, and searched by others."""

import numpy as np
import pytest

from service.collections import Selection
from service.collections.refinement import Refinement
from service.errors import InvalidCursor, InvalidDocument, InvalidInput, NotFound, StaleDefinition
from service.similarity import SIMILARITIES
from service.store import Chunked, Document
from tests.support.definitions import definition

X, Y = [1, 0], [0, 1]


def array(*rows):
    return np.array(rows, np.float32)


@pytest.fixture
def collection(collections):
    return collections.create("notes", definition(), 2)[0]


def listed(collection, limit, filter_=None):
    found, cursor = [], None
    while True:
        page = collection.page(limit, cursor, filter_)
        found += [each.document.id for each in page.documents]
        if (cursor := page.cursor) is None:
            return found


def test_pages_are_in_the_order_of_storing(collections, collection, fill):
    for batch in ("cab", "fed"):
        fill(collection, {id_: (X, {"n": ord(id_) % 2}) for id_ in batch})
    fill(collection, {"a": (Y, {"n": 1})})
    assert listed(collection, 2) == listed(collection, 100) == [*"cbfeda"]
    assert listed(collection, 1, {"n": 1}) == [*"cea"]
    cursor = collection.page(2).cursor
    fill(collection, {"c": (X, {})})  # which had its turn, and has another one
    collection.delete("f")
    page = collection.page(10, cursor, vectors=True)
    assert [each.document.id for each in page.documents] == [*"edac"]
    assert [each.vectors.tolist() for each in page.documents] == [[X], [X], [Y], [X]]
    other = collections.create("other", definition(), 2)[0]
    for bad in (cursor[:-2], "", "x" * 27):
        with pytest.raises(InvalidCursor, match="none that a page came with"):
            collection.page(1, bad)
    with pytest.raises(InvalidCursor, match="another collection than 'other'"):
        other.page(1, cursor)
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        collection.page(0)


def test_vectors_come_back_as_they_were_given(collection):
    numbers = np.random.default_rng(3).normal(scale=5, size=(4, 2)).astype(np.float32)
    spans = [((0, 1), (1, 2), (2, 3)), ((0, 3),)]
    collection.upsert([Document("a", "abc", {}), Document("b", "def", {})], Chunked(numbers, spans))
    found, missing = collection.fetch_many(["b", "none", "a"], vectors=True)
    assert [each.document for each in found] == [
        Document("b", "def", {}, spans[1]),
        Document("a", "abc", {}, spans[0]),
    ]
    assert missing == ["none"]
    assert [each.vectors.tolist() for each in found] == [numbers[3:].tolist(), numbers[:3].tolist()]
    (hit, *_) = collection.search(numbers[1:2], 1, refinement=Refinement(vectors=True))[0]
    assert (hit.id, hit.span, hit.vector.tolist()) == ("a", (1, 2), numbers[1].tolist())
    exported = [(of, document.id, own.tolist()) for of, document, own in collection.exported()]
    assert exported == [(definition(), "a", numbers[:3].tolist()), (definition(), "b", numbers[3:].tolist())]
    assert [document.id for document in collection.documents()] == ["a", "b"]
    same = {"a": numbers[:3], "b": numbers[:1]}
    assert collection.unchanged([Document("a", "abc", {}), Document("b", "def", {})], same) == {"a"}


def test_a_document_with_fewer_spans_leaves_none_of_the_former(collection):
    document = Document("a", "abcdef", {"v": 1})
    collection.upsert([document], Chunked(array(*[X] * 5), [tuple((i, i + 1) for i in range(5))]))
    collection.upsert([Document("a", "abc", {"v": 2})], Chunked(array(Y, Y), [((0, 1), (1, 2))]))
    assert (collection.count(), collection.chunks()) == (1, 2)
    assert [hit.metadata for hit in collection.search(array(X), 9)[0]] == [{"v": 2}] * 2
    assert collection.search(array(X), 9, {"v": 1}) == [[]]


def test_groups_reach_past_a_document_with_many_spans(collection):
    many = 700
    collection.upsert(
        [Document("long", "x" * many, {})], Chunked(array(*[X] * many), [tuple((i, i + 1) for i in range(many))])
    )
    collection.upsert([Document(str(i), "", {}) for i in range(5)], array(*[[1, 0.1 * (i + 1)] for i in range(5)]))
    (hits,) = collection.search(array(X), 4, grouped=True)
    assert [hit.id for hit in hits] == ["long", "0", "1", "2"]
    (hits,) = collection.search(array(X), 800)
    assert [hit.span for hit in hits[:many]] == [(i, i + 1) for i in range(many)]
    assert len(hits) == many + 5


def test_selected_documents_are_deleted(collection, fill):
    fill(collection, {id_: (X, {"n": place}) for place, id_ in enumerate("abcdef")})
    done = collection.delete_many(Selection(ids=["b", "x", "b"]))
    assert (done.count, done.missing) == (1, ["x"])
    assert collection.delete_many(Selection(filter={"n": {"$gte": 4}})).count == 2
    assert listed(collection, 9) == [*"acd"]
    with pytest.raises(InvalidDocument):
        collection.delete_many(Selection(ids=["a", ""]))
    assert collection.delete_many(Selection(all=True)).count == 3
    assert collection.count() == collection.chunks() == collection.stored_bytes() == 0


def test_metadata_change_and_all_else_stays(collection):
    collection.upsert(
        [Document("a", "abc", {"n": 1}), Document("b", "def", {"n": 2})],
        Chunked(array(X, Y, Y), [((0, 1), (1, 2)), ((0, 3),)]),
    )
    done = collection.update_metadata(Selection(filter={"n": 1}), lambda before: {**before, "new": [True]})
    assert done.count == 1
    assert collection.fetch("a") == Document("a", "abc", {"n": 1, "new": [True]}, ((0, 1), (1, 2)))
    assert listed(collection, 9) == ["a", "b"]
    assert [hit.id for hit in collection.search(array(Y), 9, {"new": True})[0]] == ["a", "a"]
    with pytest.raises(InvalidDocument, match="nan"):
        collection.update_metadata(
            Selection(all=True), lambda before: {"n": float("nan")} if before["n"] == 2 else {}
        )
    assert collection.fetch("a").metadata == {"n": 1, "new": [True]}


def test_recommend(collection, fill):
    fill(collection, {"x": (X, {}), "y": (Y, {}), "both": ([1, 1], {}), "away": ([-1, 0.1], {})})
    hits, asked = collection.recommend(["x"], [], 2)
    assert ([hit.id for hit in hits], asked.tolist()) == (["both", "y"], X)
    hits, _ = collection.recommend(["y"], ["x"], 5)
    assert [hit.id for hit in hits] == ["away", "both"]
    with pytest.raises(NotFound, match="no document 'none'"):
        collection.recommend(["none"], [], 1)
    fill(collection, {"opposite": ([-1, 0], {})})
    with pytest.raises(InvalidInput, match="no direction"):
        collection.recommend(["x", "opposite"], [], 1)


def test_thresholds_and_diversity(collection, fill):
    fill(collection, {"a": (X, {}), "b": ([1, 0.01], {}), "c": ([1, 1], {}), "d": (Y, {})})
    (hits,) = collection.search(array(X), 9, refinement=Refinement(score_threshold=0.5))
    assert [hit.id for hit in hits] == ["a", "b", "c"]
    (hits,) = collection.search(array(X), 2, refinement=Refinement(diversity=0.9))
    assert [hit.id for hit in hits] == ["a", "d"]


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("index", ["flat", "hnsw", "ivf"])
def test_scores_are_those_of_the_similarity(collections, name, index):
    similarity = SIMILARITIES[name]
    rng = np.random.default_rng(7)
    vectors, queries = (rng.normal(scale=3, size=(n, 8)).astype(np.float32) for n in (60, 4))
    collection = collections.create("of", as_similar(name), 8, index)[0]
    collection.upsert([Document(str(i), "", {}) for i in range(60)], vectors)
    prepared = similarity.prepared(np.concatenate([queries, vectors])).astype(np.float64)
    for row, hits in enumerate(collection.search(queries, 10)):
        difference = prepared[4:] - prepared[row]
        if similarity.metric == "inner product":
            scores = prepared[4:] @ prepared[row]
        else:
            scores = -np.sqrt((difference**2).sum(axis=1))
        best = np.argsort(-scores, kind="stable")[:10]
        assert [hit.id for hit in hits] == [str(i) for i in best]
        assert [hit.score for hit in hits] == pytest.approx(scores[best], abs=1e-4)


def as_similar(name):
    return definition().from_json({**definition().to_json(), "similarity": name})


def test_precisions_are_noted(collection):
    assert collection.precisions() == []
    for precision in ("fp32", "int8", "fp32"):
        collection.upsert([Document("a", "", {})], array(X), precision=precision)
    assert collection.precisions() == ["fp32", "int8"]


def test_another_definition_is_not_written_under(collections, collection):
    """Two services with different poolings never write into one collection."""
    with pytest.raises(StaleDefinition):
        collection.upsert([Document("a", "", {})], array(X), under=definition("another"))
    with pytest.raises(StaleDefinition):
        collection.search(array(X), 1, under=definition("another"))
    assert collection.count() == 0
    collection.relabel(definition("another"), None)
    collection.upsert([Document("a", "", {})], array(X), under=definition("another"))
    assert collections.get("notes").definition == definition("another")

"""What collections do on every engine, one promise a test."""

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest

from service.collections import Hit
from service.errors import (
    Conflict,
    InvalidDocument,
    InvalidFilter,
    InvalidIndex,
    InvalidName,
    InvalidVector,
    NotFound,
    StoreUnavailable,
)
from service.store import Chunked, Document
from tests.support.definitions import definition

X, Y, DIAGONAL = [1, 0], [0, 1], [1, 1]


def ids(hits):
    return [hit.id for hit in hits]


def array(*rows):
    return np.array(rows, np.float32)


@pytest.fixture
def collection(collections):
    return collections.create("notes", definition(), 2)[0]


def test_create_is_idempotent_and_get_and_list_find_it(collections):
    before = datetime.now(UTC)
    made, created = collections.create("notes", definition(prompts={"p": [1, 2.5]}, size=3), 2)
    assert created
    assert collections.create("notes", definition(size=3, prompts={"p": [1, 2.5]}), 2) == (made, False)
    assert collections.get("notes") is made
    assert (made.name, made.dim, made.index_kind) == ("notes", 2, "auto")
    assert made.definition == definition(prompts={"p": [1, 2.5]}, size=3)
    assert before <= made.created <= datetime.now(UTC)
    other, _ = collections.create("Alpha-1", definition(), 3)
    assert collections.list() == [other, made]


def test_a_definition_is_compared_by_json_type(collections):
    collections.create("notes", definition(flag=True), 2)
    with pytest.raises(Conflict, match="flag: stored true, asked 1"):
        collections.create("notes", definition(flag=1), 2)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "é", "x" * 129, "a\n", "a\0", None])
def test_names_that_cannot_be(collections, name):
    with pytest.raises(InvalidName, match="1 to 128"):
        collections.create(name, definition(), 2)
    assert collections.list() == []


def test_names_that_can_be(collections):
    for name in ("a", "9", "x" * 128, "A.b-c_d"):
        assert collections.create(name, definition(), 2)[0].name == name


def test_what_cannot_be_created_leaves_nothing(collections):
    with pytest.raises(InvalidIndex, match="known: auto, flat, hnsw"):
        collections.create("notes", definition(), 2, "hnws")
    for index, recall, said in (("flat", 0.9, "takes no recall"), ("hnsw", 1, "choose the index 'flat'")):
        with pytest.raises(InvalidIndex, match=said):
            collections.create("notes", definition(), 2, index, recall)
    with pytest.raises(InvalidVector, match="at least one dimension"):
        collections.create("notes", definition(), 0)
    with pytest.raises(TypeError):
        collections.create("notes", definition(odd=object()), 2)
    assert collections.list() == []
    assert collections.create("notes", definition(), 2)[1]


def test_unknown_names(collections):
    with pytest.raises(NotFound, match="'nothing'"):
        collections.get("nothing")
    with pytest.raises(NotFound, match="'nothing'"):
        collections.drop("nothing")


def test_dropped_is_gone_and_does_not_come_back(collections, reopen, collection, fill):
    fill(collection, {"a": (X, {})})
    other = collections.create("other", definition(), 2)[0]
    fill(other, {"a": (Y, {})})
    collections.drop("notes")
    document = Document("b", "", {})
    for use in (
        collection.count,
        collection.memory_bytes,
        lambda: collection.fetch("a"),
        lambda: collection.delete("a"),
        lambda: collection.search(array(X), 1),
        lambda: collection.upsert([document], array(X)),
        lambda: collection.unchanged([document]),
        lambda: collections.get("notes"),
    ):
        with pytest.raises(NotFound, match="notes"):
            use()
    again, created = collections.create("notes", definition("another"), 2)
    assert created
    assert again.count() == 0
    assert again.search(array(X), 5) == [[]]
    with pytest.raises(NotFound):
        collection.count()
    assert other.count() == 1

    reopened = reopen()
    assert [(c.name, c.count()) for c in reopened.list()] == [("notes", 0), ("other", 1)]


def test_closed_says_so(collections, collection, fill):
    fill(collection, {"a": (X, {})})
    collections.close()
    collections.close()
    for use in (
        lambda: collection.search(array(X), 1),
        lambda: collection.fetch("a"),
        lambda: collection.delete("a"),
        lambda: fill(collection, {"b": (X, {})}),
        lambda: collections.create("new", definition(), 2),
        lambda: asyncio.run(collections.write(print)),
        lambda: asyncio.run(collections.write(print, together=True)),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()


def test_search_ranks_by_cosine(collection, fill):
    assert fill(collection, {"x": ([9, 0], {"n": 1}), "y": ([0, 0.1], {}), "d": (DIAGONAL, {})}) == 3
    (hits,) = collection.search(array([2, 0]), 3)
    assert hits[0] == Hit("x", 1.0, "text of x", {"n": 1})
    assert ids(hits) == ["x", "d", "y"]
    assert [hit.score for hit in hits] == pytest.approx([1, np.sqrt(0.5), 0], abs=1e-6)
    assert [ids(row) for row in collection.search(array(X, Y), 1)] == [["x"], ["y"]]
    assert ids(collection.search(array(X), 1000)[0]) == ["x", "d", "y"]
    assert collection.search(np.empty((0, 2), np.float32), 3) == []


def test_search_in_an_empty_collection(collection):
    assert collection.search(array(X, Y), 3) == [[], []]
    assert collection.search(array(X), 3, {"a": 1}) == [[]]


def test_upsert_replaces_text_vector_and_metadata(collection, fill):
    fill(collection, {"a": (X, {"v": 1}), "b": (DIAGONAL, {})})
    assert collection.upsert([Document("a", "new", {"v": 2})], array(Y)) == 1
    assert collection.count() == 2
    assert collection.fetch("a") == Document("a", "new", {"v": 2})
    assert collection.search(array(Y), 1) == [[Hit("a", 1.0, "new", {"v": 2})]]
    assert ids(collection.search(array(X), 5)[0]) == ["b", "a"]
    assert collection.search(array(X), 5, {"v": 1}) == [[]]


def test_equal_scores_come_in_order_of_storing(collection, fill):
    fill(collection, {id_: (X, {}) for id_ in "cab"})
    fill(collection, {"c": (X, {})})
    assert ids(collection.search(array(X), 2)[0]) == ["a", "b"]
    assert ids(collection.search(array(X), 3)[0]) == ["a", "b", "c"]


def test_delete(collection, fill):
    fill(collection, {"a": (X, {}), "b": (Y, {})})
    collection.delete("a")
    with pytest.raises(NotFound, match="'notes' has no document 'a'"):
        collection.delete("a")
    with pytest.raises(NotFound, match="'notes' has no document 'a'"):
        collection.fetch("a")
    assert ids(collection.search(array(X), 5)[0]) == ["b"]
    assert collection.count() == 1


def test_the_same_id_in_two_collections(collections, collection, fill):
    other = collections.create("other", definition(), 2)[0]
    fill(collection, {"a": (X, {"at": "notes"})})
    fill(other, {"a": (Y, {"at": "other"})})
    collection.delete("a")
    assert other.fetch("a").metadata == {"at": "other"}
    assert collection.search(array(Y), 5, {"at": "other"}) == [[]]


def test_unchanged(collection, fill):
    fill(collection, {"a": (X, {"n": 1, "deep": {"x": [True]}}), "b": (X, {}), "c": (X, {"n": 1})})
    asked = [
        Document("a", "text of a", {"deep": {"x": [True]}, "n": 1}),
        Document("b", "another text", {}),
        Document("c", "text of c", {"n": 1.0}),
        Document("d", "text of d", {}),
    ]
    assert collection.unchanged(asked) == {"a"}
    assert collection.unchanged([Document("a", "text of a", {"n": 1, "deep": {"x": [1]}})]) == set()
    assert collection.unchanged([]) == set()
    with pytest.raises(InvalidDocument):
        collection.unchanged([Document("", "", {})])


def test_metadata_texts_and_ids_come_back_exactly(collections, reopen):
    metadata = {
        "unicode": "Ünïcödé \U0001f600 \u2028 \x7f \uffff",
        'quoted "key" \\ with.dots': 'a "quote" and a \\ and a \n',
        "": {"empty": [[], {}, "", None, [[1, [2]]]]},
        "integers": [2**63 - 1, -(2**63), 0, 2**53 + 1],
        "floats": [0.1, 1e-320, -0.0, 1.7976931348623157e308, 1.0],
        "booleans": [True, False],
    }
    documents = [
        Document("id with / and \n and ☃", "line one\nline two\0 after NUL \U0001f600", metadata),
        Document("x" * 512, "", {}),
        Document("[1]", "text", {"z": 1, "a": 2}),
    ]
    collection = collections.create("notes", definition(), 2)[0]
    collection.upsert(documents, array(X, X, X))

    def check(collection):
        for document in documents:
            found = collection.fetch(document.id)
            assert found == document
            assert repr(found.metadata) == repr(document.metadata)  # types and the order of keys, too
        hits = collection.search(array(X), 3)[0]
        assert hits == [Hit(d.id, 1.0, d.text, d.metadata) for d in documents]

    check(collection)
    reopened = reopen()
    check(reopened.get("notes"))


def nested(levels):
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (Document("", "t", {}), "1 to 512"),
        (Document("x" * 513, "t", {}), "1 to 512"),
        (Document("a\0", "t", {}), "NUL"),
        (Document("\ud800", "t", {}), "surrogate"),
        (Document(7, "t", {}), "id must be a string, not int"),
        (Document("a", None, {}), "'a': text must be a string, not NoneType"),
        (Document("a", "\udfff", {}), "'a': text holds half of a surrogate"),
        (Document("a", "t", None), "metadata must be a JSON object, not NoneType"),
        (Document("a", "t", [1]), "metadata must be a JSON object, not list"),
        (Document("a", "t", {"x": {"y": [0, float("nan")]}}), r"metadata.x.y\[1\] is nan"),
        (Document("a", "t", {"x": float("-inf")}), "metadata.x is -inf"),
        (Document("a", "t", {"x": 2**63}), "metadata.x is an integer beyond 64 bits"),
        (Document("a", "t", {"x": [-(2**63) - 1]}), "beyond 64 bits"),
        (Document("a", "t", {"x": "\ud83d"}), "metadata.x holds half"),
        (Document("a", "t", {"\ud83d": 1}), "a key of metadata holds half"),
        (Document("a", "t", {"x": "a\0b"}), "metadata.x holds a NUL"),
        (Document("a", "t", {"x": (1, 2)}), "metadata.x is a tuple"),
        (Document("a", "t", {1: 2}), "has the key 1; keys must be strings"),
        (Document("a", "t", {"x": np.int64(1)}), "metadata.x is a int64"),
        (Document("a", "t", nested(65)), "nested deeper than 64"),
        (Document("a", "t", nested(50_000)), "nested deeper than 64"),
    ],
)
def test_documents_that_cannot_be_stored(collection, fill, document, said):
    fill(collection, {"a": (X, {})})
    with pytest.raises(InvalidDocument, match=said):
        collection.upsert([Document("b", "fine", {}), document], array(X, X))
    assert collection.count() == 1
    assert collection.fetch("a").text == "text of a"
    assert collection.search(array(X), 5, {"x": {"$exists": True}}) == [[]]


def test_the_deepest_metadata_can_be_filtered(collection, fill):
    fill(collection, {"a": (X, nested(64))})
    assert ids(collection.search(array(X), 1, {".".join("a" * 63): {"$exists": True}})[0]) == ["a"]


def test_one_id_twice_in_a_request(collection):
    twice = [Document("a", "1", {}), Document("b", "2", {}), Document("a", "3", {})]
    with pytest.raises(InvalidDocument, match="'a' comes twice"):
        collection.upsert(twice, array(X, X, X))
    assert collection.count() == 0


@pytest.mark.parametrize("document_id", ["", "a\0", "\ud800"])
def test_ids_that_cannot_be_asked_for(collection, document_id):
    with pytest.raises(InvalidDocument):
        collection.fetch(document_id)
    with pytest.raises(InvalidDocument):
        collection.delete(document_id)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (array([1, 2, 3]), r"shape \(1, 3\).*takes \(n, 2\)"),
        (array(1, 2), r"shape \(2,\)"),
        (np.array([[1, 2]]), "floating-point numbers, not of int64"),
        (np.array([[True, False]]), "not of bool"),
        (np.array([[1j, 2]]), "not of complex128"),
        (np.array([["a", "b"]], object), "not of object"),
        ([[1.0, 2.0]], "not of list"),
        (array([1, np.nan]), "vector 0 holds NaN"),
        (array([np.inf, 1]), "vector 0 holds NaN, infinity"),
        (np.array([[1e39, 1]]), "beyond float32"),
        (array([0, -0.0]), "vector 0 is all zeros"),
        (np.array([[1e-60, 0]]), "vector 0 is all zeros"),
    ],
)
def test_vectors_that_cannot_be_compared(collection, vectors, said):
    with pytest.raises(InvalidVector, match=said):
        collection.upsert([Document("a", "t", {})], vectors)
    with pytest.raises(InvalidVector, match=said):
        collection.search(vectors, 1)
    assert collection.count() == 0


@pytest.mark.parametrize(
    ("chunked", "said"),
    [
        (Chunked(array(X, Y), [((0, 1), (1, 2))]), "2 documents came with spans for 1"),
        (Chunked(array(X, Y), [((0, 1), (1, 2)), ()]), "2 documents came with spans for 1"),
        (Chunked(array(X, Y), [((0, 1),), ((0, 1), (1, 2))]), "3 spans came with 2 vectors"),
        (Chunked(array(X, Y, [0, 0]), [((0, 1),), ((0, 1), (1, 2))]), "vector 2 is all zeros"),
    ],
)
def test_spans_that_do_not_fit_the_documents(collection, chunked, said):
    with pytest.raises(InvalidVector, match=said):
        collection.upsert([Document("a", "", {}), Document("b", "", {})], chunked)
    assert collection.count() == collection.chunks() == 0


def test_one_bad_vector_refuses_the_request(collection):
    documents = [Document(id_, "", {}) for id_ in "abc"]
    with pytest.raises(InvalidVector, match="vector 2 is all zeros"):
        collection.upsert(documents, array(X, Y, [0, 0]))
    with pytest.raises(InvalidVector, match="3 documents came with 2 vectors"):
        collection.upsert(documents, array(X, Y))
    assert collection.count() == 0


def test_other_float_types_and_layouts(collection):
    documents = [Document(id_, "", {}) for id_ in "ab"]
    collection.upsert(documents, np.array([[1, 0], [3, 4]], np.float64, order="F"))
    assert collection.search(np.array([[3, 4]], np.float16), 1)[0][0].score == pytest.approx(1)
    strided = np.zeros((4, 4), np.float32)
    strided[::2, ::2] = [[0, 1], [1, 0]]
    collection.upsert(documents, strided[::2, ::2])
    assert ids(collection.search(array(X), 1)[0]) == ["b"]


def test_nothing_to_upsert(collection):
    assert collection.upsert([], np.empty((0, 2), np.float32)) == 0


def test_the_callers_arrays_stay_as_they_are(collection, fill):
    vectors, query = array([3, 4], [0, 7]), array([5, 5])
    collection.upsert([Document("a", "", {}), Document("b", "", {})], vectors)
    collection.search(query, 2)
    assert vectors.tolist() == [[3, 4], [0, 7]]
    assert query.tolist() == [[5, 5]]


@pytest.mark.parametrize("k", [0, -1])
def test_k_is_at_least_one(collection, k):
    with pytest.raises(ValueError, match="k must be 1 or more"):
        collection.search(array(X), k)


def test_each_span_is_found_and_a_document_by_its_best(collections, reopen):
    collection = collections.create("notes", definition(), 2)[0]
    spans = [((0, 2), (3, 5), (2, 4)), ((0, 9),)]
    collection.upsert(
        [Document("a", "aa bb cc", {"n": 1}), Document("b", "something", {})],
        Chunked(array(Y, X, X, DIAGONAL), spans),
    )

    def check(collection):
        (hits,) = collection.search(array(X), 9)
        assert [(hit.id, hit.span, round(hit.score, 4)) for hit in hits] == [
            ("a", (3, 5), 1.0),
            ("a", (2, 4), 1.0),
            ("b", (0, 9), 0.7071),
            ("a", (0, 2), 0.0),
        ]
        assert collection.search(array(X), 2, grouped=True) == [[hits[0], hits[2]]]
        assert collection.search(array(X), 1, {"n": 1}, grouped=True) == [[hits[0]]]
        assert hits[0] == Hit("a", 1.0, "aa bb cc", {"n": 1}, (3, 5))
        assert collection.fetch("a") == Document("a", "aa bb cc", {"n": 1}, spans[0])
        assert (collection.count(), collection.chunks()) == (2, 4)

    check(collection)
    opened = reopen()
    check(collection := opened.get("notes"))
    collection.delete("a")
    assert (collection.count(), collection.chunks()) == (1, 1)
    collection.upsert([Document("b", "anew", {})], array(Y))
    assert collection.fetch("b") == Document("b", "anew", {})
    (hit,) = collection.search(array(X), 9)[0]
    assert hit == Hit("b", 0.0, "anew", {})


def test_unchanged_compares_spans_where_they_are_given(collection):
    stored = Document("a", "some text", {}, ((0, 4), (5, 9)))
    collection.upsert([stored], Chunked(array(X, Y), [stored.spans]))
    for spans, same in ((None, True), (stored.spans, True), (((5, 9), (0, 4)), False), (((0, 4),), False)):
        assert collection.unchanged([Document("a", "some text", {}, spans)]) == ({"a"} if same else set())


def test_search_with_a_filter_is_exact(collections):
    rng = np.random.default_rng(5)
    n, dim = 3000, 16
    collection = collections.create("many", definition(), dim)[0]
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    metadata = [{"group": int(i % 100), "score": float(rng.uniform())} for i in range(n)]
    documents = [Document(str(i), f"text {i}", metadata[i]) for i in range(n)]
    for at in range(0, n, 1000):
        collection.upsert(documents[at : at + 1000], vectors[at : at + 1000])
    queries = rng.normal(size=(5, dim)).astype(np.float32)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float64) @ unit.T
    for filter_, keep in [
        (None, [True] * n),
        ({}, [True] * n),
        ({"group": 7}, [m["group"] == 7 for m in metadata]),
        (
            {"group": {"$gte": 50}, "score": {"$lt": 0.5}},
            [m["group"] >= 50 and m["score"] < 0.5 for m in metadata],
        ),
        ({"group": {"$in": [1, 2]}}, [m["group"] in (1, 2) for m in metadata]),
        ({"group": 100}, [False] * n),
    ]:
        kept = np.flatnonzero(keep)
        for k in (1, 10, 5000):
            for row, hits in enumerate(collection.search(queries, k, filter_)):
                expected = kept[np.argsort(-cosines[row, kept])][:k]
                assert ids(hits) == [str(i) for i in expected]
                np.testing.assert_allclose([hit.score for hit in hits], cosines[row, expected], atol=1e-6)
                assert all(hit.text == f"text {hit.id}" for hit in hits)
                assert all(hit.metadata == metadata[int(hit.id)] for hit in hits)


def test_a_bad_filter_is_refused(collection, fill):
    fill(collection, {"a": (X, {})})
    for bad in ({"a": {"$gtr": 1}}, [], "x", {"$and": []}):
        with pytest.raises(InvalidFilter):
            collection.search(array(X), 1, bad)

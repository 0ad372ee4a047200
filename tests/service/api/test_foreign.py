"""Collections of vectors that were made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

A, B, C = [1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 2.0]


@pytest.fixture
def foreign(http: httpx.Client) -> Iterator[str]:
    path = f"/collections/foreign-{uuid4().hex[:12]}"
    assert http.put(path, json={"dimension": 3}).status_code == 201
    yield path
    http.delete(path)


def put(http: httpx.Client, path: str, *documents: dict[str, Any], **more: Any) -> httpx.Response:
    return http.post(f"{path}/documents", json={"documents": documents, **more})


def test_a_collection_says_that_its_vectors_are_foreign(http: httpx.Client, foreign: str) -> None:
    about = http.get(foreign).json()
    assert (about["model"], about["pooling"], about["fingerprint"]) == (None, None, "foreign")
    assert (about["foreign"], about["dimension"], about["similarity"]) == (True, 3, "cosine")
    assert http.put(foreign, json={"dimension": 3}).status_code == 200
    assert about in http.get("/collections").json()["collections"]
    for other in ({"dimension": 4}, {}, {"dimension": 3, "similarity": "dot"}):
        problem(http.put(foreign, json=other), 409, "exists under another definition")


def test_documents_come_with_vectors_and_text_is_optional(http: httpx.Client, foreign: str) -> None:
    first = put(
        http, foreign, {"id": "a", "vector": A, "metadata": {"n": 1}}, {"id": "b", "vector": B, "text": "both"}
    )
    assert first.json() == {"upserted": 2, "unchanged": 0}
    assert http.get(f"{foreign}/documents/a").json() == {"id": "a", "text": "", "metadata": {"n": 1}}
    found = http.post(f"{foreign}/search", json={"vector": A}).json()["hits"]
    assert [(hit["id"], hit["text"]) for hit in found] == [("a", ""), ("b", "both")]
    assert [hit["score"] for hit in found] == pytest.approx([1, 0.6])
    again = put(
        http, foreign, {"id": "a", "vector": A, "metadata": {"n": 1}}, {"id": "b", "vector": C, "text": "both"}
    )
    assert again.json() == {"upserted": 2, "unchanged": 1}
    assert [hit["id"] for hit in http.post(f"{foreign}/search", json={"vector": C, "k": 1}).json()["hits"]] == ["b"]
    filtered = http.post(f"{foreign}/search", json={"vector": C, "filter": {"n": 1}}).json()["hits"]
    assert [hit["id"] for hit in filtered] == ["a"]
    assert http.delete(f"{foreign}/documents/a").status_code == 204


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"id": "x", "text": "a text alone"}, "each document comes with one, of 3 numbers"),
        ({"id": "x", "vector": [1.0, 2.0]}, "has 2 numbers; collection"),
        ({"id": "x", "vector": []}, "has 0 numbers"),
        ({"id": "x", "vectors": []}, "0 vectors came for 1 spans"),
        ({"id": "x", "vector": [0.0, 0.0, 0.0]}, "is all zeros"),
        ({"id": "x", "vector": [1e39, 0.0, 0.0]}, "beyond float32"),
        ({"id": "x", "vector": [1.0, None, 0.0]}, "documents[1].vector[1]"),
        ({"id": "x", "vector": ["1", 0.0, 0.0]}, "documents[1].vector[0]"),
        ({"id": "x", "vector": "abc"}, "documents[1].vector"),
        ({"id": "x", "vector": A, "vectors": [A]}, "has one of 'vector' and 'vectors'"),
        ({"id": "x", "vector": A, "spans": [[0, 1]]}, "has 'spans'"),
    ],
)
def test_bad_vectors_name_their_document(http: httpx.Client, foreign: str, bad: dict[str, Any], word: str) -> None:
    answer = problem(put(http, foreign, {"id": "a", "vector": A}, bad), 422, word)
    assert answer["where"].startswith("documents[1]")
    assert http.get(foreign).json()["count"] == 0
    skipped = put(http, foreign, {"id": "a", "vector": A}, bad, on_error="skip").json()
    assert (skipped["upserted"], [entry["id"] for entry in skipped["rejected"]]) == (1, ["x"])
    assert not skipped["rejected"][0]["empty"]


def test_texts_are_refused_in_words(http: httpx.Client, foreign: str) -> None:
    put(http, foreign, {"id": "a", "vector": A, "text": "a harp"})
    for body in ({"query": "harp"}, {"queries": ["harp"]}):
        problem(http.post(f"{foreign}/search", json=body), 422, "foreign vectors", "'vector'", "'model'")
    problem(http.post(f"{foreign}/search", json={"vector": [1.0]}), 422, "1 dimensions")
    problem(http.post(f"{foreign}/reindex"), 422, "foreign vectors", "name the model")
    problem(http.get(f"{foreign}/reindex"), 404, "no reindex")


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        ({"dimension": 0}, "dimension", "greater than or equal to 1"),
        ({"dimension": 70_000}, "dimension", "less than or equal to 65536"),
        ({"dimension": 3, "pooling": "cls"}, "pooling", "name the 'model'"),
        ({"dimension": 3, "model": "mean"}, "dimension", "have 384 numbers"),
        ({"dimension": 3, "chunking": {"by": "sentence"}}, "chunking", "one vector a document"),
    ],
)
def test_what_a_foreign_collection_cannot_be(http: httpx.Client, body: dict[str, Any], field: str, word: str) -> None:
    answer = problem(http.put("/collections/impossible", json=body), 422, word)
    assert answer["place"]["field"] == field


def test_a_model_for_queries(http: httpx.Client) -> None:
    path = "/collections/foreign-with-a-model"
    created = http.put(path, json={"dimension": 384, "model": "max"})
    assert created.status_code == 201
    about = created.json()
    assert (about["model"], about["pooling"], about["foreign"]) == ("max", "max", True)
    texts = {"harp": "A man is playing a harp.", "cat": "A cat sleeps in the sun."}
    vectors = http.post("/embed", json={"inputs": [*texts.values()], "model": "max"}).json()
    try:
        documents = [{"id": key, "vector": vector} for key, vector in zip(texts, vectors, strict=True)]
        assert put(http, path, *documents).json()["upserted"] == 2
        found = http.post(f"{path}/search", json={"query": "music"}).json()["hits"]
        assert [hit["id"] for hit in found] == ["harp", "cat"]
        problem(http.post(f"{path}/reindex"), 422, "foreign vectors")
        problem(put(http, path, {"id": "t", "text": "a text"}), 422, "each document comes with one")
    finally:
        http.delete(path)


def test_a_collection_of_a_model_takes_vectors_of_its_fingerprint(http: httpx.Client, collection: str) -> None:
    fingerprint = http.get(collection).json()["fingerprint"]
    vector = http.post("/embed", json={"inputs": "A man is playing a harp."}).json()[0]
    document = {"id": "harp", "text": "A man is playing a harp.", "vector": vector}
    answer = put(http, collection, document | {"fingerprint": fingerprint}, {"id": "cat", "text": "A cat sleeps."})
    assert answer.json() == {"upserted": 2, "unchanged": 0}
    found = http.post(f"{collection}/search", json={"query": "A man is playing a harp."}).json()["hits"]
    assert (found[0]["id"], found[1]["id"]) == ("harp", "cat")
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert np.isfinite(found[1]["score"])
    problem(put(http, collection, document), 422, "makes vectors of texts itself", "'fingerprint'")
    problem(put(http, collection, document | {"fingerprint": "0123"}), 409, "'0123'", fingerprint)
    problem(
        put(http, collection, {"id": "x", "text": "x", "fingerprint": fingerprint}), 422, "'fingerprint' beside it"
    )


def test_vectors_of_spans(http: httpx.Client) -> None:
    """What a chunked collection holds can be given back to it: each span with its vector."""
    path = "/collections/vectors-of-spans"
    about = http.put(path, json={"chunking": {"by": "sentence"}}).json()
    text, spans = "A harp. A cat.", [[0, 7], [8, 14]]
    vectors = http.post("/embed", json={"inputs": ["A harp.", "A cat."]}).json()
    document = {"id": "x", "text": text, "spans": spans, "vectors": vectors, "fingerprint": about["fingerprint"]}
    try:
        answer = put(http, path, document, {"id": "y", "text": "A dog barks."})
        assert answer.json() == {"upserted": 2, "unchanged": 0}
        assert http.get(f"{path}/documents/x").json()["spans"] == spans
        found = http.post(f"{path}/search", json={"vector": vectors[1], "k": 1}).json()["hits"][0]
        assert (found["id"], found["span"]["text"]) == ("x", "A cat.")
        problem(put(http, path, document | {"vectors": vectors[:1]}), 422, "1 vectors came for 2 spans")
        problem(put(http, path, document | {"spans": None}), 422, "has vectors and no 'spans'")
        problem(
            put(http, path, document | {"spans": [[0, 7], [8, 99]]}), 422, "span [8, 99] is none of a text with 14"
        )
    finally:
        http.delete(path)

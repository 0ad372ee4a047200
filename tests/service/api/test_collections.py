"""Collections, documents and search over HTTP."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.support.problems import problem
from tests.support.servers import Server

MUSIC = [
    {"id": "harp", "text": "A man is playing a harp.", "metadata": {"year": 2012, "lang": "en", "tags": ["music"]}},
    {"id": "piano", "text": "A woman plays the piano.", "metadata": {"year": 2020, "lang": "en", "tags": ["music"]}},
    {
        "id": "cat",
        "text": "A cat sleeps in the sun.",
        "metadata": {"year": 2021, "lang": "en", "by": {"name": "A"}},
    },
    {"id": "katze", "text": "Eine Katze schläft.", "metadata": {"year": 2021, "lang": "de"}},
]


def upserted(http: httpx.Client, collection: str, documents: list[dict[str, Any]], **more: Any) -> dict[str, int]:
    response = http.post(f"{collection}/documents", json={"documents": documents, **more})
    assert response.status_code == 200, response.text[:500]
    return response.json()


def hits(http: httpx.Client, collection: str, **asked: Any) -> list[dict[str, Any]]:
    response = http.post(f"{collection}/search", json=asked)
    assert response.status_code == 200, response.text[:500]
    return response.json()["hits"]


def document(http: httpx.Client, collection: str, document_id: str) -> httpx.Response:
    return http.get(f"{collection}/documents/{quote(document_id, safe='')}")


def everything(http: httpx.Client, collection: str) -> dict[str, Any]:
    """All that a client can see of a collection."""
    found = hits(http, collection, vector=[1.0] * 384, k=10_000)
    return {"about": http.get(collection).json(), "documents": sorted(found, key=lambda hit: hit["id"])}


def test_create_is_idempotent_when_equal(http: httpx.Client) -> None:
    path = f"/collections/test-{uuid4().hex[:12]}"
    created = http.put(path, json={"model": "mean"})
    assert created.status_code == 201
    about = created.json()
    assert (about["model"], about["pooling"], about["dimension"], about["count"]) == ("mean", "mean", 384, 0)
    assert about["fingerprint"] == http.get("/info").json()["models"]["mean"]["fingerprint"]
    assert (about["index"], about["index_state"]) == ("auto", {"uses": "exact"})
    index = {"index": "auto", "recall": 0.98}
    for equal in ({}, {"model": "mean", "pooling": "mean"}, {"pooling": "declared"}, index, None):
        again = http.put(path, json=equal)
        assert (again.status_code, again.json()) == (200, about), equal
    assert http.put(path).json() == about  # no body at all

    body = problem(http.put(path, json={"pooling": "cls"}), 409, '"mean"', '"cls"', "drop the collection")
    assert (body["stored"]["pooling"], body["asked"]["pooling"]) == ("mean", "cls")
    problem(http.put(path, json={"model": "max"}), 409, '"max"')
    problem(http.put(path, json={"index": "flat"}), 409, 'index: stored "auto", asked "flat"')
    problem(http.put(path, json={"recall": 0.9}), 409, "recall: stored 0.98, asked 0.9")
    assert http.get(path).json() == about
    assert about in http.get("/collections").json()["collections"]

    assert http.delete(path).status_code == 204
    for gone in (http.get(path), http.delete(path), http.post(f"{path}/search", json={"query": "a"})):
        problem(gone, 404, path.removeprefix("/collections/"), "create it")
    assert http.put(path, json={"pooling": "cls"}).status_code == 201
    assert http.delete(path).status_code == 204


def test_a_collection_with_a_pooling_of_its_own_searches_with_it(http: httpx.Client) -> None:
    path = f"/collections/test-{uuid4().hex[:12]}"
    about = http.put(path, json={"model": "mean", "pooling": "mean + max"}).json()
    assert (about["pooling"], about["dimension"]) == ("mean + max", 768)
    upserted(http, path, MUSIC)
    vectors = http.post(
        "/embed", json={"inputs": ["music", *(item["text"] for item in MUSIC)], "pooling": "mean + max"}
    ).json()
    cosines = np.array(vectors[1:]) @ np.array(vectors[0])
    found = hits(http, path, query="music")
    assert hits(http, path, query="music", exact=True) == hits(http, path, vector=vectors[0], exact=True) == found
    assert [hit["id"] for hit in found] == [MUSIC[place]["id"] for place in np.argsort(-cosines)]
    np.testing.assert_allclose([hit["score"] for hit in found], np.sort(cosines)[::-1], atol=1e-5)
    http.delete(path)


def test_upsert_get_replace_delete(http: httpx.Client, collection: str) -> None:
    assert upserted(http, collection, MUSIC) == {"upserted": 4, "unchanged": 0}
    assert document(http, collection, "harp").json() == MUSIC[0]
    assert upserted(http, collection, MUSIC) == {"upserted": 4, "unchanged": 4}

    retagged = MUSIC[0] | {"metadata": {"year": 1.0}}
    rewritten = MUSIC[1] | {"text": "Boats on a lake."}
    assert upserted(http, collection, [retagged, rewritten, MUSIC[2]]) == {"upserted": 3, "unchanged": 1}
    assert document(http, collection, "harp").json() == retagged
    assert hits(http, collection, query="Boats on a lake.", k=1)[0]["id"] == "piano"
    assert http.get(collection).json()["count"] == 4

    assert http.delete(f"{collection}/documents/cat").status_code == 204
    for gone in (http.delete(f"{collection}/documents/cat"), document(http, collection, "cat")):
        problem(gone, 404, "'cat'")
    assert {hit["id"] for hit in hits(http, collection, query="cat")} == {"harp", "piano", "katze"}
    assert upserted(http, collection, [{"id": "bare", "text": "no metadata"}])["upserted"] == 1
    assert document(http, collection, "bare").json() == {"id": "bare", "text": "no metadata", "metadata": {}}


@pytest.mark.parametrize(
    "document_id",
    [
        *("a/b/c", "/a", "a/", "//", "a b", " ", "ü", "日本", "👍", "%2F", "a%20b", "%", "a?b=c", "#", "+", "&", ":"),
        *(
            "a\nb",
            "\n",
            "a\n",
            "\r\n",
            "\\",
            "search",
            "documents",
            "..%2F",
            "'; DROP TABLE documents; --",
            "x" * 512,
        ),
    ],
)
def test_ids_of_every_kind(http: httpx.Client, collection: str, document_id: str) -> None:
    upserted(http, collection, [{"id": document_id, "text": "odd id"}, {"id": "other", "text": "other"}])
    assert document(http, collection, document_id).json()["id"] == document_id
    assert hits(http, collection, query="odd id", k=1)[0]["id"] == document_id
    assert http.delete(f"{collection}/documents/{quote(document_id, safe='')}").status_code == 204
    problem(document(http, collection, document_id), 404)
    assert document(http, collection, "other").status_code == 200


def test_ids_that_clients_take_for_folders(side_by_side: Server, collection: str) -> None:
    """Most clients resolve `.` and `..` before they send; one that does not gets its document."""
    upserted(side_by_side.http, collection, [{"id": name, "text": f"named {name}"} for name in (".", "..", "a/../b")])
    raw = http.client.HTTPConnection("127.0.0.1", side_by_side.port)
    for name in (".", "..", "a/../b"):
        raw.request("GET", f"{collection}/documents/{name}")
        answer = raw.getresponse()
        assert (answer.status, f"named {name}" in answer.read().decode()) == (200, True)
    raw.close()


def test_search_by_text_texts_and_vector_agree(http: httpx.Client, collection: str) -> None:
    upserted(http, collection, MUSIC)
    queries = ["music", "sleeping animals"]
    vectors = np.array(http.post("/embed", json={"inputs": queries}).json())
    stored = np.array(http.post("/embed", json={"inputs": [item["text"] for item in MUSIC]}).json())
    results = http.post(f"{collection}/search", json={"queries": queries}).json()["results"]
    for query, vector, result in zip(queries, vectors, results, strict=True):
        cosines = stored @ vector
        assert [hit["id"] for hit in result["hits"]] == [MUSIC[place]["id"] for place in np.argsort(-cosines)]
        np.testing.assert_allclose([hit["score"] for hit in result["hits"]], np.sort(cosines)[::-1], atol=1e-5)
        for asked in ({"query": query}, {"vector": vector.tolist()}, {"vector": (5 * vector).tolist()}):
            found = hits(http, collection, **asked)
            assert [hit["id"] for hit in found] == [hit["id"] for hit in result["hits"]]
            np.testing.assert_allclose(
                [hit["score"] for hit in found], [hit["score"] for hit in result["hits"]], atol=1e-5
            )
    assert http.post(f"{collection}/search", json={"queries": ["music"]}).json()["results"][0]["hits"]


def test_k_filter_and_include(http: httpx.Client, collection: str) -> None:
    assert hits(http, collection, query="music") == []
    upserted(http, collection, MUSIC)
    ranked = hits(http, collection, query="music", k=10_000)
    assert len(ranked) == 4  # k above the collection's size gives all there is
    assert hits(http, collection, query="music", k=2) == ranked[:2]
    for condition, expected in (
        ({"year": {"$gte": 2020}, "lang": "en"}, {"piano", "cat"}),
        ({"tags": "music"}, {"harp", "piano"}),
        ({"by.name": "A"}, {"cat"}),
        ({"$or": [{"lang": "de"}, {"year": 2012}]}, {"harp", "katze"}),
        ({"by": {"$exists": False}, "lang": {"$ne": "de"}}, {"harp", "piano"}),
        ({"year": {"$in": [2012, 2020]}}, {"harp", "piano"}),
        ({"year": 1999}, set()),
        ({}, {"harp", "piano", "cat", "katze"}),
    ):
        found = hits(http, collection, query="music", filter=condition)
        assert found == [hit for hit in ranked if hit["id"] in expected], condition
    assert hits(http, collection, query="music", k=1, filter={"lang": "de"})[0]["id"] == "katze"
    assert all(hit.keys() == {"id", "score"} for hit in hits(http, collection, query="music", include=[]))
    assert hits(http, collection, query="music", k=1, include=["text"])[0].keys() == {"id", "score", "text"}
    assert ranked[0].keys() == {"id", "score", "text", "metadata"}


def test_truncate_for_documents_and_queries(http: httpx.Client, collection: str) -> None:
    long = "word " * 300
    upserted(http, collection, [{"id": "long", "text": long}, MUSIC[0]], truncate=True)
    assert document(http, collection, "long").json()["text"] == long
    found = hits(http, collection, query=long, truncate=True, k=1)[0]
    assert found["id"] == "long" and found["score"] == pytest.approx(1, abs=1e-5)
    body = problem(http.post(f"{collection}/search", json={"query": long}), 413, "302", "256", "truncate")
    assert (body["length"], body["limit"], body["where"]) == (302, 256, "query")


def test_the_default_collection(small: Server) -> None:
    missing = problem(small.http.post("/search", json={"query": "a"}), 404, "PUT /collections/default")
    assert "store.default_collection" in missing["detail"]
    assert small.http.put("/collections/default").status_code == 201
    upserted(small.http, "/collections/default", MUSIC)
    named = small.http.post("/collections/default/search", json={"query": "music"}).json()
    assert small.http.post("/search", json={"query": "music"}).json() == named
    assert len(named["hits"]) == 4
    small.http.delete("/collections/default")


@pytest.mark.parametrize(
    ("bad", "status", "word"),
    [
        ([{"id": "bad", "text": ""}], 422, "documents[2].text (id 'bad') is empty"),
        ([{"id": "bad", "text": " \n\t"}], 422, "white space"),
        ([{"id": "bad", "text": "\u200b"}], 422, "no token"),
        ([{"id": "bad", "text": "word " * 300}], 413, "302 tokens"),
        ([{"id": "new", "text": "again"}], 422, "'new' comes twice"),
        ([{"id": "", "text": "a"}], 422, "1 to 512"),
        ([{"id": "x" * 513, "text": "a"}], 422, "1 to 512"),
        ([{"id": "a\0", "text": "a"}], 422, "NUL"),
        ([{"id": 7, "text": "a"}], 422, "documents[2].id"),
        ([{"id": "bad"}], 422, "documents[2].text: this field is required"),
        ([{"id": "bad", "text": "a", "metadata": [1]}], 422, "documents[2].metadata"),
        ([{"id": "bad", "text": "a", "metadata": {"a\0": 1}}], 422, "NUL"),
        ([{"id": "bad", "text": "a", "metadata": {"n": 2**63}}], 422, "64 bits"),
        ([{"id": "bad", "text": "a", "meta": {}}], 422, "Did you mean 'metadata'"),
        (["a text"], 422, "documents[2]"),
    ],
)
def test_a_request_with_one_bad_document_changes_nothing(
    http: httpx.Client, collection: str, bad: list[Any], status: int, word: str
) -> None:
    upserted(http, collection, MUSIC)
    before = everything(http, collection)
    documents = [{"id": "new", "text": "good"}, MUSIC[0] | {"text": "changed"}, *bad]
    problem(http.post(f"{collection}/documents", json={"documents": documents}), status, word)
    assert everything(http, collection) == before
    problem(document(http, collection, "new"), 404)


@pytest.mark.slow
def test_concurrent_requests_for_the_same_documents_leave_one_of_them(http: httpx.Client, collection: str) -> None:
    """Whichever came last is there whole, even where half of each was stored already."""

    def version(number: int, ids: str) -> list[dict[str, str]]:
        return [{"id": name, "text": f"version {number} of document {name}"} for name in ids]

    with ThreadPoolExecutor(2) as pool:
        for _ in range(30):
            upserted(http, collection, version(1, "x") + version(2, "y"))
            assert all(pool.map(lambda number: upserted(http, collection, version(number, "xy")), (1, 2)))
            texts = {document(http, collection, name).json()["text"].removesuffix(name) for name in "xy"}
            assert len(texts) == 1

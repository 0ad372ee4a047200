"""Documents by the many over HTTP: listed, counted, fetched, deleted, their metadata changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

DOCUMENTS = [
    {"id": "harp", "text": "A man is playing a harp.", "metadata": {"year": 2012, "by": {"name": "Ada", "age": 9}}},
    {"id": "a/b?c=\n", "text": "A cat sleeps in the sun.", "metadata": {"year": 2020}},
    {"id": "list", "text": "A woman plays the piano.", "metadata": {"year": 2021, "tags": ["music"]}},
    {"id": "é", "text": "Eine Katze schläft.", "metadata": {}},
]
IDS = [document["id"] for document in DOCUMENTS]


@pytest.fixture
def filled(http: httpx.Client, collection: str) -> str:
    """The path of a collection with `DOCUMENTS`."""
    assert http.post(f"{collection}/documents", json={"documents": DOCUMENTS}).status_code == 200
    return collection


@pytest.fixture(scope="module")
def kept(http: httpx.Client) -> Iterator[str]:
    """The same for tests that change nothing."""
    path = f"/collections/test-{uuid4().hex[:12]}"
    assert http.put(path).status_code == 201
    assert http.post(f"{path}/documents", json={"documents": DOCUMENTS}).status_code == 200
    yield path
    http.delete(path)


def asked(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()


def everything(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    return asked(http, f"{path}/documents/list")["documents"]


def searched(http: httpx.Client, path: str, **body: Any) -> list[str]:
    return [hit["id"] for hit in asked(http, f"{path}/search", vector=[1.0] * 384, **body)["hits"]]


def test_pages_are_in_the_order_of_storing(http: httpx.Client, filled: str) -> None:
    path = f"{filled}/documents/list"
    assert http.post(path).json() == {"documents": DOCUMENTS, "cursor": None}
    first = asked(http, path, limit=3)
    assert first["documents"] == DOCUMENTS[:3]
    assert asked(http, path, limit=3, cursor=first["cursor"]) == {"documents": DOCUMENTS[3:], "cursor": None}
    assert asked(http, path, limit=4)["cursor"] is None
    assert asked(http, path, include=[])["documents"] == [{"id": id_} for id_ in IDS]


def test_pages_stay_whole_while_others_write(http: httpx.Client, filled: str) -> None:
    path = f"{filled}/documents/list"
    first = asked(http, path, limit=2, include=[])
    changed = DOCUMENTS[0] | {"text": "Boats on a lake."}
    asked(http, f"{filled}/documents", documents=[changed, {"id": "new", "text": "A mill by the pond."}])
    asked(http, f"{filled}/documents/delete", ids=[IDS[1], IDS[2]])
    asked(http, f"{filled}/documents/metadata", ids=[IDS[3]], merge={"year": 1})
    rest = asked(http, path, cursor=first["cursor"], include=[])["documents"]
    assert [document["id"] for document in rest] == ["é", "harp", "new"]


def test_a_filter_lists_and_counts_what_matches(http: httpx.Client, filled: str) -> None:
    recent = {"year": {"$gte": 2015}}
    first = asked(http, f"{filled}/documents/list", filter=recent, limit=1)
    assert first["documents"] == [DOCUMENTS[1]]
    second = asked(http, f"{filled}/documents/list", filter=recent, limit=1, cursor=first["cursor"])
    assert second == {"documents": [DOCUMENTS[2]], "cursor": None}
    assert asked(http, f"{filled}/documents/list", filter={"year": 1}) == {"documents": [], "cursor": None}
    for filter_, count in ((recent, 2), ({"year": 1}, 0), ({}, 4), (None, 4)):
        assert asked(http, f"{filled}/documents/count", filter=filter_) == {"count": count}
    assert http.post(f"{filled}/documents/count").json() == {"count": 4}


def test_documents_by_their_ids_with_their_vectors(http: httpx.Client, filled: str) -> None:
    found = asked(http, f"{filled}/documents/get", ids=["é", "nowhere", "harp", "é"])
    assert found == {"documents": [DOCUMENTS[3], DOCUMENTS[0]], "missing": ["nowhere"]}
    found = asked(http, f"{filled}/documents/get", ids=["harp", "list"], include=["vector"])
    vectors = http.post("/embed", json={"inputs": [DOCUMENTS[0]["text"], DOCUMENTS[2]["text"]]}).json()
    assert [document.keys() for document in found["documents"]] == [{"id", "vector"}] * 2
    np.testing.assert_allclose([document["vector"] for document in found["documents"]], vectors, atol=1e-5)
    assert http.get(f"{filled}/documents/list").json() == DOCUMENTS[2]  # an id like any other


def test_vectors_of_a_chunked_collection(http: httpx.Client) -> None:
    path = f"/collections/test-{uuid4().hex[:12]}"
    assert http.put(path, json={"chunking": {"by": "sentence"}}).status_code == 201
    asked(http, f"{path}/documents", documents=[{"id": "1", "text": "A man plays. A cat sleeps."}])
    (document,) = asked(http, f"{path}/documents/list", include=["spans", "vector"])["documents"]
    assert document["spans"] == [[0, 12], [13, 26]]
    assert np.array(document["vectors"]).shape == (2, 384)
    assert asked(http, f"{path}/search", vector=document["vectors"][1], k=1)["hits"][0]["span"]["start"] == 13
    http.delete(path)


def test_deleted_by_ids_by_filter_and_all(http: httpx.Client, filled: str) -> None:
    path = f"{filled}/documents/delete"
    assert asked(http, path, ids=["list", "nowhere", "list"]) == {"deleted": 1, "missing": ["nowhere"]}
    assert asked(http, path, ids=["nowhere"]) == {"deleted": 0, "missing": ["nowhere"]}
    assert sorted(searched(http, filled)) == sorted(set(IDS) - {"list"})
    assert asked(http, path, filter={"year": {"$lt": 2015}}) == {"deleted": 1, "missing": []}
    assert sorted(searched(http, filled)) == sorted(document["id"] for document in everything(http, filled))
    assert asked(http, path, all=True) == {"deleted": 2, "missing": []}
    assert everything(http, filled) == searched(http, filled) == []
    assert http.get(filled).json()["stored_bytes"] == 0


def test_metadata_is_merged_or_replaced_and_nothing_else(http: httpx.Client, filled: str) -> None:
    path = f"{filled}/documents/metadata"
    before = asked(http, f"{filled}/documents/list", include=["text", "vector"])
    patch = {"by": {"age": None, "from": {"city": "Bath", "no": None}}, "year": None, "tags": ["a", "b"]}
    assert asked(http, path, ids=["harp", "nowhere"], merge=patch) == {"updated": 1, "missing": ["nowhere"]}
    merged = {"by": {"name": "Ada", "from": {"city": "Bath"}}, "tags": ["a", "b"]}
    assert http.get(f"{filled}/documents/harp").json()["metadata"] == merged
    assert searched(http, filled, filter={"by.from.city": "Bath"}) == ["harp"]
    assert searched(http, filled, filter={"year": 2012}) == []

    assert asked(http, path, filter={"year": {"$gte": 2020}}, replace={"null": None}) == {"updated": 2, "missing": []}
    assert sorted(searched(http, filled, filter={"null": None})) == sorted(IDS[1:3])
    assert asked(http, path, all=True, merge={"seen": True}) == {"updated": 4, "missing": []}
    assert asked(http, f"{filled}/documents/count", filter={"seen": True}) == {"count": 4}
    assert asked(http, f"{filled}/documents/list", include=["text", "vector"]) == before
    # What is stored with its present metadata is not embedded again.
    now = everything(http, filled)
    assert asked(http, f"{filled}/documents", documents=now) == {"upserted": 4, "unchanged": 4}


def test_stored_bytes_follow_what_is_stored(http: httpx.Client, filled: str) -> None:
    def expected() -> int:
        documents = everything(http, filled)
        texts = [document["text"] for document in documents]
        texts += [json.dumps(each["metadata"], ensure_ascii=False, separators=(",", ":")) for each in documents]
        return sum(len(text.encode()) for text in texts) + 4 * 384 * len(documents)

    assert http.get(filled).json()["stored_bytes"] == expected()
    asked(http, f"{filled}/documents/metadata", all=True, merge={"a": "é" * 100, "by": {"x": 1}})
    asked(http, f"{filled}/documents", documents=[DOCUMENTS[0] | {"text": "Boats."}])
    asked(http, f"{filled}/documents/delete", ids=["list"])
    assert http.get(filled).json()["stored_bytes"] == expected()


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("list", {"limit": 0}, ["limit", "greater than or equal to 1", "not 0"]),
        ("list", {"limit": 10_001}, ["limit", "10000"]),
        ("list", {"limit": "5"}, ["limit", "integer"]),
        ("list", {"cursor": "nonsense"}, ["cursor is none that a page came with", "begin from the start"]),
        ("list", {"cursor": "é"}, ["cursor is none that a page came with"]),
        ("list", {"cursor": ""}, ["cursor is none that a page came with"]),
        ("list", {"cursor": "A" * 27}, ["cursor is none that a page came with"]),
        ("list", {"cursor": 5}, ["cursor", "string"]),
        ("list", {"filter": {"year": {"$gt": None}}}, ["filter.year.$gt", "number"]),
        ("list", {"include": ["vectors"]}, ["include[0]", "'vector'"]),
        ("list", {"offset": 5}, ["'offset' is not a field here", "limit, cursor, filter, include"]),
        ("count", {"filter": []}, ["filter", "object"]),
        ("count", {"where": {}}, ["'where' is not a field here"]),
        ("get", {}, ["ids", "required"]),
        ("get", {"ids": []}, ["ids is empty"]),
        ("get", {"ids": [1]}, ["ids[0]", "string"]),
        ("get", {"ids": [""]}, ["1 to 512 characters"]),
        ("get", {"ids": ["a\0"]}, ["NUL"]),
        ("delete", {}, ["one of 'ids', 'filter' and 'all'", "none"]),
        ("delete", {"all": False}, ["one of 'ids', 'filter' and 'all'", "none"]),
        ("delete", {"all": None}, ["one of 'ids', 'filter' and 'all'", "none"]),
        ("delete", {"ids": []}, ["ids is empty"]),
        ("delete", {"ids": None}, ["one of 'ids'"]),
        ("delete", {"ids": ["harp"], "all": True}, ["'ids' and 'all'"]),
        ("delete", {"filter": {}}, ["filter has no condition", "every document", "'all'"]),
        ("delete", {"filter": {"$and": [{}, {"$and": [{}]}]}}, ["filter has no condition"]),
        ("delete", {"filter": {"$or": [{"year": 2012}, {}]}}, ["filter has no condition"]),
        ("delete", {"filter": {"year": {"$near": 1}}}, ["unknown operator '$near'"]),
        ("delete", {"ids": ["harp", "a\0"]}, ["NUL"]),
        ("delete", {"id": "harp"}, ["'id' is not a field here", "Did you mean 'ids'?"]),
        ("metadata", {"ids": ["harp"]}, ["one of 'merge' and 'replace'"]),
        ("metadata", {"ids": ["harp"], "merge": {}, "replace": {}}, ["one of 'merge' and 'replace'"]),
        ("metadata", {"merge": {"a": 1}}, ["one of 'ids', 'filter' and 'all'"]),
        ("metadata", {"filter": {}, "merge": {"a": 1}}, ["filter has no condition"]),
        ("metadata", {"all": True, "merge": [1]}, ["merge", "object"]),
        ("metadata", {"all": True, "merge": {"a": "\0"}}, ["merge.a", "NUL"]),
        ("metadata", {"ids": ["é", "harp"], "replace": {"a": {"b": ["\0"]}}}, ["replace.a.b[0]", "NUL"]),
        ("metadata", {"ids": ["nobody"], "merge": {"n": [2**64]}}, ["merge.n[0]", "64 bits", "send it as a string"]),
        ("metadata", {"filter": {"n": "no"}, "replace": {"n": 2**64}}, ["replace.n", "64 bits"]),
        ("list", {"filter": {"$not": {}}}, ["filter.$not is empty"]),
        ("delete", {"filter": {"$not": {}}}, ["filter.$not is empty"]),
        ("delete", {"filter": {"year": {"$nin": []}}}, ["filter has no condition", "empty list", "'all'"]),
        ("delete", {"filter": {"$or": [{"year": 1}, {"year": {"$nin": []}}]}}, ["filter has no condition"]),
        ("delete", {"filter": {"$not": {"year": {"$in": []}}}}, ["filter has no condition"]),
        ("delete", {"filter": {"$not": {"year": {"$in": []}, "n": 1}}}, ["filter has no condition"]),
        ("delete", {"filter": {"$nin": []}}, ["'$nin' belongs under a field"]),
        ("metadata", {"filter": {"a": {"$not": {"$in": []}}}, "merge": {}}, ["filter has no condition"]),
    ],
)
def test_bad_input_changes_nothing(
    http: httpx.Client, kept: str, route: str, body: dict[str, Any], words: list[str]
) -> None:
    problem(http.post(f"{kept}/documents/{route}", json=body), 422, *words)
    assert everything(http, kept) == DOCUMENTS


def test_an_empty_list_matches_none_or_all_where_nothing_is_changed_by_it_alone(
    http: httpx.Client, filled: str
) -> None:
    def counted(condition: dict[str, Any]) -> int:
        return int(http.post(f"{filled}/documents/count", json={"filter": condition}).json()["count"])

    assert counted({"year": {"$nin": []}}) == len(DOCUMENTS)
    assert counted({"year": {"$in": []}}) == 0

    def deleted(condition: dict[str, Any]) -> int:
        return int(http.post(f"{filled}/documents/delete", json={"filter": condition}).json()["deleted"])

    assert deleted({"year": {"$in": []}}) == 0
    wanted = {"year": {"$gte": 2012, "$nin": []}}
    assert deleted(wanted) == sum(each["metadata"].get("year", 0) >= 2012 for each in DOCUMENTS) > 0


def test_what_grows_too_deep_by_merging_is_refused_whole(http: httpx.Client, filled: str) -> None:
    deep: dict[str, Any] = {"leaf": 1}
    for _ in range(64):
        deep = {"by": deep}
    problem(
        http.post(f"{filled}/documents/metadata", json={"all": True, "merge": deep}), 422, "nested deeper than 64"
    )
    assert everything(http, filled) == DOCUMENTS


def test_a_cursor_of_another_collection(http: httpx.Client, filled: str) -> None:
    other = f"/collections/test-{uuid4().hex[:12]}"
    http.put(other)
    asked(http, f"{other}/documents", documents=DOCUMENTS)
    cursor = asked(http, f"{other}/documents/list", limit=1)["cursor"]
    refused = problem(
        http.post(f"{filled}/documents/list", json={"cursor": cursor}), 422, "of another collection", filled[13:]
    )
    assert (refused["code"], refused["where"]) == ("invalid_cursor", "cursor")
    http.delete(other)
    problem(http.post(f"{other}/documents/list", json={"cursor": cursor}), 404, "create it first")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("list", {}),
        ("count", {}),
        ("count", {"filter": {"a": 1}}),
        ("get", {"ids": ["a"]}),
        ("delete", {"all": True}),
        ("metadata", {"all": True, "merge": {}}),
    ],
)
def test_a_collection_that_is_not_there(http: httpx.Client, route: str, body: dict[str, Any]) -> None:
    problem(http.post(f"/collections/nowhere/documents/{route}", json=body), 404, "nowhere", "create it first")


def test_more_ids_than_one_request_takes(http: httpx.Client, filled: str) -> None:
    ids = [str(number) for number in range(16_385)]
    for route in ("get", "delete", "metadata"):
        body = {"ids": ids} | ({"merge": {}} if route == "metadata" else {})
        problem(http.post(f"{filled}/documents/{route}", json=body), 413, "ids holds 16385", "16384")
    assert asked(http, f"{filled}/documents/delete", ids=ids[1:])["deleted"] == 0

"""Requests of several documents of which some are bad: every one is named, or skipped and returned."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.problems import problem

GOOD = {"id": "good", "text": "A man is playing a harp."}
BAD: list[tuple[Any, str | None, str, str]] = [
    ({"id": "long", "text": "word " * 300}, "long", "context_length_exceeded", "302 tokens"),
    ({"id": "none", "text": "\u200b"}, "none", "invalid_input", "no token"),
    ({"id": "empty", "text": ""}, "empty", "invalid_input", "is empty"),
    ({"id": "meta", "text": "a", "metadata": {"n": 2**63}}, "meta", "invalid_document", "64 bits"),
    ({"id": "list", "text": "a", "metadata": [1]}, "list", "invalid_input", "metadata"),
    ({"id": "", "text": "a"}, "", "invalid_document", "1 to 512"),
    ({"id": 7, "text": "a"}, None, "invalid_input", "documents[7].id"),
    ({"id": "bare"}, "bare", "invalid_input", "documents[8].text: this field is required"),
    ({"id": "twice", "text": "one"}, "twice", "invalid_document", "in one request, at documents[9], documents[10];"),
    ({"id": "twice", "text": "other"}, "twice", "invalid_document", "'twice' comes twice in one request"),
    ({"id": "spans", "text": "a", "spans": [[0, 1]]}, "spans", "invalid_input", "has 'spans'"),
    ("a text", None, "invalid_input", "documents[12]: Input should be an object, not 'a text'"),
]
DOCUMENTS = [GOOD, *(bad for bad, *_ in BAD), {"id": "last", "text": "A cat sleeps."}]


def ids(http: httpx.Client, collection: str) -> set[str]:
    found = http.post(f"{collection}/search", json={"vector": [1.0] * 384, "k": 100}).json()
    return {hit["id"] for hit in found["hits"]}


def test_every_bad_document_is_named_and_nothing_is_stored(http: httpx.Client, collection: str) -> None:
    answer = problem(http.post(f"{collection}/documents", json={"documents": DOCUMENTS}), 413, "302 tokens")
    assert answer["where"] == "documents[1].text (id 'long')"
    assert "And 11 others are refused: documents[2].text (id 'none'), " in answer["detail"]
    assert answer["without_tokens"] == [2]
    assert len(answer["errors"]) == len(BAD)
    for (_, _, code, word), error in zip(BAD, answer["errors"], strict=True):
        assert error["code"] == code and word in error["detail"], error
        assert error["where"].startswith("documents[")
    assert ids(http, collection) == set()


def test_good_documents_are_stored_and_bad_ones_returned(http: httpx.Client, collection: str) -> None:
    body = {"documents": DOCUMENTS, "on_error": "skip"}
    answer = http.post(f"{collection}/documents", json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["upserted"], answer.json()["unchanged"]) == (2, 0)
    rejected = answer.json()["rejected"]
    assert [entry["index"] for entry in rejected] == list(range(1, len(BAD) + 1))
    for (_, document_id, code, word), entry in zip(BAD, rejected, strict=True):
        assert (entry["id"], entry["code"]) == (document_id, code)
        assert word in entry["detail"]
    assert ids(http, collection) == {"good", "last"}
    again = http.post(f"{collection}/documents", json=body).json()
    assert (again["upserted"], again["unchanged"], len(again["rejected"])) == (2, 2, len(BAD))


def test_nothing_to_skip_and_nothing_left(http: httpx.Client, collection: str) -> None:
    good = {"documents": [GOOD], "on_error": "skip"}
    assert http.post(f"{collection}/documents", json=good).json() == {"upserted": 1, "unchanged": 0, "rejected": []}
    bad = http.post(
        f"{collection}/documents", json={"documents": [{"id": "e", "text": " "}], "on_error": "skip"}
    ).json()
    assert (bad["upserted"], bad["unchanged"], bad["rejected"][0]["id"]) == (0, 0, "e")
    assert http.post(f"{collection}/documents", json={"documents": [GOOD]}).json() == {"upserted": 1, "unchanged": 1}


def test_one_bad_document_is_told_as_before(http: httpx.Client, collection: str) -> None:
    answer = problem(http.post(f"{collection}/documents", json={"documents": [GOOD, {"id": "x", "text": ""}]}), 422)
    assert answer["detail"] == (
        "documents[1].text (id 'x') is empty, so there is nothing to embed. Leave it out or send a text."
    )
    assert answer["errors"] == [{"where": answer["where"], "code": "invalid_input", "detail": answer["detail"]}]


def test_many_bad_documents_are_listed_up_to_a_hundred(http: httpx.Client, collection: str) -> None:
    documents = [{"id": str(n), "text": ""} for n in range(3000)] + ["no document"] * 3000
    answer = problem(http.post(f"{collection}/documents", json={"documents": documents}), 422, "is empty")
    assert len(answer["errors"]) == 100
    body = {"documents": documents, "on_error": "skip"}
    assert len(http.post(f"{collection}/documents", json=body).json()["rejected"]) == 6000


def test_documents_with_one_id_are_refused_alike(http: httpx.Client, collection: str) -> None:
    """Neither of them is known to be the one that is meant."""
    documents = [{"id": "same", "text": f"text {n}"} for n in range(7)] + [GOOD]
    answer = http.post(f"{collection}/documents", json={"documents": documents, "on_error": "skip"}).json()
    assert (answer["upserted"], [entry["index"] for entry in answer["rejected"]]) == (1, list(range(7)))
    named = ", ".join(f"documents[{n}]" for n in range(5))
    assert {entry["detail"] for entry in answer["rejected"]} == {
        f"document id 'same' comes 7 times in one request, at {named}, ...; send it once."
    }


def test_spans_that_are_wrong_are_named_too(http: httpx.Client) -> None:
    path = "/collections/spans-of-intake"
    http.put(path, json={"chunking": {"by": "given"}}).raise_for_status()
    try:
        documents = [
            {"id": "none", "text": "A harp."},
            {"id": "outside", "text": "A harp.", "spans": [[0, 100]]},
            {"id": "fine", "text": "A harp.", "spans": [[0, 7]]},
            {"id": "empty", "text": "A harp.", "spans": []},
        ]
        answer = problem(http.post(f"{path}/documents", json={"documents": documents}), 422)
        assert [error["where"].partition(" (")[0] for error in answer["errors"]] == [
            "documents[0]",
            "documents[1].text",
            "documents[3].text",
        ]
        kept = http.post(f"{path}/documents", json={"documents": documents, "on_error": "skip"}).json()
        assert [entry["id"] for entry in kept["rejected"]] == ["none", "outside", "empty"]
        assert http.get(path).json()["count"] == 1
    finally:
        http.delete(path)


@pytest.mark.parametrize("value", ["ignore", True])
def test_on_error_is_fail_or_skip(http: httpx.Client, collection: str, value: object) -> None:
    problem(
        http.post(f"{collection}/documents", json={"documents": [GOOD], "on_error": value}), 422, "'fail' or 'skip'"
    )

"""Whole collections as JSON lines, and stored again from them."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.problems import problem
from tests.support.servers import Server

TEXTS = {"harp": "A man is playing a harp.", "cat": "A cat sleeps\u2028in the sun.", "dough": "She kneads dough."}


def export(http: httpx.Client, path: str, **asked: Any) -> list[dict[str, Any]]:
    answer = http.get(f"{path}/export", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.decode().split("\n")[:-1]]


def test_documents_in_the_order_of_storing(http: httpx.Client, collection: str) -> None:
    assert export(http, collection) == []
    documents = [{"id": key, "text": text, "metadata": {"n": [1, 2.5, None]}} for key, text in TEXTS.items()]
    http.post(f"{collection}/documents", json={"documents": documents}).raise_for_status()
    assert export(http, collection) == documents


def test_one_that_comes_too_late_is_answered(http: httpx.Client, collection: str) -> None:
    for _ in range(20):
        answer = http.get(f"{collection}/export", headers={"x-request-timeout": "1e-300"})
        assert problem(answer, 504, "X-Request-Timeout")["code"] == "deadline_exceeded"


def test_with_vectors_nothing_is_embedded_again(http: httpx.Client, collection: str) -> None:
    documents = [{"id": key, "text": text} for key, text in TEXTS.items()]
    http.post(f"{collection}/documents", json={"documents": documents}).raise_for_status()
    lines = export(http, collection, include="vectors")
    about = http.get(collection).json()
    vectors = np.array([line["vector"] for line in lines], np.float32)
    made = np.array(http.post("/embed", json={"inputs": [*TEXTS.values()]}).json(), np.float32)
    np.testing.assert_allclose(vectors, made, atol=1e-5)
    assert {line["fingerprint"] for line in lines} == {about["fingerprint"]}
    copy = f"{collection}-copy"
    http.put(copy).raise_for_status()
    # Vectors that no text here has show that they are stored as they come.
    other = [line | {"vector": lines[number - 1]["vector"]} for number, line in enumerate(lines)]
    assert http.post(f"{copy}/documents", json={"documents": other}).json() == {"upserted": 3, "unchanged": 0}
    assert export(http, copy, include="vectors") == other
    assert http.get(copy).json()["precisions"] == []
    http.delete(copy)


def test_a_chunked_collection(http: httpx.Client) -> None:
    path, copy = "/collections/export-chunked", "/collections/export-chunked-copy"
    for each in (path, copy):
        http.put(each, json={"chunking": {"by": "sentence"}}).raise_for_status()
    document = {"id": "x", "text": "A harp. A cat sleeps.", "metadata": {}}
    http.post(f"{path}/documents", json={"documents": [document]}).raise_for_status()
    assert export(http, path) == [document]
    lines = export(http, path, include="vectors")
    assert (lines[0]["spans"], len(lines[0]["vectors"])) == ([[0, 7], [8, 21]], 2)
    http.post(f"{copy}/documents", json={"documents": lines}).raise_for_status()
    assert export(http, copy, include="vectors") == lines
    for each in (path, copy):
        http.delete(each)


def test_errors(http: httpx.Client, collection: str) -> None:
    problem(http.get("/collections/none/export"), 404, "create it")
    problem(http.get(f"{collection}/export", params={"include": "text"}), 422, "include", "'vectors'")


@pytest.mark.slow
def test_one_moment_and_clients_that_leave(side_by_side: Server, collection: str) -> None:
    """What is stored while an export runs is not in it, and a client that leaves holds nothing up."""
    http = side_by_side.http
    numbers = [{"id": str(n), "vector": [float(n + 1)] * 256, "text": "x" * 2000} for n in range(3000)]
    path = f"{collection}-foreign"
    http.put(path, json={"dimension": 256}).raise_for_status()
    try:
        http.post(f"{path}/documents", json={"documents": numbers}).raise_for_status()
        with http.stream("GET", f"{path}/export", params={"include": "vectors"}) as answer:
            parts = answer.iter_bytes()
            content = [next(parts)]
            more = threading.Thread(
                target=lambda: httpx.post(
                    f"{side_by_side.url}{path}/documents",
                    json={"documents": [{"id": "late", "vector": [1.0] * 256}, numbers[0] | {"text": "changed"}]},
                )
            )
            more.start()
            more.join()
            content += parts
        lines = [json.loads(line) for line in b"".join(content).splitlines()]
        assert [line["id"] for line in lines] == [line["id"] for line in numbers]
        assert lines[0]["text"] == numbers[0]["text"]
        for _ in range(20):
            with http.stream("GET", f"{path}/export") as answer:
                next(answer.iter_bytes())
        assert len(export(http, path)) == 3001
    finally:
        http.delete(path)
    assert http.get("/ready").status_code == 200


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_running_service_compacts_its_store(http: httpx.Client, collection: str, rebuild: bool) -> None:
    path = f"{collection}-space"
    http.put(path, json={"dimension": 8}).raise_for_status()
    documents = [{"id": str(n), "vector": [1.0] * 8, "text": "x" * 2000} for n in range(1000)]
    http.post(f"{path}/documents", json={"documents": documents}).raise_for_status()
    http.delete(path)
    answer = http.post("/compact", json={"rebuild": rebuild}).json()
    assert answer["bytes_before"] > answer["bytes"] + 1_500_000
    assert answer["bytes_free"] == 0
    problem(http.post("/compact", json={"rebuild": "yes"}), 422, "rebuild")

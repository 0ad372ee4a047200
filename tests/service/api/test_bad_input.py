"""What cannot be served is refused with a remedy, and the service goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.errors import speaks_openai
from tests.support.problems import openai_problem, problem, well_formed
from tests.support.servers import Server

JSON = {"content-type": "application/json"}
UNIT = [1.0] + [0.0] * 383


@pytest.fixture(autouse=True)
def _unharmed(http: httpx.Client, collection: str) -> Iterator[None]:
    """After each test the service answers and has stored nothing new."""
    before = http.get("/collections").json()
    yield
    assert http.get("/ready").status_code == 200
    assert http.get("/collections").json() == before


def refused(http: httpx.Client, path: str, body: Any, status: int, *words: str) -> dict[str, Any]:
    return problem(http.post(path, json=body), status, *words)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("", ["inputs is empty", "send a text"]),
        (" \n\t\u3000", ["inputs has nothing but white space", "send a text"]),
        ("\u200b\u200b", ["inputs has no token", "Send a text with words"]),
        ([], ["inputs is empty; send at least one"]),
        (["fine", ""], ["inputs[1] is empty"]),
        (["fine", " "], ["inputs[1]", "white space"]),
        (["fine", None], ["inputs[1]", "string", "not None"]),
        ([["nested"]], ["inputs[0]", "string"]),
        ({"text": "a"}, ["inputs", "string", "list"]),
        (None, ["inputs", "required"]),
        (7, ["inputs", "string", "not 7"]),
    ],
)
@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
def test_inputs(http: httpx.Client, path: str, inputs: Any, words: list[str]) -> None:
    refused(http, path, {"inputs": inputs}, 422, *words)


@pytest.mark.parametrize("path", ["/embed", "/embed_all", "/embed_spans", "/tokenize", "/similarity"])
def test_a_text_of_more_characters_than_are_read(http: httpx.Client, path: str) -> None:
    long = "wheel " * 200_000
    bodies = {
        "/embed_spans": {"inputs": [long], "spans": {"by": "sentence"}, "truncate": True},
        "/similarity": {"inputs": {"source_sentence": "a", "sentences": [long]}},
    }
    body = bodies.get(path, {"inputs": [long]})
    refused(http, path, body, 413, "has 1200000 characters, and up to 1000000 of a text are read", "beginning")


def test_of_a_longer_text_that_is_cut_the_beginning_is_read(http: httpx.Client) -> None:
    long = "wheel " * 200_000
    response = http.post("/embed", json={"inputs": [long, long[:6_000]], "truncate": True}).raise_for_status()
    one, other = response.json()
    assert one == other and response.headers["x-truncated"] == "2"
    left = {"inputs": long, "truncate": True, "truncation_direction": "Left"}
    refused(http, "/embed", left, 413, "up to 1000000 of a text are read")
    blank = {"inputs": " " * 1_000_000 + "wheel", "truncate": True}
    refused(http, "/embed", blank, 413, "has 1000005 characters")


def test_more_texts_than_one_request_takes(http: httpx.Client) -> None:
    many = ["a"] * 100_000
    assert refused(http, "/embed", {"inputs": many}, 413, "100000", "16384", "in parts")["limit"] == 16384
    answer = http.post("/v1/embeddings", json={"model": "mean", "input": many})
    openai_problem(answer, 413, "100000", "16384", "in parts")


def test_a_million_wrong_items_are_one_error(http: httpx.Client) -> None:
    body = json.dumps({"inputs": [None] * 1_000_000})
    answer = http.post("/embed", content=body, headers=JSON)
    problem(answer, 422, "inputs[0]")
    assert len(answer.content) < 2000


@pytest.mark.parametrize("field", ["model", "pooling", "prompt_name", "truncation_direction", "x" * 1_000_000])
def test_no_error_repeats_a_megabyte(http: httpx.Client, field: str) -> None:
    answer = http.post("/embed", json={"inputs": "a", field: "y" * 1_000_000})
    well_formed(answer)
    assert 400 <= answer.status_code < 500 and len(answer.content) < 5000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", ["JSON", "unexpected end", "character 1"]),
        (b"inputs=a", ["JSON"]),
        (b"{'inputs': 'a'}", ["JSON", "character 1"]),
        (b'{"inputs": "caf\xe9"}', ["UTF-8", "byte 15"]),
        ('{"inputs": "a"}'.encode("utf-16"), ["UTF-8", "byte 0"]),
        (b'{"inputs": "\\ud800"}', ["JSON", "surrogate"]),
        (b'{"inputs": "\xed\xa0\x80"}', ["UTF-8", "byte 12"]),
        (b'{"inputs": "a", "dimensions": NaN}', ["JSON", "character 30"]),
        (b'{"inputs": "a", "dimensions": -Infinity}', ["JSON"]),
        (b'{"inputs": "a",}', ["JSON"]),
        (b'{"inputs": ' + b"[" * 100_000, ["JSON"]),
        (b'{"inputs": ' + b"[" * 1000 + b"]" * 1000 + b"}", ["nested deeper than 100 levels"]),
        (b'{"inputs": "a", "pooling": ' + b"[" * 990 + b'"mean"' + b"]" * 990 + b"}", ["nested deeper than 100"]),
        (b'{"inputs": "a", "pooling": ' + b"[" * 100 + b'"mean"' + b"]" * 100 + b"}", ["nested deeper than 100"]),
        (b'{"a":' * 900 + b"1" + b"}" * 900, ["nested deeper than 100 levels"]),
        (b'{"inputs": "' + b"a" * 300_000 + b'",}', ["JSON", "character"]),
        (b'{"a": [' + b"1," * 200_000 + b"[" * 99 + b"]" * 100 + b"}", ["nested deeper than 100 levels"]),
    ],
)
def test_bodies_that_are_no_json(http: httpx.Client, body: bytes, words: list[str]) -> None:
    answer = problem(http.post("/embed", content=body, headers=JSON), 400, *words)
    assert answer["type"] == "urn:millpond:invalid-json"
    openai_problem(http.post("/v1/embeddings", content=body, headers=JSON), 400, *words)


def test_as_many_levels_as_are_taken(http: httpx.Client) -> None:
    body = b'{"inputs": "a", "pooling": ' + b"[" * 99 + b'"mean"' + b"]" * 99 + b"}"
    assert http.post("/embed", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("body", [b"null", b"7", b"[]", b'"a"', b"true"])
def test_bodies_that_are_no_object(http: httpx.Client, body: bytes) -> None:
    problem(http.post("/embed", content=body, headers=JSON), 422, "JSON object")
    openai_problem(http.post("/v1/embeddings", content=body, headers=JSON), 400, "JSON object")


def test_no_body_and_the_wrong_content_type(http: httpx.Client) -> None:
    problem(http.post("/embed"), 422, "needs a JSON object")
    problem(http.post("/embed", headers=JSON), 422, "needs a JSON object")
    for more in (
        {"content": b'{"inputs": "a"}'},
        {"content": b'{"inputs": "a"}', "headers": {"content-type": "text/plain"}},
        {"data": {"inputs": "a"}},
        {"files": {"inputs": b"a"}},
    ):
        problem(http.post("/embed", **more), 422, "content-type: application/json")
    for sort in ("application/json; charset=utf-8", "application/vnd.api+json"):
        assert http.post("/embed", content=b'{"inputs": "a"}', headers={"content-type": sort}).status_code == 200


@pytest.mark.slow
def test_a_full_queue_says_when_to_come_back(small: Server) -> None:
    texts = ["word " * 200] * 10  # each request counts for a quarter of the queue

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{small.url}/embed", json={"inputs": texts}, timeout=60)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    served = [answer for answer in answers if answer.status_code == 200]
    full = [answer for answer in answers if answer.status_code != 200]
    assert len(served) >= 4 and full
    for answer in served:
        np.testing.assert_allclose(answer.json(), [served[0].json()[0]] * 10, atol=1e-5)
    for answer in full:
        body = problem(answer, 503, "queue is full", "batching.max_queued_tokens", "again")
        assert body["error_type"] == "Overloaded"
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"model": "men"}, 404, ["'men'", "'mean'", "Did you mean 'mean'"]),
        ({"model": ""}, 404, ["no model is named ''"]),
        ({"poolng": "cls"}, 422, ["'poolng'", "Did you mean 'pooling'"]),
        ({"dimensions": 0}, 422, ["1 to 384", "not 0"]),
        ({"dimensions": -1}, 422, ["1 to 384"]),
        ({"dimensions": 385}, 422, ["1 to 384"]),
        ({"dimensions": 10**30}, 422, ["dimensions", "from 1 to 384"]),
        ({"dimensions": 2**63 - 1}, 422, ["1 to 384"]),
        ({"dimensions": 1e300}, 422, ["dimensions", "integer"]),
        ({"dimensions": 1.5}, 422, ["dimensions", "integer"]),
        ({"dimensions": "7"}, 422, ["dimensions", "integer"]),
        ({"dimensions": True}, 422, ["dimensions", "integer"]),
        ({"normalize": "yes"}, 422, ["normalize", "boolean"]),
        ({"truncate": 1}, 422, ["truncate", "boolean"]),
        ({"truncation_direction": "up"}, 422, ["'left', 'right'", "not 'up'"]),
        ({"prompt_name": "query"}, 422, ["no prompt 'query'"]),
        ({"prompt_name": 5}, 422, ["prompt_name", "string"]),
    ],
)
def test_options(http: httpx.Client, more: dict[str, Any], status: int, words: list[str]) -> None:
    refused(http, "/embed", {"inputs": "a", **more}, status, *words)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("men", ["did you mean 'mean'", "known: cls, mean"]),
        ("", ["write it as 'mean'"]),
        ("   ", ["write it as 'mean'"]),
        ("mean" * 1000, ["at most 1000 characters"]),
        ("mean + " * 100_000 + "mean", ["characters"]),
        (" + ".join(["mean"] * 60), ["1 to 32"]),
        ("__import__('os').system('true')", ["write it as 'mean'"]),
        ("__import__('os')", ["unknown pooling '__import__'"]),
        ("gem(p=__import__('os'))", ["plain value"]),
        ("(lambda: 0)()", ["write it as 'mean'"]),
        ("multihead_attention(heads=1000000000)", ["heads", "1 to 64"]),
        ("multihead_attention(heads=4)", ["learned", "weights: path/to/pooler"]),
        ("attention", ["learned", "weights: path/to/pooler"]),
        ("mean + gated", ["learned"]),
        ("gem(p=0)", ["0.01 to 100"]),
        ("gem(p=1e400)", ["0.01 to 100"]),
        ("gem(q=3)", ["no option 'q'", "p=3.0"]),
        ("gem(p=3, p=4)", ["write it as 'mean'"]),
        ("window(size=8, stride=4)", ["> mean"]),
        ("window(size=99999999999999999999, stride=1) > mean", ["whole number"]),
        ("(" * 400 + "mean" + ")" * 400, ["write it as 'mean'"]),
        ("mean\0", ["write it as 'mean'"]),
        ("mean; mean", ["write it as 'mean'"]),
        ([], ["1 to 32"]),
        ([["mean"] * 32] * 32, ["1 to 32"]),
        (["mean", 5], ["a string, a list, or a mapping"]),
        ({}, ["mapping with 'strategy'"]),
        ({"strategy": 5}, ["mapping with 'strategy'"]),
        ({"strategy": "mean", "weights": "/etc/hostname"}, ["no option 'weights'"]),
        ({"strategy": "mean", "dim": 5}, ["dimension"]),
        ({"strategy": "x" * 100_000}, ["characters"]),
        (5, ["pooling", "not 5"]),
    ],
)
def test_hostile_poolings(http: httpx.Client, spec: Any, words: list[str]) -> None:
    body = refused(http, "/embed", {"inputs": "a", "pooling": spec}, 422, *words)
    assert body["where"] == "pooling"
    answer = http.post("/v1/embeddings", json={"model": "mean", "input": "a", "pooling": spec})
    openai_problem(answer, 400, *words)
    problem(http.put("/collections/hostile", json={"pooling": spec}), 422, *words)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 422, ["give one of 'query', 'queries' and 'vector'", "none"]),
        ({"query": "a", "vector": UNIT}, 422, ["give one of", "'query' and 'vector'"]),
        ({"query": ""}, 422, ["query is empty"]),
        ({"query": " "}, 422, ["white space"]),
        ({"queries": []}, 422, ["queries is empty"]),
        ({"queries": ["a", ""]}, 422, ["queries[1] is empty"]),
        ({"queries": ["a"] * 20_000}, 413, ["20000", "16384"]),
        ({"queries": ["a"] * 200, "k": 10_000}, 413, ["2000000 hits", "1000000", "smaller k"]),
        ({"query": "word " * 300}, 413, ["302", "256", "truncate"]),
        ({"vector": []}, 422, ["0 dimensions", "384"]),
        ({"vector": [1.0] * 385}, 422, ["385 dimensions", "384"]),
        ({"vector": [0.0] * 384}, 422, ["all zeros"]),
        ({"vector": [1e300] * 384}, 422, ["beyond float32"]),
        ({"vector": [1e-300] * 384}, 422, ["all zeros"]),
        ({"vector": ["1.0"] * 384}, 422, ["vector[0]", "number"]),
        ({"vector": [None] * 384}, 422, ["vector[0]", "number"]),
        ({"vector": UNIT, "k": 0}, 422, ["k", "greater than or equal to 1"]),
        ({"vector": UNIT, "k": -1}, 422, ["k", "greater than or equal to 1"]),
        ({"vector": UNIT, "k": 10_001}, 422, ["k", "less than or equal to 10000"]),
        ({"vector": UNIT, "k": 1.5}, 422, ["k", "integer"]),
        ({"vector": UNIT, "k": "3"}, 422, ["k", "integer"]),
        ({"vector": UNIT, "include": ["vectors"]}, 422, ["include[0]", "'text', 'metadata', 'span' or 'vector'"]),
        ({"vector": UNIT, "limit": 3}, 422, ["'limit' is not a field", "Fields are"]),
        ({"vector": UNIT, "fliter": {}}, 422, ["Did you mean 'filter'"]),
        ({"vector": UNIT, "filter": {"year": {"$gtee": 1}}}, 422, ["$gtee", "Did you mean '$gte'", "$exists"]),
        ({"vector": UNIT, "filter": {"$nand": []}}, 422, ["$nand", "$and"]),
        ({"vector": UNIT, "filter": {"year": {"$in": 5}}}, 422, ["filter.year.$in", "list"]),
        ({"vector": UNIT, "filter": {"year": {}}}, 422, ["filter.year", "no operator"]),
        ({"vector": UNIT, "filter": {"year": [1]}}, 422, ["$in"]),
        ({"vector": UNIT, "filter": {"year": {"gt": 1}}}, 422, ["'gt', which is no operator", "Did you mean '$gt'?"]),
        ({"vector": UNIT, "filter": {"by": {"name": 1}}}, 422, ["written with a dot, as in 'author.name'."]),
        ({"vector": UNIT, "filter": {"$not": {}}}, 422, ["filter.$not is empty", '{"$not": {"lang": "en"}}']),
        ({"vector": UNIT, "filter": {"a\\b": 1}}, 422, ["backslash"]),
        ({"vector": UNIT, "filter": {"n": 2**63}}, 422, ["64 bits"]),
        ({"vector": UNIT, "filter": []}, 422, ["filter", "object"]),
    ],
)
def test_searches(http: httpx.Client, collection: str, asked: dict[str, Any], status: int, words: list[str]) -> None:
    refused(http, f"{collection}/search", asked, status, *words)


def test_filters_nested_too_deeply(http: httpx.Client, collection: str) -> None:
    condition: dict[str, Any] = {"a": 1}
    for _ in range(60):
        condition = {"$not": condition}
    refused(http, f"{collection}/search", {"query": "a", "filter": condition}, 422, "flatten")


@pytest.mark.parametrize("name", ["-a", "_a", ".a", "a b", "%20", "ä", "a%0A", "%00", "a:b", "x" * 129, "%FF"])
def test_collection_names(http: httpx.Client, name: str) -> None:
    problem(http.put(f"/collections/{name}"), 422, "1 to 128", "begins with a letter or a digit")


def test_collections_that_cannot_be(http: httpx.Client) -> None:
    for body, status, word in (
        ({"index": "hnws"}, 422, "known: auto, flat, hnsw"),
        ({"index": "flat", "recall": 0.9}, 422, "takes no recall"),
        ({"chunking": [1]}, 422, "chunking: Input should be an object, not [1]"),
        ({"recall": 1.5}, 422, "0.5 to 0.999"),
        ({"recall": "high"}, 422, "recall"),
        ({"model": "men"}, 404, "Did you mean 'mean'"),
        ({"modle": "mean"}, 422, "Did you mean 'model'"),
        ({"pooling": 5}, 422, "pooling"),
        ([], 422, "JSON object"),
    ):
        problem(http.put("/collections/never", json=body), status, word)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/", 405),
        ("GET", "/embeddings", 405),
        ("GET", "/rerank", 405),
        ("POST", "/collections", 405),
        ("GET", "/embed", 405),
        ("DELETE", "/embed", 405),
        ("PATCH", "/collections/a", 405),
        ("GET", "/collections/a/search", 405),
        ("GET", "/collections/a/b", 404),
        ("POST", "/collections/a/b", 404),
        ("GET", "/collections/none", 404),
        ("DELETE", "/collections/none", 404),
        ("GET", "/collections/none/documents/1", 404),
        ("DELETE", "/collections/none/documents/1", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/models/none", 404),
    ],
)
def test_unknown_routes_and_methods(http: httpx.Client, method: str, path: str, status: int) -> None:
    check = openai_problem if speaks_openai(path) else problem
    check(http.request(method, path), status)


@pytest.mark.parametrize("path", ["/collections/none/search", "/collections/none/documents"])
def test_asking_a_collection_that_is_not_there(http: httpx.Client, path: str) -> None:
    body = {"query": "a"} if path.endswith("search") else {"documents": [{"id": "1", "text": "a"}]}
    refused(http, path, body, 404, "'none'", "create it first")

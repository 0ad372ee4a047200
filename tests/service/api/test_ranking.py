"""Keyword and hybrid searches, thresholds, diversity, vectors and recommendations over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.support.problems import problem
from tests.support.servers import Server

DOCUMENTS = [
    {"id": "harp", "text": "A man is playing a harp.", "metadata": {"n": 1}},
    {"id": "piano", "text": "A woman plays the piano.", "metadata": {"n": 2}},
    {"id": "cat", "text": "A cat sleeps in the sun.", "metadata": {"n": 3}},
    {"id": "code", "text": "Error E4711: the valve is stuck.", "metadata": {"n": 4}},
    {"id": "ja", "text": "東京大学に行く猫", "metadata": {"n": 5}},
]


@pytest.fixture(scope="module")
def documents(side_by_side: Server) -> str:
    """The path of a collection with some documents, which no test changes."""
    path = f"/collections/test-{uuid4().hex[:12]}"
    side_by_side.http.put(path).raise_for_status()
    side_by_side.http.post(f"{path}/documents", json={"documents": DOCUMENTS}).raise_for_status()
    return path


def answer(http: httpx.Client, path: str, route: str = "search", **asked: Any) -> dict[str, Any]:
    response = http.post(f"{path}/{route}", json=asked)
    assert response.status_code == 200, response.text[:500]
    return response.json()


def test_keyword(http: httpx.Client, documents: str) -> None:
    hits = answer(http, documents, query="e4711 VALVE", mode="keyword")["hits"]
    assert [hit["id"] for hit in hits] == ["code"]
    assert hits[0]["parts"] == {"keyword": {"rank": 1, "score": hits[0]["score"]}}
    assert hits[0]["text"] == "Error E4711: the valve is stuck."
    results = answer(http, documents, queries=["猫", "a the", "\u2603"], mode="keyword", k=3)["results"]
    assert [[hit["id"] for hit in result["hits"]] for result in results][::2] == [["ja"], []]
    assert len(results[1]["hits"]) == 3
    assert answer(http, documents, query="cat", mode="keyword", filter={"n": {"$gt": 3}}) == {"hits": []}
    assert answer(http, documents, query='cat" OR NEAR(', mode="keyword")["hits"][0]["id"] == "cat"


def test_hybrid(http: httpx.Client, documents: str) -> None:
    query = "piano E4711"
    dense = answer(http, documents, query=query)["hits"]
    hits = answer(http, documents, query=query, mode="hybrid", include=[])["hits"]
    assert {hit["id"] for hit in hits[:2]} == {"piano", "code"}
    for hit in hits:
        ranks = {name: part["rank"] for name, part in hit["parts"].items()}
        assert dense[ranks["dense"] - 1]["id"] == hit["id"]
        assert hit["score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks.values()))
    weighted = answer(http, documents, query=query, mode="hybrid", weights={"dense": 0})["hits"]
    assert {hit["id"] for hit in weighted} == {"piano", "code"}
    vector = http.post("/embed", json={"inputs": query}).json()[0]
    by_vector = answer(http, documents, query=query, vector=vector, mode="hybrid", include=[])["hits"]
    assert [hit["id"] for hit in by_vector] == [hit["id"] for hit in hits]
    results = answer(http, documents, queries=[query, "cat"], mode="hybrid", include=[])["results"]
    assert results[0]["hits"] == hits


def test_vectors_threshold_and_diversity(http: httpx.Client, documents: str) -> None:
    found = answer(http, documents, query="music", include=["vector"])
    query = np.array(found["vector"])
    np.testing.assert_allclose(query, http.post("/embed", json={"inputs": "music"}).json()[0], atol=1e-5)
    vectors = np.array([hit["vector"] for hit in found["hits"]])
    np.testing.assert_allclose(vectors @ query, [hit["score"] for hit in found["hits"]], atol=1e-5)
    kept = answer(http, documents, query="music", include=[], score_threshold=found["hits"][1]["score"])["hits"]
    assert [hit["id"] for hit in kept] == [hit["id"] for hit in found["hits"][:2]]
    assert answer(http, documents, query="cat", mode="keyword", include=["vector"]).keys() == {"hits"}

    for mode in ("dense", "hybrid"):
        first, *others = answer(http, documents, query="music", mode=mode, include=["vector"], diversity=1)["hits"]
        assert first["id"] == found["hits"][0]["id"]
        nearness = [np.dot(hit["vector"], first["vector"]) for hit in others]
        assert nearness[0] == min(nearness)


def test_recommend(http: httpx.Client, documents: str) -> None:
    hits = answer(http, documents, "recommend", positive=["harp"])["hits"]
    assert (hits[0]["id"], len(hits)) == ("piano", 4)
    found = answer(http, documents, "recommend", positive=["harp"], negative=["piano"], k=2, include=["vector"])
    assert not {"harp", "piano"} & {hit["id"] for hit in found["hits"]}
    harp, piano = http.post("/embed", json={"inputs": [item["text"] for item in DOCUMENTS[:2]]}).json()
    np.testing.assert_allclose(found["vector"], 2 * np.array(harp) - np.array(piano), atol=1e-5)
    only = answer(http, documents, "recommend", positive=["cat"], filter={"n": {"$lt": 3}}, score_threshold=-1)[
        "hits"
    ]
    assert {hit["id"] for hit in only} == {"harp", "piano"}
    problem(http.post(f"{documents}/recommend", json={"positive": ["nope"]}), 404, "'nope'")


def test_the_tokenizer_is_chosen_at_creation(http: httpx.Client) -> None:
    path = f"/collections/test-{uuid4().hex[:12]}"
    assert http.put(path, json={"keyword": {"tokenizer": "trigram"}}).json()["keyword"] == {"tokenizer": "trigram"}
    assert http.put(path).status_code == 200
    problem(http.put(path, json={"keyword": {}}), 409, '"trigram"', '"unicode61"')
    http.post(f"{path}/documents", json={"documents": DOCUMENTS}).raise_for_status()
    assert answer(http, path, query="711", mode="keyword")["hits"][0]["id"] == "code"
    short = http.post(f"{path}/search", json={"queries": ["valve", "47"], "mode": "keyword"})
    assert problem(short, 422, "three characters", "queries[1]")["place"] == {"field": "queries", "index": 1}
    http.delete(path)
    assert "keyword" not in http.put(path, json={"keyword": None}).json()
    for mode in ("keyword", "hybrid"):
        without = http.post(f"{path}/search", json={"query": "valve", "mode": mode})
        assert problem(without, 409, "without a keyword index")["code"] == "keywords_unavailable"
    http.delete(path)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"query": "a", "mode": "words"}, 422, ["mode", "'hybrid'"]),
        ({"vector": [1.0] * 384, "mode": "keyword"}, 422, ["give 'query' or 'queries'"]),
        ({"vector": [1.0] * 384, "mode": "hybrid"}, 422, ["give 'query' beside 'vector'"]),
        ({"query": "a", "vector": [1.0] * 384}, 422, ["one of 'query', 'queries' and 'vector'"]),
        ({"query": "a", "vector": [1.0], "mode": "hybrid"}, 422, ["1 dimensions"]),
        ({"query": "a", "weights": {"dense": 1}}, 422, ["mode 'hybrid'"]),
        ({"query": "a", "mode": "hybrid", "weights": {"dense": 0, "keyword": 0}}, 422, ["above 0"]),
        ({"query": "a", "mode": "hybrid", "weights": {"dense": -1}}, 422, ["weights.dense"]),
        ({"query": "a", "mode": "hybrid", "weights": {"sparse": 1}}, 422, ["weights.sparse", "dense, keyword"]),
        ({"query": "a", "diversity": 1.1}, 422, ["diversity"]),
        ({"query": "a", "diversity": 0.5, "k": 1001}, 413, ["1000", "lower k"]),
        ({"query": "a", "score_threshold": "high"}, 422, ["score_threshold"]),
        ({"query": " ".join(map(str, range(1025))), "mode": "keyword"}, 413, ["1025 different words", "truncate"]),
        ({"positive": []}, 422, ["positive"]),
        ({"positive": ["a"], "negative": ["a"]}, 422, ["'a'", "leave one"]),
        ({"positive": ["a\0"]}, 422, ["NUL"]),
    ],
)
def test_mistakes(http: httpx.Client, documents: str, asked: dict[str, Any], status: int, words: list[str]) -> None:
    route = "recommend" if "positive" in asked else "search"
    problem(http.post(f"{documents}/{route}", json=asked), status, *words)


def test_vectors_of_one_answer_are_limited(http: httpx.Client, collection: str) -> None:
    documents = [{"id": str(number), "text": f"text {number}"} for number in range(10)]
    http.post(f"{collection}/documents", json={"documents": documents}).raise_for_status()
    body = {"queries": ["a"] * 4400, "k": 10, "include": ["vector"]}
    answer = problem(http.post(f"{collection}/search", json=body), 413, "16777216 numbers", "Ask for 9 hits each")
    assert answer["place"] == {"field": "k"} and answer["limit"] == 1 << 24

"""Searches whose best hits are scored anew, beside what sentence-transformers' token embeddings give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

from service.access import digest
from service.config import Config
from service.deployment import Deployment, open_deployment
from tests.support import checkpoints, classifiers
from tests.support.applications import application, ask
from tests.support.classifiers import bert_classifier, cross_encoder
from tests.support.problems import problem

WORDS = [
    *("mill", "pond", "wheel", "water", "grain", "miller"),
    *("evening", "river", "bridge", "slowly", "faster", "still"),
]
TEXTS = [
    *checkpoints.TEXTS,
    *(f"{WORDS[at]} and {WORDS[at + 1]} by the {WORDS[at + 2]}." for at in range(0, 12, 3)),
    "The wheel of the mill turns faster in the evening. " * 12,
]
DOCUMENTS = [{"id": f"d{at}", "text": text, "metadata": {"n": at}} for at, text in enumerate(TEXTS)]
QUERIES = ["the wheel turns", "What does the miller do?", "water in the river"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with prompts."""
    made = tmp_path_factory.mktemp("reranked")
    prompts = {"query": "query: ", "document": "passage: "}
    return checkpoints.sentence_transformer(
        checkpoints.plain_bert(made / "plain"), made / "model", prompts=prompts, default_prompt_name=None
    )


@pytest.fixture(scope="module")
def rerankers(folder: Path) -> dict[str, Path]:
    return {
        "quality": cross_encoder(bert_classifier(folder.parent / "one"), folder.parent / "quality"),
        "labels": bert_classifier(folder.parent / "three", num_labels=3),
    }


@pytest.fixture(scope="module")
def served(folder: Path, rerankers: dict[str, Path]) -> Iterator[Deployment]:
    config = {
        "models": {"default": {"encoder": str(folder)}},
        "rerankers": {name: {"encoder": str(of)} for name, of in rerankers.items()},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "store": {"path": str(folder.parent / "store")},
    }
    with open_deployment(Config.model_validate(config)) as served:
        yield served


@pytest.fixture(scope="module")
def app(served: Deployment) -> FastAPI:
    return application(served)


@pytest.fixture(scope="module")
def model(folder: Path) -> SentenceTransformer:
    return checkpoints.reference(folder)


def made(app: FastAPI, documents: Sequence[dict[str, Any]], **about: Any) -> str:
    path = f"/collections/reranked-{uuid4().hex[:12]}"
    assert ask(app, "PUT", path, json=about).status_code == 201
    stored = ask(app, "POST", f"{path}/documents", json={"documents": documents, "truncate": True})
    assert stored.status_code == 200, stored.text
    return path


@pytest.fixture(scope="module")
def collection(app: FastAPI) -> Iterator[str]:
    path = made(app, DOCUMENTS)
    yield path
    ask(app, "DELETE", path)


def search(app: FastAPI, path: str, **body: Any) -> dict[str, Any]:
    answer = ask(app, "POST", f"{path}/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def states(model: SentenceTransformer, text: str, role: str) -> np.ndarray:
    """The unit states of a text's own tokens: behind the prompt and before the last special token."""
    prompt = model.prompts[role]
    found = model.encode(text, prompt=prompt, output_value="token_embeddings", show_progress_bar=False)
    own = np.asarray(found)[len(model.tokenizer(prompt)["input_ids"]) - 1 : -1]
    unit: np.ndarray = own / np.linalg.norm(own, axis=1, keepdims=True)
    return unit


def by_hand(model: SentenceTransformer, query: str, texts: Sequence[str]) -> np.ndarray:
    asked = states(model, query, "query")
    return np.array([(asked @ states(model, text, "document").T).max(axis=1).mean() for text in texts])


@pytest.mark.parametrize("mode", ["dense", "keyword", "hybrid"])
def test_the_order_is_that_of_all_pairs_of_tokens(
    app: FastAPI, model: SentenceTransformer, collection: str, mode: str
) -> None:
    first = search(app, collection, queries=QUERIES, mode=mode, k=6)["results"]
    again = search(app, collection, queries=QUERIES, mode=mode, k=4, rerank={"by": "maxsim", "depth": 6})["results"]
    for query, before, after in zip(QUERIES, first, again, strict=True):
        assert len(before["hits"]) > 1
        scores = by_hand(model, query, [hit["text"] for hit in before["hits"]])
        order = np.argsort(-scores)[:4]
        assert [hit["id"] for hit in after["hits"]] == [before["hits"][at]["id"] for at in order]
        np.testing.assert_allclose([hit["score"] for hit in after["hits"]], scores[order], atol=1e-5)
        for at, hit in zip(order.tolist(), after["hits"], strict=True):
            was = before["hits"][at]
            assert hit["parts"] == was.get("parts", {}) | {mode: {"rank": at + 1, "score": was["score"]}}
            assert hit["text"] == was["text"] and hit["metadata"] == was["metadata"]
    alone = search(app, collection, query=QUERIES[0], mode=mode, k=4, rerank={"by": "maxsim", "depth": 6})
    assert [hit["id"] for hit in alone["hits"]] == [hit["id"] for hit in again[0]["hits"]]


def test_twenty_hits_are_scored_unless_it_says_how_many(
    app: FastAPI, model: SentenceTransformer, collection: str
) -> None:
    hits = search(app, collection, query=QUERIES[0], k=3, rerank={"by": "maxsim"}, include=["text"])["hits"]
    scores = by_hand(model, QUERIES[0], TEXTS)
    assert [hit["id"] for hit in hits] == [f"d{at}" for at in np.argsort(-scores)[:3]]
    filtered = search(app, collection, query=QUERIES[0], k=3, rerank={"by": "maxsim"}, filter={"n": {"$lt": 4}})
    assert [hit["id"] for hit in filtered["hits"]] == [f"d{at}" for at in np.argsort(-scores[:4])[:3]]
    assert search(app, collection, query="xyzzy", mode="keyword", rerank={"by": "maxsim"}) == {"hits": []}


def test_threshold_and_diversity_go_by_the_new_scores(app: FastAPI, collection: str) -> None:
    asked = {"query": QUERIES[0], "rerank": {"by": "maxsim"}, "include": []}
    hits = search(app, collection, **asked, k=10)["hits"]
    kept = search(app, collection, **asked, k=10, score_threshold=hits[2]["score"])["hits"]
    assert kept == hits[:3]
    assert search(app, collection, **asked, k=5, diversity=0)["hits"] == hits[:5]
    with_vectors = search(app, collection, **asked | {"include": ["vector"]}, k=10, diversity=1)
    vectors = np.array([hit["vector"] for hit in with_vectors["hits"]])
    assert with_vectors["hits"][0]["id"] == hits[0]["id"]
    nearness = vectors[1:] @ vectors[0] / np.linalg.norm(vectors[1:], axis=1)
    assert nearness[0] == pytest.approx(nearness.min())
    assert len(with_vectors["vector"]) == len(vectors[0])
    assert "vector" not in search(app, collection, **asked, k=2, diversity=0.5)["hits"][0]


def test_a_hit_that_is_a_span_counts_by_its_span(app: FastAPI, model: SentenceTransformer) -> None:
    path = made(app, DOCUMENTS[:8], chunking={"tokens": 6})
    rerank = {"by": "maxsim", "depth": 200}
    for group in (None, "document"):
        hits = search(app, path, query=QUERIES[1], k=20, rerank=rerank, group=group)["hits"]
        scores = by_hand(model, QUERIES[1], [hit["span"]["text"] for hit in hits])
        np.testing.assert_allclose([hit["score"] for hit in hits], scores, atol=1e-5)
        assert sorted(scores, reverse=True) == pytest.approx(scores)
    # Words are those of documents, which have no span then.
    hits = search(app, path, query=QUERIES[1], mode="keyword", k=20, rerank=rerank)["hits"]
    np.testing.assert_allclose(
        [hit["score"] for hit in hits], by_hand(model, QUERIES[1], [hit["text"] for hit in hits]), atol=1e-5
    )
    ask(app, "DELETE", path)


def test_a_vector_needs_the_words_beside_it(app: FastAPI, collection: str) -> None:
    vector = search(app, collection, query=QUERIES[0], include=["vector"])["vector"]
    rerank = {"by": "maxsim", "depth": 8}
    alone = ask(app, "POST", f"{collection}/search", json={"vector": vector, "rerank": rerank, "k": 5})
    assert problem(alone, 422, "a search by 'vector' alone", "'query'")["place"] == {"field": "rerank"}
    both = search(app, collection, vector=vector, query=QUERIES[0], mode="hybrid", k=5, rerank=rerank, include=[])
    words = search(app, collection, query=QUERIES[0], mode="hybrid", k=5, rerank=rerank, include=[])
    long = {"vector": vector, "query": " ".join(WORDS * 9), "mode": "hybrid", "rerank": rerank, "k": 5}
    refused = problem(ask(app, "POST", f"{collection}/search", json=long), 413, "tokens", "truncate")
    assert refused["place"] == {"field": "query"}
    assert search(app, collection, **long, truncate=True)["hits"]
    assert [hit["id"] for hit in both["hits"]] == [hit["id"] for hit in words["hits"]]


def test_documents_without_a_text_are_last(app: FastAPI) -> None:
    vector = search(app, made(app, DOCUMENTS[:1]), query="a", include=["vector"])["vector"]
    texts = {"a": "", "b": "the wheel", "c": " \n", "d": "\u200b", "e": "Grain"}
    documents = [{"id": id_, "text": text, "vector": vector} for id_, text in texts.items()]
    path = made(app, documents, dimension=len(vector), model="default")
    hits = search(app, path, query="the wheel", rerank={"by": "maxsim"}, include=[])["hits"]
    assert hits[0]["id"] == "b"
    assert {hit["id"] for hit in hits if hit["score"] == -1} >= {"a", "c"}
    assert hits[-1]["score"] == -1
    foreign = made(app, documents, dimension=len(vector))
    for body in ({"query": "wheel", "mode": "keyword"}, {"query": "wheel"}):
        refused = ask(app, "POST", f"{foreign}/search", json={**body, "rerank": {"by": "maxsim"}})
        problem(refused, 422, "no model is named", "Leave 'rerank' out")
    assert search(app, foreign, query="wheel", mode="keyword")["hits"]


def test_queries_of_words_are_checked_as_those_that_are_embedded(app: FastAPI, collection: str) -> None:
    long = " ".join(WORDS * 9)
    asked = {"queries": ["mill", long], "mode": "keyword", "rerank": {"by": "maxsim"}}
    refused = problem(ask(app, "POST", f"{collection}/search", json=asked), 413, "tokens", "queries[1]")
    assert refused["place"] == {"field": "queries", "index": 1}
    assert len(search(app, collection, **asked, truncate=True)["results"]) == 2


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"rerank": {"by": "words"}}, 422, ["rerank.by", "'maxsim'"]),
        ({"rerank": {}}, 422, ["rerank", "either"]),
        ({"rerank": "maxsim"}, 422, ["rerank"]),
        ({"rerank": {"by": "maxsim", "depth": 0}}, 422, ["rerank.depth", "1"]),
        ({"rerank": {"by": "maxsim", "depth": 201}}, 422, ["rerank.depth", "200"]),
        ({"rerank": {"by": "maxsim", "deep": 3}}, 422, ["rerank.deep", "depth"]),
        ({"rerank": {"by": "maxsim", "depth": 9}, "k": 10}, 422, ["depth is 9", "from 10 to 200", "lower k"]),
        ({"rerank": {"by": "maxsim"}, "k": 201}, 413, ["k is 201", "200"]),
        ({"queries": ["a"] * 101, "rerank": {"by": "maxsim", "depth": 100}}, 413, ["10100", "10000"]),
        ({"positive": ["d1"], "rerank": {"by": "maxsim"}}, 422, ["'rerank'", "is not a field here"]),
    ],
)
def test_mistakes(app: FastAPI, collection: str, asked: dict[str, Any], status: int, words: list[str]) -> None:
    route = "recommend" if "positive" in asked else "search"
    body = asked if {"queries", "positive"} & asked.keys() else {"query": "mill", **asked}
    problem(ask(app, "POST", f"{collection}/{route}", json=body), status, *words)


def test_what_is_read_again_is_paid_for(served: Deployment, collection: str) -> None:
    key = f"millpond_{digest('payer')}"
    keys = {"payer": {"hash": digest(key), "scopes": ["search"], "tokens_per_minute": 100}}
    plain = {"query": "mill", "k": 3}
    for first, status in ((plain, 200), (plain | {"rerank": {"by": "maxsim"}}, 429)):
        app = application(served, access={"keys": keys})
        assert ask(app, "POST", f"{collection}/search", key, json=first).status_code == 200
        assert ask(app, "POST", f"{collection}/search", key, json=plain).status_code == status


@pytest.mark.parametrize("mode", ["dense", "keyword", "hybrid"])
def test_hits_are_scored_by_a_reranker(app: FastAPI, collection: str, rerankers: dict[str, Path], mode: str) -> None:
    asked = {"queries": QUERIES, "mode": mode, "include": ["text"]}
    first = search(app, collection, k=5, **asked)["results"]
    again = search(app, collection, k=3, rerank={"model": "quality", "depth": 5}, **asked)["results"]
    theirs = classifiers.reference(rerankers["quality"])
    for query, before, after in zip(QUERIES, first, again, strict=True):
        texts = [hit["text"] for hit in before["hits"]]
        scores = theirs.predict([(query, text) for text in texts])
        order = np.argsort(-scores, kind="stable")[:3]
        assert [hit["id"] for hit in after["hits"]] == [before["hits"][at]["id"] for at in order]
        np.testing.assert_allclose([hit["score"] for hit in after["hits"]], scores[order], atol=1e-5)
        assert [hit["parts"][mode]["rank"] for hit in after["hits"]] == (order + 1).tolist()


def test_foreign_vectors_are_scored_by_a_reranker(app: FastAPI, rerankers: dict[str, Path]) -> None:
    path = f"/collections/reranked-{uuid4().hex[:12]}"
    assert ask(app, "PUT", path, json={"model": None, "dimension": 2}).status_code == 201
    documents = [{"id": str(at), "text": text, "vector": [1, at]} for at, text in enumerate(["", *TEXTS[:3]])]
    assert ask(app, "POST", f"{path}/documents", json={"documents": documents}).status_code == 200
    asked = {"vector": [1, 0], "query": "wheel", "mode": "hybrid", "include": ["text"]}
    hits = search(app, path, rerank={"model": "quality"}, **asked)["hits"]
    wanted = classifiers.reference(rerankers["quality"]).predict([("wheel", hit["text"]) for hit in hits])
    assert len(hits) == 4
    np.testing.assert_allclose([hit["score"] for hit in hits], wanted, atol=1e-5)
    ask(app, "DELETE", path)


@pytest.mark.parametrize("rerank", [{"by": "maxsim"}, {"model": "quality"}])
def test_a_query_that_is_too_long_is_cut_only_where_that_is_asked_for(
    app: FastAPI, collection: str, rerank: dict[str, Any]
) -> None:
    long = "the wheel turns " * 25
    vector = search(app, collection, query="wheel", k=1, include=["vector"])["hits"][0]["vector"]
    for asked in ({"mode": "keyword"}, {"mode": "hybrid"}, {"mode": "hybrid", "vector": vector}):
        body = {"query": long, "rerank": rerank, **asked}
        answer = ask(app, "POST", f"{collection}/search", json=body)
        found = problem(answer, 413, "query", "tokens", '"truncate": true')
        assert found["place"] == {"field": "query"}
        assert search(app, collection, **body, truncate=True)["hits"]


@pytest.mark.parametrize(
    ("rerank", "status", "says"),
    [
        ({"model": "qality"}, 404, ["no reranker is named 'qality'", "Did you mean 'quality'"]),
        ({"model": "default"}, 404, ["'default' makes vectors", "'quality'"]),
        ({"model": "labels"}, 424, ["3 scores", "'/predict'"]),
        ({"model": "quality", "by": "maxsim"}, 422, ["either", "'model'"]),
        ({"depth": 3}, 422, ["either", "'model'"]),
        ({"model": 3}, 422, ["rerank.model"]),
    ],
)
def test_rerankers_that_do_not_score_hits(
    app: FastAPI, collection: str, rerank: dict[str, Any], status: int, says: list[str]
) -> None:
    answer = ask(app, "POST", f"{collection}/search", json={"query": "wheel", "k": 2, "rerank": rerank})
    assert answer.status_code == status, answer.text
    assert all(part in answer.text for part in says), answer.text

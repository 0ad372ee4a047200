"""A model with a Router over HTTP: each text goes the route of its role, or it is said in words why it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from starlette.applications import Starlette

from service.api import create_app
from service.config import Config
from service.deployment import open_deployment
from tests.support.applications import ask
from tests.support.checkpoints import DIM, TEXTS, close, edit, reference, routed

QUERY, DOCUMENT = TEXTS[3], TEXTS[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return routed(tmp_path_factory.mktemp("routes"), Dense(DIM, 16), Normalize())


@pytest.fixture(scope="module")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starlette]:
    mute = routed(tmp_path_factory.mktemp("mute"), default=None)
    config = {
        "models": {"default": {"encoder": str(folder)}, "mute": {"encoder": str(mute)}},
        "store": {"path": str(tmp_path_factory.mktemp("store") / "store")},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
    }
    with open_deployment(Config.model_validate(config)) as served:
        yield create_app(served)


def said(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def vectors(app: Starlette, **body: Any) -> np.ndarray:
    return np.array(said(ask(app, "POST", "/embed", json=body)), np.float32)


def test_the_type_of_input_chooses_the_route(app: Starlette, folder: Path) -> None:
    theirs = reference(folder)
    assert close(vectors(app, inputs=TEXTS, input_type="query"), theirs.encode_query(TEXTS))
    assert close(vectors(app, inputs=TEXTS, task="search_document"), theirs.encode_document(TEXTS))
    assert close(vectors(app, inputs=TEXTS), theirs.encode(TEXTS))
    assert close(vectors(app, inputs=TEXTS, input_type="clustering"), theirs.encode(TEXTS))
    both = vectors(app, inputs=TEXTS, prompt_name="document", input_type="query")
    assert close(both, theirs.encode(TEXTS, task="query", prompt_name="document"))
    told = said(ask(app, "POST", "/v1/embeddings", json={"input": QUERY, "model": "default", "input_type": "query"}))
    assert close(np.array(told["data"][0]["embedding"], np.float32), theirs.encode_query(QUERY))


def test_a_role_that_is_not_said_is_asked_for(app: Starlette) -> None:
    for path, body in (
        ("/embed", {"inputs": TEXTS}),
        ("/embed_all", {"inputs": TEXTS}),
        ("/embed_spans", {"inputs": QUERY, "spans": [[0, 5]]}),
        ("/similarity", {"inputs": {"source_sentence": QUERY, "sentences": TEXTS}}),
        ("/tokenize", {"inputs": QUERY}),
        ("/decode", {"ids": [5, 6]}),
        ("/explain", {"text": QUERY}),
        ("/perturb", {"text": QUERY, "changes": [{"padding": 2}]}),
    ):
        problem = said(ask(app, "POST", path, json={"model": "mute"} | body), 422)
        assert problem["where"] == "input_type", path
        assert "'input_type' query or document" in problem["detail"]
        said(ask(app, "POST", path, json={"model": "mute", "input_type": "query"} | body))


def test_a_prompt_of_the_other_role_is_refused(app: Starlette) -> None:
    problem = said(ask(app, "POST", "/embed", json={"inputs": TEXTS, "prompt_name": "query"}), 422)
    assert problem["where"] == "prompt_name" and "'input_type' query instead" in problem["detail"]


def test_documents_and_queries_of_a_collection(app: Starlette, folder: Path) -> None:
    theirs = reference(folder)
    said(ask(app, "PUT", "/collections/mill"), 201)
    documents = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]
    said(ask(app, "POST", "/collections/mill/documents", json={"documents": documents}))
    found = said(ask(app, "POST", "/collections/mill/search", json={"query": QUERY, "k": len(TEXTS)}))
    expected = theirs.encode_document(TEXTS) @ theirs.encode_query(QUERY)
    scores = {hit["id"]: hit["score"] for hit in found["hits"]}
    assert close(np.array([scores[str(place)] for place in range(len(TEXTS))]), expected)
    again = said(ask(app, "POST", "/collections/mill/search", json={"query": QUERY, "rerank": {"by": "maxsim"}}))
    states = [said(ask(app, "POST", "/embed_all", json={"inputs": text, "input_type": role}))[0]
              for text, role in ((QUERY, "query"), (TEXTS[int(again["hits"][0]["id"])], "document"))]  # fmt: skip
    query, document = (
        np.array([state for state, offset in zip(one["states"], one["offsets"], strict=True) if offset])
        for one in states
    )
    query, document = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (query, document))
    assert again["hits"][0]["score"] == pytest.approx((query @ document.T).max(axis=1).mean(), abs=1e-4)


def test_spans_of_documents(app: Starlette, folder: Path) -> None:
    body = {"inputs": DOCUMENT, "spans": [[0, len(DOCUMENT)]], "mode": "early", "input_type": "document"}
    (found,) = said(ask(app, "POST", "/embed_spans", json=body))
    assert close(np.array(found["vectors"], np.float32), reference(folder).encode_document([DOCUMENT]))


def test_a_query_and_a_document_are_explained_together(app: Starlette, folder: Path) -> None:
    theirs = reference(folder)
    body = {"text": QUERY, "other": DOCUMENT, "input_type": "query", "other_input_type": "document"}
    (found,) = said(ask(app, "POST", "/explain", json=body))["explanations"]
    expected = float(theirs.encode_query(QUERY) @ theirs.encode_document(DOCUMENT))
    assert found["served_similarity"] == pytest.approx(expected, abs=1e-5)
    assert found["pooling"] == "mean / cls"
    assert sum(token["contribution"] for token in found["tokens"]) == pytest.approx(found["similarity"], abs=1e-5)
    assert sum(token["contribution"] for token in found["other"]) == pytest.approx(found["similarity"], abs=1e-5)
    swapped = said(ask(app, "POST", "/explain", json=body | {"text": DOCUMENT, "other": QUERY}
                       | {"input_type": "document", "other_input_type": "query"}))["explanations"][0]  # fmt: skip
    assert swapped["served_similarity"] == pytest.approx(expected, abs=1e-5)


def test_what_a_request_may_not_change(app: Starlette) -> None:
    problem = said(ask(app, "POST", "/embed", json={"inputs": TEXTS, "layers": "last", "input_type": "query"}), 422)
    assert problem["where"] == "layers" and "Router" in problem["detail"]
    problem = said(ask(app, "POST", "/embed", json={"inputs": TEXTS, "pooling": "mean + max"}), 422)
    assert problem["where"] == "pooling"


def test_routes_are_described(app: Starlette) -> None:
    told = said(ask(app, "GET", "/info"))["models"]
    model = told["default"]
    assert model["default_route"] == "document" and told["mute"]["default_route"] is None
    assert {name: (route["pooling"], route["backend"]) for name, route in model["routes"].items()} == {
        "query": ("mean", "static"),
        "document": ("cls", "torch"),
    }
    assert model["pooling"] == "cls" and model["dimension"] == 16
    metrics = ask(app, "GET", "/metrics").text
    assert metrics.count("millpond_model_info{") == 2


def test_another_query_route_is_another_model_to_a_collection(folder: Path, tmp_path: Path) -> None:
    config = {"models": {"default": {"encoder": str(folder)}}, "store": {"path": str(tmp_path / "store")}}
    config["runtime"] = {"backend": "torch", "precision": "fp32", "threads": 1}
    with open_deployment(Config.model_validate(config)) as served:
        app = create_app(served)
        said(ask(app, "PUT", "/collections/mill"), 201)
        said(ask(app, "POST", "/collections/mill/documents", json={"documents": [{"id": "1", "text": DOCUMENT}]}))
    settings = folder / "router_config.json"
    before = settings.read_text()
    mappings = {"('query', None)": "document"}
    edit(settings, parameters=json.loads(before)["parameters"] | {"route_mappings": mappings})
    try:
        with open_deployment(Config.model_validate(config)) as served:
            problem = said(ask(create_app(served), "POST", "/collections/mill/search", json={"query": QUERY}), 409)
    finally:
        settings.write_text(before)
    assert "query" in problem["differences"]

"""`/rerank` and `/predict` in the shapes of text-embeddings-inference, and what else tells of rerankers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from service.api import create_app
from service.config import make_config
from service.deployment import open_deployment
from service.errors import CheckpointError, ConfigError
from tests.support.classifiers import PAIRS, bert_classifier, cross_encoder, reference, roberta_classifier
from tests.support.deployed import TINY, Deployed
from tests.support.problems import problem

QUERY = "What does a miller do in the evening?"
TEXTS = [second for _, second in PAIRS]


@contextmanager
def serving(folder: Path, rerankers: dict[str, Any], **model: Any) -> Iterator[Deployed]:
    values = {
        "models": {"tiny": {"encoder": str(TINY)} | model},
        "rerankers": rerankers,
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1, "cache": str(folder / "cache")},
        "store": {"path": str(folder / "store")},
        "server": {"max_texts": 8},
    }
    with open_deployment(make_config(values, "a test", env={})) as served:
        yield Deployed(create_app(served))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rerankers")
    identity = {"activation_fn": torch.nn.Identity()}
    return {
        "sigmoid": cross_encoder(bert_classifier(folder / "a"), folder / "sigmoid"),
        "identity": cross_encoder(roberta_classifier(folder / "b"), folder / "identity", **identity),
        "three": bert_classifier(folder / "three", num_labels=3, id2label={0: "no", 1: "maybe", 2: "yes"}),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    rerankers = {name: {"encoder": str(folder)} for name, folder in folders.items()}
    with serving(tmp_path_factory.mktemp("served"), rerankers) as deployed:
        yield deployed


def answer(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text[:500]
    return response.json()


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sigmoid", "identity"])
def test_texts_are_ranked(served: Deployed, folders: dict[str, Path], name: str) -> None:
    """A sigmoid by default, and logits where `raw_scores` is true, whatever the checkpoint declares."""
    pairs = [(QUERY, text) for text in TEXTS]
    theirs = reference(folders[name])
    for raw, activation in ((False, torch.nn.Sigmoid()), (True, torch.nn.Identity())):
        wanted = theirs.predict(pairs, activation_fn=activation)
        body = {"query": QUERY, "texts": TEXTS, "model": name, "raw_scores": raw}
        found = answer(served.post("/rerank", body))
        assert [each.keys() for each in found] == [{"index", "score"}] * len(TEXTS)
        assert [each["index"] for each in found] == np.argsort(-wanted, kind="stable").tolist()
        close([each["score"] for each in found], np.sort(wanted)[::-1])
    assert answer(served.post("/rerank", body | {"return_text": True}))[0]["text"] == TEXTS[found[0]["index"]]
    if name == "sigmoid":
        by_default = served.post("/rerank", {"query": QUERY, "texts": TEXTS})
        assert answer(by_default) == answer(served.post("/rerank", body | {"raw_scores": False}))


def test_texts_and_pairs_are_classified(served: Deployed, folders: dict[str, Path]) -> None:
    theirs = reference(folders["three"])
    softmax = theirs.predict(PAIRS, apply_softmax=True)
    body = {"model": "three"}
    found = answer(served.post("/predict", body | {"inputs": [list(pair) for pair in PAIRS]}))
    names = ["no", "maybe", "yes"]
    for each, wanted in zip(found, softmax, strict=True):
        assert [label["label"] for label in each] == [names[at] for at in np.argsort(-wanted)]
        close([label["score"] for label in each], np.sort(wanted)[::-1])
    assert (
        answer(served.post("/predict", body | {"inputs": list(PAIRS[0])}))
        == answer(served.post("/predict", body | {"inputs": [list(PAIRS[0])]}))[0]
    )
    alone = answer(served.post("/predict", body | {"inputs": PAIRS[0][0]}))
    mixed = answer(served.post("/predict", body | {"inputs": [[PAIRS[0][0]], list(PAIRS[1])]}))
    close([each["score"] for each in mixed[0]], [each["score"] for each in alone])
    raw = answer(served.post("/predict", body | {"inputs": list(PAIRS[0]), "raw_scores": True}))
    close(sorted(each["score"] for each in raw), np.sort(theirs.predict(PAIRS[:1])[0]))
    [one] = answer(served.post("/predict", {"inputs": list(PAIRS[0])}))
    assert one["label"] == "LABEL_0" and 0 < one["score"] < 1


def test_what_is_too_long(served: Deployed, folders: dict[str, Path]) -> None:
    long = "the wheel turns " * 40
    body = {"query": QUERY, "texts": ["Grain", long]}
    refused = problem(served.post("/rerank", body), 413, "texts[1] with the text it is paired with has 1", "takes 64")
    assert refused["place"] == {"field": "texts", "index": 1} and refused["code"] == "context_length_exceeded"
    response = served.post("/rerank", body | {"truncate": True, "raw_scores": True})
    assert response.headers["x-truncated"] == "1"
    wanted = reference(folders["sigmoid"]).predict(
        [(QUERY, text) for text in body["texts"]], activation_fn=torch.nn.Identity()
    )
    close([each["score"] for each in answer(response)], np.sort(wanted)[::-1])
    left = served.post("/rerank", body | {"truncate": True, "truncation_direction": "Left", "raw_scores": True})
    assert answer(left) != answer(response)
    problem(served.post("/predict", {"inputs": [[long]]}), 413, "inputs[0] has ")
    endless = long * 2_000
    problem(served.post("/rerank", body | {"texts": [endless]}), 413, "texts[0] has 1280000 characters")
    both = served.post("/rerank", body | {"texts": [long, endless], "truncate": True})
    one, other = answer(both)
    assert one["score"] == other["score"] and both.headers["x-truncated"] == "2"
    blank = {"inputs": [[" " * 1_000_000 + "grain"]], "truncate": True}
    problem(served.post("/predict", blank), 413, "inputs[0] has 1000005 characters")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/rerank", {"query": "a", "texts": []}, 422, ["texts is empty"]),
        ("/rerank", {"query": "", "texts": ["a"]}, 422, ["query is empty"]),
        ("/rerank", {"query": "a", "texts": ["a", " "]}, 422, ["texts[1] has nothing but white space"]),
        ("/rerank", {"query": "a", "texts": "a"}, 422, ["texts: Input should be a list"]),
        ("/rerank", {"query": "a", "texts": ["a", 1]}, 422, ["texts[1]: Input should be a valid string"]),
        ("/rerank", {"query": ["a"], "texts": ["a"]}, 422, ["query: Input should be a valid string"]),
        ("/rerank", {"texts": ["a"]}, 422, ["query: this field is required"]),
        ("/rerank", {"query": "a", "texts": ["a"] * 9}, 413, ["texts holds 9 and one request takes 8"]),
        ("/rerank", {"query": "a", "texts": ["a"], "raw": True}, 422, ["'raw' is not a field", "raw_scores"]),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "sigmoit"}, 404, ["Did you mean 'sigmoid'"]),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "tiny"}, 404, ["'tiny' makes vectors", "/embed"]),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "three"}, 424, ["3 scores (no, maybe, yes)", "/predict"]),
        ("/predict", {"inputs": []}, 422, ["inputs"]),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, ["inputs", "at most 2"]),
        ("/predict", {"inputs": [["a"], []]}, 422, ["inputs[1]"]),
        ("/predict", {"inputs": [["a"], "b"]}, 422, ["inputs[1]: Input should be a list"]),
        ("/predict", {"inputs": [["a", ""]]}, 422, ["inputs[0] is empty"]),
        ("/predict", {"inputs": {"a": "b"}}, 422, ["Input should be a text, a pair"]),
        ("/predict", {"inputs": 3}, 422, ["Input should be a text, a pair"]),
        ("/embed", {"inputs": "a", "model": "three"}, 404, ["'three' scores pairs", "'/rerank' and '/predict'"]),
    ],
)
def test_bad_input(served: Deployed, path: str, body: Any, status: int, words: list[str]) -> None:
    problem(served.post(path, body), status, *words)


def test_half_a_surrogate_pair(served: Deployed) -> None:
    content = b'{"query": "a", "texts": ["b", "\\ud800"]}'
    headers = {"content-type": "application/json"}
    response = served.request("POST", "/rerank", content=content, headers=headers)
    assert problem(response, 400, "surrogate")["where"] == "texts[1]"


def test_what_is_told_of_rerankers(served: Deployed) -> None:
    answer(served.post("/rerank", {"query": QUERY, "texts": TEXTS}))
    info = answer(served.get("/info"))
    assert info["default_reranker"] == "sigmoid" and list(info["rerankers"]) == ["sigmoid", "identity", "three"]
    three = info["rerankers"]["three"]
    assert three["labels"] == ["no", "maybe", "yes"] and three["activation"] == "Identity"
    assert (three["max_tokens"], three["precision"], three["backend"]) == (64, "fp32", "torch")
    metrics = served.get("/metrics").text
    assert 'millpond_reranker_info{backend="torch"' in metrics
    [line] = [line for line in metrics.splitlines() if line.startswith('millpond_scored_total{reranker="sigmoid"}')]
    assert float(line.split()[1]) >= len(TEXTS)
    document = answer(served.get("/openapi.json"))
    assert {"200", "404", "424"} <= document["paths"]["/rerank"]["post"]["responses"].keys()
    for path, schema in (("/rerank", "RerankRequest"), ("/predict", "PredictRequest")):
        for example in document["components"]["schemas"][schema]["examples"]:
            answer(served.post(path, example))
    assert answer(served.get("/ready"))["status"] == "ready"


def test_without_a_reranker(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as deployed:
        for path, body in (("/rerank", {"query": "a", "texts": ["b"]}), ("/predict", {"inputs": "a"})):
            refused = problem(deployed.post(path, body), 424, "no model here ranks or classifies", "`rerankers`")
            assert refused["error_type"] == "Backend"
        assert answer(deployed.get("/info"))["rerankers"] == {}


def test_a_cross_encoder_among_the_models(folders: dict[str, Path], tmp_path: Path) -> None:
    """One that sentence-transformers has saved is refused; a plain classifier is, unless a pooling is chosen."""
    with (
        pytest.raises(CheckpointError, match="List it under `rerankers` in the config"),
        serving(tmp_path / "a", {}, encoder=str(folders["sigmoid"]), pooling="mean"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"one must be chosen.*list it under `rerankers` instead"),
        serving(tmp_path / "b", {}, encoder=str(folders["three"])),
    ):
        pass
    with serving(tmp_path / "c", {}, encoder=str(folders["three"]), pooling="mean") as deployed:
        assert len(answer(deployed.post("/embed", {"inputs": "Grain"}))[0]) == 24

"""`/embed_sparse` in the shape of text-embeddings-inference, and what else tells of sparse models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api import create_app
from service.config import make_config
from service.deployment import open_deployment
from service.errors import CheckpointError
from tests.support.checkpoints import TEXTS
from tests.support.classifiers import bert_classifier
from tests.support.deployed import TINY, Deployed
from tests.support.problems import problem
from tests.support.splade import bert_mlm, reference, rows, sparse_encoder

PROMPTS = {"query": "the wheel ", "document": "represent "}


@contextmanager
def serving(folder: Path, sparse: dict[str, Any], **more: Any) -> Iterator[Deployed]:
    values = {
        "models": {"tiny": {"encoder": str(TINY)}},
        "sparse": sparse,
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1, "cache": str(folder / "cache")},
        "store": {"path": str(folder / "store")},
        "server": {"max_texts": 8},
    }
    with open_deployment(make_config(values | more, "a test", env={})) as served:
        yield Deployed(create_app(served))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sparse")
    plain = bert_mlm(folder / "plain")
    return {
        "max": sparse_encoder(plain, folder / "max", prompts=PROMPTS),
        "sum": sparse_encoder(plain, folder / "sum", "sum"),
        "ranker": bert_classifier(folder / "ranker"),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    sparse = {name: {"encoder": str(folders[name])} for name in ("max", "sum")}
    rankers = {"ranker": {"encoder": str(folders["ranker"])}}
    with serving(tmp_path_factory.mktemp("served"), sparse, rerankers=rankers) as deployed:
        yield deployed


def answer(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text[:500]
    return response.json()


def listed(row: Any) -> list[dict[str, Any]]:
    """A row as text-embeddings-inference lists it."""
    return [{"index": int(at), "value": pytest.approx(float(row[at]), abs=1e-5)} for at in np.flatnonzero(row)]


@pytest.mark.parametrize("name", ["max", "sum"])
def test_sparse_vectors(served: Deployed, folders: dict[str, Path], name: str) -> None:
    wanted = [listed(row) for row in rows(reference(folders[name]), TEXTS)]
    body = {"model": name}
    assert answer(served.post("/embed_sparse", body | {"inputs": TEXTS})) == wanted
    assert answer(served.post("/embed_sparse", body | {"inputs": TEXTS[0]})) == wanted[:1]
    if name == "max":
        assert answer(served.post("/embed_sparse", {"inputs": TEXTS})) == wanted


def test_the_tokens_of_the_weights(served: Deployed, folders: dict[str, Path]) -> None:
    tokenizer = reference(folders["max"]).tokenizer
    [plain] = answer(served.post("/embed_sparse", {"inputs": TEXTS[0]}))
    [found] = answer(served.post("/embed_sparse", {"inputs": TEXTS[0], "tokens": True}))
    names = tokenizer.convert_ids_to_tokens([each["index"] for each in plain])
    assert found == [{**each, "token": name} for each, name in zip(plain, names, strict=True)]


def test_prompts_and_roles(served: Deployed, folders: dict[str, Path]) -> None:
    theirs = reference(folders["max"])
    wanted = [listed(row) for row in rows(theirs, TEXTS, prompt_name="query")]
    assert answer(served.post("/embed_sparse", {"inputs": TEXTS, "prompt_name": "query"})) == wanted
    assert answer(served.post("/embed_sparse", {"inputs": TEXTS, "input_type": "query"})) == wanted


def test_what_is_too_long(served: Deployed, folders: dict[str, Path]) -> None:
    texts = ["Grain", "the wheel turns " * 40]
    refused = problem(served.post("/embed_sparse", {"inputs": texts}), 413, "inputs[1] has 122 tokens", "takes 64")
    assert refused["place"] == {"field": "inputs", "index": 1} and refused["code"] == "context_length_exceeded"
    response = served.post("/embed_sparse", {"inputs": texts, "truncate": True})
    assert response.headers["x-truncated"] == "1"
    assert answer(response) == [listed(row) for row in rows(reference(folders["max"]), texts)]
    left = {"inputs": texts, "truncate": True, "truncation_direction": "Left"}
    assert answer(served.post("/embed_sparse", left)) != answer(response)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/embed_sparse", {}, 422, ["inputs: this field is required"]),
        ("/embed_sparse", {"inputs": []}, 422, ["inputs is empty"]),
        ("/embed_sparse", {"inputs": ""}, 422, ["inputs is empty"]),
        ("/embed_sparse", {"inputs": ["a", " "]}, 422, ["inputs[1] has nothing but white space"]),
        ("/embed_sparse", {"inputs": ["a", 1]}, 422, ["inputs[1]: Input should be a valid string"]),
        ("/embed_sparse", {"inputs": [5, 6]}, 422, ["Input should be a string or a list of strings"]),
        ("/embed_sparse", {"inputs": 3}, 422, ["Input should be a string or a list of strings"]),
        ("/embed_sparse", {"inputs": ["a"] * 9}, 413, ["inputs holds 9 and one request takes 8"]),
        ("/embed_sparse", {"inputs": "a", "pooling": "cls"}, 422, ["'pooling' is not a field", "prompt_name"]),
        ("/embed_sparse", {"inputs": "a", "tokens": "yes"}, 422, ["tokens: Input should be a valid boolean"]),
        ("/embed_sparse", {"inputs": "a", "prompt_name": "qery"}, 422, ["no prompt 'qery'", "Did you mean 'query'"]),
        ("/embed_sparse", {"inputs": "a", "input_type": "qery"}, 422, ["'qery' is neither a role"]),
        ("/embed_sparse", {"inputs": "a", "model": "mex"}, 404, ["no sparse model is named 'mex'", "'max'"]),
        (
            "/embed_sparse",
            {"inputs": "a", "model": "tiny"},
            404,
            ["'tiny' makes vectors", "'/embed'", "'max', 'sum'"],
        ),
        ("/embed_sparse", {"inputs": "a", "model": "ranker"}, 404, ["'ranker' scores pairs", "'/rerank'"]),
        ("/embed", {"inputs": "a", "model": "max"}, 404, ["'max' makes sparse vectors", "'/embed_sparse'", "'tiny'"]),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "max"}, 404, ["'/embed_sparse'", "rerankers are"]),
    ],
)
def test_bad_input(served: Deployed, path: str, body: Any, status: int, words: list[str]) -> None:
    problem(served.post(path, body), status, *words)


def test_what_is_told_of_sparse_models(served: Deployed) -> None:
    answer(served.post("/embed_sparse", {"inputs": TEXTS}))
    info = answer(served.get("/info"))
    assert info["default_sparse"] == "max" and list(info["sparse"]) == ["max", "sum"]
    told = info["sparse"]["sum"]
    assert (told["strategy"], told["activation"], told["most_active"]) == ("sum", "relu", None)
    assert (told["max_tokens"], told["precision"], told["backend"]) == (64, "fp32", "torch")
    assert info["sparse"]["max"]["prompts"] == PROMPTS
    metrics = served.get("/metrics").text
    assert 'millpond_sparse_info{backend="torch"' in metrics
    for name in ("millpond_sparse_vectors_total", "millpond_sparse_weights_total"):
        [line] = [line for line in metrics.splitlines() if line.startswith(f'{name}{{sparse="max"}}')]
        assert float(line.split()[1]) >= len(TEXTS)
    document = answer(served.get("/openapi.json"))
    assert {"200", "404", "424"} <= document["paths"]["/embed_sparse"]["post"]["responses"].keys()
    for example in document["components"]["schemas"]["EmbedSparseRequest"]["examples"]:
        answer(served.post("/embed_sparse", example))
    assert answer(served.get("/ready"))["status"] == "ready"


def test_without_a_sparse_model(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as deployed:
        refused = problem(
            deployed.post("/embed_sparse", {"inputs": "a"}), 424, "no model here makes sparse vectors", "`sparse`"
        )
        assert refused["error_type"] == "Backend"
        assert answer(deployed.get("/info"))["sparse"] == {}


def test_a_sparse_encoder_among_the_models(folders: dict[str, Path], tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="List it under `sparse` in the config"),
        serving(tmp_path, {}, models={"default": {"encoder": str(folders["max"])}}),
    ):
        pass

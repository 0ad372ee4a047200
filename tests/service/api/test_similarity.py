"""A collection is searched by the similarity that its model declares, or that was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from sentence_transformers.sentence_transformer.modules import Dense

from tests.support import checkpoints
from tests.support.problems import problem
from tests.support.servers import Server

pytestmark = pytest.mark.slow
WORDS = ["mill", "pond", "wheel", "water", "grain", "evening", "miller", "bridge", "turns", "slowly", "faster"]
QUERY = "the wheel turns"


def texts() -> list[str]:
    rng = np.random.default_rng(1)
    return list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(80)))[:50]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that do not normalise, by the similarity that each declares; `dot_product` is another name of `dot`."""
    root = tmp_path_factory.mktemp("similarity")
    plain = checkpoints.plain_bert(root / "plain")
    torch.manual_seed(5)
    dense = Dense(checkpoints.DIM, 12, activation_function=torch.nn.Identity())
    made = {}
    for name in ("cosine", "dot", "dot_product", "euclidean", "manhattan"):
        made[name] = checkpoints.sentence_transformer(plain, root / name, "cls", dense)
        checkpoints.edit(made[name] / "config_sentence_transformers.json", similarity_fn_name=name)
    return made


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("served")
    models = {name: {"encoder": str(folder)} for name, folder in folders.items()}
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
    (root / "config.yaml").write_text(yaml.safe_dump({"models": models, "runtime": runtime}))
    with Server(root / "config.yaml", root / "store") as started:
        yield started


def filled(http: httpx.Client, name: str, **asked: Any) -> dict[str, Any]:
    made = http.put(f"/collections/{name}", json=asked)
    assert made.status_code == 201, made.text
    documents = [{"id": str(number), "text": text} for number, text in enumerate(texts())]
    assert http.post(f"/collections/{name}/documents", json={"documents": documents}).status_code == 200
    return made.json()


def ranked(http: httpx.Client, name: str, **asked: Any) -> tuple[list[int], list[float]]:
    answer = http.post(f"/collections/{name}/search", json={"k": 50, **(asked or {"query": QUERY})})
    assert answer.status_code == 200, answer.text
    hits = answer.json()["hits"]
    return [int(hit["id"]) for hit in hits], [hit["score"] for hit in hits]


def reference(folder: Path, similarity: str) -> np.ndarray:
    model = checkpoints.reference(folder)
    model.similarity_fn_name = similarity
    return model.similarity(model.encode([QUERY]), model.encode(texts())).numpy()[0]


def agrees(found: tuple[list[int], list[float]], scores: np.ndarray) -> bool:
    """Whether all documents were found, with these scores and in their order."""
    order, own = found
    close = np.allclose(own, scores[order], atol=1e-4, rtol=1e-4)
    return close and sorted(order) == list(range(50)) and bool((np.diff(own) <= 0).all())


@pytest.mark.parametrize(
    ("model", "similarity"),
    [("cosine", "cosine"), ("dot", "dot"), ("dot_product", "dot"), ("euclidean", "euclidean")],
)
def test_the_declared_one(server: Server, folders: dict[str, Path], model: str, similarity: str) -> None:
    http = server.http
    assert http.get("/info").json()["models"][model]["similarity"] == similarity
    assert filled(http, f"declared-{model}", model=model)["similarity"] == similarity
    found = ranked(http, f"declared-{model}")
    assert agrees(found, reference(folders[model], similarity))
    for other in {"cosine", "dot", "euclidean"} - {similarity}:
        assert np.diff(reference(folders[model], other)[found[0]]).max() > 1e-3  # by another, the order is another
    vector = http.post("/embed", json={"inputs": QUERY, "model": model}).json()[0]
    assert ranked(http, f"declared-{model}", vector=vector) == (found[0], pytest.approx(found[1], abs=1e-4))
    assert http.get(f"/collections/declared-{model}").json()["similarity"] == similarity
    listed = {each["name"]: each["similarity"] for each in http.get("/collections").json()["collections"]}
    assert listed[f"declared-{model}"] == similarity


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_another_one_is_asked_for(server: Server, folders: dict[str, Path], similarity: str) -> None:
    http, name = server.http, f"asked-{similarity}"
    filled(http, name, model="manhattan", similarity=similarity)
    assert agrees(ranked(http, name), reference(folders["manhattan"], similarity))
    assert http.put(f"/collections/{name}", json={"model": "manhattan", "similarity": similarity}).status_code == 200
    assert http.put(f"/collections/{name}", json={"model": "manhattan"}).json()["similarity"] == similarity
    other = "dot" if similarity == "cosine" else "cosine"
    asked = {"model": "manhattan", "similarity": other}
    refusal = problem(http.put(f"/collections/{name}", json=asked), 409, f'stored "{similarity}", asked "{other}"')
    assert (refusal["stored"]["similarity"], refusal["asked"]["similarity"]) == (similarity, other)


def test_what_no_collection_is_searched_by(server: Server) -> None:
    problem(
        server.http.put("/collections/none", json={"model": "manhattan"}),
        422,
        "model 'manhattan' declares the similarity 'manhattan'",
        "'cosine', 'dot', 'euclidean'",
    )
    problem(server.http.put("/collections/none", json={"similarity": "manhattan"}), 422, "similarity", "'euclidean'")
    assert server.http.get("/collections/none").status_code == 404
    info = server.http.get("/info").json()["models"]
    (warning,) = info["manhattan"]["warnings"]
    assert "similarity is declared as 'manhattan'" in warning and warning in server.log.read_text()
    assert not info["dot"]["warnings"]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_the_best_span_of_each_document(server: Server, similarity: str) -> None:
    http, name = server.http, f"spans-{similarity}"
    asked = {"model": "dot", "similarity": similarity, "chunking": {"by": "tokens", "tokens": 4, "overlap": 0}}
    filled(http, name, **asked)
    body = {"query": QUERY, "k": 1000, "include": []}
    spans = http.post(f"/collections/{name}/search", json=body).json()["hits"]
    grouped = http.post(f"/collections/{name}/search", json=body | {"group": "document"}).json()["hits"]
    assert len(spans) > len(grouped) == 50
    best: dict[str, float] = {}
    for hit in spans:
        best.setdefault(hit["id"], hit["score"])
    assert [(hit["id"], hit["score"]) for hit in grouped] == list(best.items())


def reindexed(http: httpx.Client, name: str, **asked: Any) -> dict[str, Any]:
    answer = http.post(f"/collections/{name}/reindex", json=asked)
    assert answer.status_code in (200, 202), answer.text
    progress = answer.json()
    deadline = time.monotonic() + 60
    while progress["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
        progress = http.get(f"/collections/{name}/reindex").json()
    return progress


def test_a_reindex_keeps_it_or_follows_another_model(server: Server, folders: dict[str, Path]) -> None:
    http = server.http
    filled(http, "again", model="dot", similarity="cosine")
    assert agrees(ranked(http, "again"), reference(folders["dot"], "cosine"))
    assert reindexed(http, "again")["state"] == "unneeded"
    progress = reindexed(http, "again", similarity="dot")
    assert progress["state"] == "complete" and http.get("/collections/again").json()["similarity"] == "dot"
    assert (progress["from"]["similarity"], progress["to"]["similarity"]) == ("cosine", "dot")
    assert agrees(ranked(http, "again"), reference(folders["dot"], "dot"))
    assert reindexed(http, "again", model="euclidean")["to"]["similarity"] == "euclidean"
    assert agrees(ranked(http, "again"), reference(folders["euclidean"], "euclidean"))
    assert reindexed(http, "again", force=True)["to"]["similarity"] == "euclidean"
    problem(http.post("/collections/again/reindex", json={"model": "manhattan"}), 422, "declares the similarity")
    assert reindexed(http, "again", model="manhattan", similarity="cosine")["state"] == "complete"
    assert agrees(ranked(http, "again"), reference(folders["manhattan"], "cosine"))


def test_it_is_there_after_a_restart(folders: dict[str, Path], tmp_path: Path) -> None:
    config = {"models": {"default": {"encoder": str(folders["dot"])}}}
    config["runtime"] = {"backend": "torch", "precision": "fp32", "threads": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with Server(tmp_path / "config.yaml", tmp_path / "store") as server:
        filled(server.http, "declared")
        filled(server.http, "before", similarity="cosine")
        found = {name: ranked(server.http, name) for name in ("declared", "before")}
        log = server.log.read_text()
        assert "--similarity" not in log
    with Server(tmp_path / "config.yaml", tmp_path / "store") as server:
        assert {name: ranked(server.http, name) for name in found} == found
        told = [line for line in server.log.read_text().splitlines() if "--similarity" in line]
        assert len(told) == 1 and "collection 'before' is searched by cosine" in told[0]
        assert "its model 'default' declares dot; `millpond reindex before --similarity dot`" in told[0]

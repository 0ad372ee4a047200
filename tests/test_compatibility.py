"""What version 0.1 wrote is read unchanged: a store, saved poolers, and an exported checkpoint."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pooling
from service.collections import Definition
from service.collections.embedded import EmbeddedEngine
from service.config import Config
from service.deployment import Deployment, open_deployment
from service.errors import Place, StoreUnavailable

WRITTEN = Path(__file__).parent / "fixtures" / "v0_1"
VECTORS = json.loads((WRITTEN / "vectors.json").read_text())
STORED = json.loads((WRITTEN / "store.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(WRITTEN / "store", tmp_path / "store"))


@pytest.fixture
def served(store: Path) -> Iterator[Deployment]:
    """The store under the models that wrote it."""
    exported = str(WRITTEN / "exported")
    config = Config.model_validate(
        {
            "models": {"default": {"encoder": exported}, "mean": {"encoder": exported, "pooling": "mean"}},
            "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
            "store": {"path": str(store)},
        }
    )
    with open_deployment(config) as opened:
        yield opened


def definitions(store: Path) -> dict[str, Any]:
    """The definitions as they are stored."""
    connection = sqlite3.connect(store / "millpond.sqlite3")
    found = dict(connection.execute("SELECT name, definition FROM collections"))
    connection.close()
    return {name: json.loads(definition) for name, definition in found.items()}


def redefine(store: Path, name: str, definition: dict[str, Any]) -> None:
    connection = sqlite3.connect(store / "millpond.sqlite3")
    connection.execute("UPDATE collections SET definition = ? WHERE name = ?", (json.dumps(definition), name))
    connection.commit()
    connection.close()


async def hits(served: Deployment, name: str) -> list[dict[str, Any]]:
    (found,) = await served.collections.by_text(
        name, ["the wheel turns"], 3, None, where=lambda index: Place("queries", index)
    )
    return [{"id": hit.id, "score": hit.score, "span": hit.span and list(hit.span)} for hit in found.hits]


def nearly(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [hit | {"score": pytest.approx(hit["score"], abs=1e-5)} for hit in found]


@pytest.mark.parametrize("name", ["attention", "gem", "multihead_attention"])
def test_a_saved_pooler(name: str) -> None:
    states = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.inference_mode():
        vectors = pooling.load(WRITTEN / "poolers" / name).eval()(states, mask)
    expected = np.load(WRITTEN / "poolers" / f"{name}.npy")
    np.testing.assert_allclose(vectors.numpy(), expected, rtol=0, atol=1e-5)


def test_an_exported_checkpoint(served: Deployment) -> None:
    embeddings = asyncio.run(served.models.get().embed(VECTORS["texts"]))
    np.testing.assert_allclose(embeddings.vectors, VECTORS["default"], rtol=0, atol=1e-5)


def test_collections_answer_as_they_did(served: Deployment, store: Path) -> None:
    assert [collection.name for collection in served.collections.all()] == sorted(STORED)
    for collection in served.collections.all():
        expected = STORED[collection.name]
        embedder = served.models.get(collection.definition.model, collection.definition.asked_pooling)
        relabelled = {"scheme": 2, "tokenizer": embedder.encoder.tokenizer.fingerprint()}
        relabelled |= {"fingerprint": embedder.fingerprint}
        assert embedder.fingerprint != expected["definition"]["fingerprint"]
        assert collection.definition.to_json() == expected["definition"] | relabelled
        described = asyncio.run(served.collections.describe(collection))
        assert described.pop("stored_bytes") > 0
        description = expected["description"] | {
            "aliases": [],
            "fingerprint": embedder.fingerprint,
            "similarity": "cosine",
            "keyword": {"tokenizer": "unicode61"},
            "precisions": [],
            "index_state": {"uses": "exact"},
        }
        assert described == description
        assert asyncio.run(hits(served, collection.name)) == nearly(expected["hits"])
        assert definitions(store)[collection.name] == collection.definition.to_json()


def test_an_equal_collection_is_found_and_not_created(served: Deployment) -> None:
    for name, spec in (("whole", None), ("max", "max"), ("sentences", None), ("given", None)):
        chunking = asyncio.run(served.collections.get(name)).definition.chunking
        model = STORED[name]["definition"]["model"]
        assert asyncio.run(served.collections.create(name, model, spec, "flat", chunking))[1] is False


def test_an_interrupted_reindex_goes_on(served: Deployment) -> None:
    collection, reindexes = asyncio.run(served.collections.get("rebuilding")), served.collections.reindexes

    async def go_on() -> None:
        interrupted = await reindexes.progress(collection)
        assert (interrupted.state, interrupted.done, interrupted.total) == ("interrupted", 2, 6)
        target = interrupted.target
        assert (target.model, target.asked_pooling, target.pooling, target.chunking) == ("mean", "cls", "cls", None)
        progress = await reindexes.begin(collection, "mean", "cls", None, truncate=False, force=False)
        while progress.state == "running":
            await asyncio.sleep(0.01)
            progress = await reindexes.progress(collection)
        assert (progress.state, progress.done, progress.total, progress.error) == ("complete", 6, 6, None)
        assert collection.definition == target
        await served.collections.create("anew", "mean", "cls", "flat", None)
        await served.collections.upsert("anew", [collection.fetch(f"d{number}") for number in range(6)])
        assert await hits(served, "rebuilding") == nearly(await hits(served, "anew"))

    asyncio.run(go_on())


def test_a_definition_that_says_more_is_kept(store: Path) -> None:
    more = STORED["sentences"]["definition"] | {"sparse": {"weights": "1f2e"}}
    redefine(store, "sentences", more)
    opened = EmbeddedEngine(store)
    definition = opened.get("sentences").definition
    assert definition.to_json() == more
    assert definition == Definition.from_json(more) != Definition.from_json(STORED["sentences"]["definition"])
    opened.close()
    assert definitions(store)["sentences"] == more


@pytest.mark.parametrize(
    ("lacks", "says", "words"),
    [
        ("fingerprint", {}, "'fingerprint'"),
        ("chunking", {"chunking": {"by": "title", "mode": "late"}}, "'title' is no way to cut a text"),
        ("chunking", {"chunking": {"by": "sentence", "mode": "late", "titles": 1}}, "sentence"),
        ("chunking", {"similarity": "jaccard"}, "'jaccard'"),
    ],
)
def test_a_definition_that_cannot_be_read_is_refused(
    store: Path, lacks: str, says: dict[str, Any], words: str
) -> None:
    stored = STORED["sentences"]["definition"]
    redefine(store, "sentences", {key: value for key, value in stored.items() if key != lacks} | says)
    with pytest.raises(StoreUnavailable, match="a collection is defined in a way") as refused:
        EmbeddedEngine(store)
    assert words in str(refused.value)

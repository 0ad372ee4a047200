"""What a deployment says of itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api import create_app
from service.collections import Definition
from service.collections.embedded import EmbeddedEngine
from service.collections.provenance import FOREIGN
from service.config import Config
from service.deployment import open_deployment
from service.index import KINDS
from service.index.graph import LiveGraph
from service.index.hnsw import GraphBuild, HnswIndex
from service.store import Document
from tests.support.servers import ROOT, Server


def test_health_and_ready(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}


def test_collections_whose_index_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start without the snapshot."""
    released = threading.Event()

    class Tiny(HnswIndex):
        kind = "tiny"
        exact_below = 40

        def begin(self) -> GraphBuild:
            build = super().begin()
            return Waiting(build.view, build.recall, build.folder, build.anew)

    class Waiting(GraphBuild):
        def run(self, stopped: Callable[[], bool]) -> LiveGraph | None:
            while not released.wait(0.01) and not stopped():
                pass
            return super().run(stopped)

    monkeypatch.setitem(KINDS, "tiny", Tiny)
    engine = EmbeddedEngine(tmp_path / "store")
    for name, count in (("large", 60), ("small", 6)):
        foreign = Definition(None, None, None, FOREIGN, {"foreign": True})
        collection, _ = engine.create(name, foreign, 8, "tiny")
        vectors = np.random.default_rng(0).normal(size=(count, 8))
        collection.upsert([Document(f"d{i}", "", {}) for i in range(count)], vectors)
    engine.close()

    async def asked(http: httpx.AsyncClient) -> None:
        async def state() -> dict[str, Any]:
            return dict((await http.get("/collections/large")).json()["index_state"])

        async with http:
            assert (await http.get("/ready")).json() == {"status": "ready", "building": ["large"]}
            assert await state() == {"uses": "exact", "building": 0}
            released.set()
            while "building" in await state():
                await asyncio.sleep(0.01)
            assert (await state())["uses"] == "hnsw" and "saved" in await state()
            assert (await http.get("/ready")).json() == {"status": "ready"}

    encoder = str(ROOT / "tests" / "fixtures" / "v0_1" / "exported")
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
    config = {"models": {"m": {"encoder": encoder}}, "runtime": runtime, "store": {"path": tmp_path / "store"}}
    with open_deployment(Config.model_validate(config)) as served:
        transport = httpx.ASGITransport(create_app(served))
        asyncio.run(asked(httpx.AsyncClient(transport=transport, base_url="http://status")))


def test_info(http: httpx.Client, small: Server) -> None:
    info = http.get("/info").json()
    assert info["default_model"] == "mean" and info["version"]
    models = info["models"]
    assert list(models) == ["mean", "cls", "max", "last", "weighted_mean", "gem"]
    for name, model in models.items():
        assert model["pooling"] == ("gem(p=3.0)" if name == "gem" else name)
        assert model["encoder"].endswith("all-MiniLM-L6-v2") and model["declared_pooling"] == "mean"
        assert (model["dimension"], model["max_tokens"], model["normalize"]) == (384, 256, True)
        assert (model["prompts"], model["default_prompt"]) == ({}, None)
        assert model["backend"] and model["precision"] and model["streams"] >= 1
        overridden = [] if name == "mean" else [f"pooling {model['pooling']!r} overrides the declared 'mean'"]
        assert model["warnings"] == overridden
    fingerprints = [model["fingerprint"] for model in models.values()]
    assert len(set(fingerprints)) == 6 and all(len(bytes.fromhex(each)) == 8 for each in fingerprints)
    assert {"cls", "mean", "max", "last", "weighted_mean", "attention", "gated", "gem"} <= set(info["poolings"])

    load = info["load"]
    assert set(load["models"]) == set(models) and load["requests"] >= 1 and 0 < load["uptime_seconds"] < 86_400
    assert load["cpu_seconds"] > 0 and load["resident_bytes"] > 50_000_000
    http.post("/embed", json={"inputs": ["a", "b"], "model": "cls"}).raise_for_status()
    assert http.post("/embed", json={"inputs": 1}).status_code == 422
    for _ in range(3):
        http.get("/health").raise_for_status()
    later = http.get("/info").json()["load"]
    assert later["models"]["cls"]["vectors"] - load["models"]["cls"]["vectors"] == 2
    before, answers = load["answers"], later["answers"]
    assert (answers["total"] - before["total"], answers["failed"] - before["failed"]) == (2, 0)
    bounds, counts = zip(*answers["seconds"], strict=True)
    assert list(bounds) == sorted(bounds) and list(counts) == sorted(counts) and counts[-1] == answers["total"]

    other = small.http.get("/info").json()
    assert other["default_model"] == "default"
    assert other["models"]["default"]["fingerprint"] == models["mean"]["fingerprint"]
    assert (info["limits"]["max_body_bytes"], other["limits"]["max_body_bytes"]) == (64 * 2**20, 65_536)
    assert other["limits"]["max_queued_tokens"] == 4096
    assert info["limits"]["max_texts"] == 16_384 and info["limits"]["max_hits"] == 10_000

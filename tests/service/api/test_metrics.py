"""What Prometheus scrapes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.api import create_app
from service.api.metrics import metrics_of_collections
from service.collections import Definition
from service.collections.embedded import EmbeddedEngine
from service.collections.provenance import FOREIGN
from service.config import Config
from service.deployment import Deployment, open_deployment
from service.index import KINDS
from service.index.hnsw import HnswIndex
from service.store import Document
from tests.support.servers import ROOT

EXPORTED = ROOT / "tests" / "fixtures" / "v0_1" / "exported"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(text: str) -> list[Metric]:
    return [*text_string_to_metric_families(text)]


def samples(http: httpx.Client) -> Samples:
    answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Samples = {}
    for family in families(answer.text):
        for sample in family.samples:
            series = sample.name, frozenset(sample.labels.items())
            assert series not in found, series
            found[series] = sample.value
    return found


class Difference:
    """What some requests have changed in the metrics."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._before = samples(http)
        self._after: Samples = {}

    def __enter__(self) -> Difference:
        return self

    def __exit__(self, *_: object) -> None:
        self._after = samples(self._http)

    def __call__(self, name: str, **labels: str) -> float:
        series = name, frozenset(labels.items())
        return self._after[series] - self._before.get(series, 0)


def test_requests_to_embed_under_the_names_of_text_embeddings_inference(http: httpx.Client) -> None:
    with Difference(http) as changed:
        assert http.post("/embed", json={"inputs": "A man is playing a harp."}).status_code == 200
        assert http.post("/embed", json={"inputs": ["a", "two words", "a"]}).status_code == 200
        assert http.post("/embed", json={"inputs": [" "]}).status_code == 422
        assert http.post("/v1/embeddings", json={"model": "mean", "input": "a"}).status_code == 200
    assert changed("te_request_count", method="single") == 3
    assert changed("te_request_count", method="batch") == 1
    assert changed("te_request_success", method="single") == 2
    assert changed("te_request_success", method="batch") == 1
    assert changed("te_request_failure", err="validation") == 1
    assert changed("te_embed_count") == changed("te_embed_success") == 5
    for part in ("", "tokenization_", "queue_", "inference_"):
        assert changed(f"te_request_{part}duration_count") == 3
        assert changed(f"te_request_{part}duration_bucket", le="+Inf") == 3
    parts = [changed(f"te_request_{part}_duration_sum") for part in ("tokenization", "queue", "inference")]
    assert 0 < sum(parts) < changed("te_request_duration_sum")
    assert changed("te_request_input_length_count") == 5
    assert changed("te_request_input_length_sum") == 9 + 3 + 4 + 3 + 3
    assert changed("te_request_input_length_bucket", le="4.0") == 4
    assert changed("te_batch_next_size_sum") == 5 and changed("te_batch_next_tokens_sum") >= 22
    assert changed("te_queue_size") == 0


def test_passes_and_poolings(http: httpx.Client) -> None:
    encoder = http.get("/info").json()["models"]["mean"]["encoder"]
    with Difference(http) as changed:
        http.post("/embed", json={"inputs": ["one", "a longer text of some words"], "model": "cls"})
        http.post("/embed", json={"inputs": "one", "pooling": "mean + max"})
        http.post("/embed", json={"inputs": "one", "pooling": "gem(p=2.5)"})
        http.post("/embed_spans", json={"inputs": "one two", "spans": [[0, 3], [4, 7]], "model": "max"})
    assert changed("millpond_vectors_total", model="cls", pooling="cls") == 2
    assert changed("millpond_vectors_total", model="max", pooling="max") == 2
    assert changed("millpond_vectors_total", model="mean", pooling="concatenation") == 1
    assert changed("millpond_vectors_total", model="mean", pooling="gem") == 1
    passes = changed("millpond_batch_texts_count", encoder=encoder)
    assert passes >= 4
    for name in ("millpond_batch_tokens", "millpond_forward_seconds", "millpond_pooling_seconds"):
        assert changed(f"{name}_count", encoder=encoder) == passes
    padding = changed("millpond_padding_tokens_total", encoder=encoder)
    assert changed("millpond_batch_tokens_sum", encoder=encoder) - padding == 3 + 8 + 3 + 3 + 4
    if http.get("/info").json()["models"]["mean"]["shapes"]:
        shapes = [changed("millpond_shape_passes_total", encoder=encoder, shape=shape) for shape in ("known", "new")]
        assert sum(shapes) == passes


def test_requests_are_told_by_the_template_of_their_route(http: httpx.Client, collection: str) -> None:
    secret = "an-id-that-no-series-may-have"
    with Difference(http) as changed:
        http.post(f"{collection}/documents", json={"documents": [{"id": secret, "text": "a"}]})
        http.get(f"{collection}/documents/{secret}")
        http.get(f"{collection}/documents/missing-{secret}")
        http.post(f"{collection}/search", json={"query": "a"})
        http.get(f"/{secret}")
        http.delete("/embed")
        http.request("BREW", "/embed")
        http.get("/openapi.json")
    scrape = http.get("/metrics").text
    assert secret not in scrape and "BREW" not in scrape

    def counted(method: str, route: str, status: int) -> float:
        return changed("millpond_http_requests_total", method=method, route=route, status=str(status))

    assert counted("POST", "/collections/{name}/documents", 200) == 1
    assert counted("GET", "/collections/{name}/documents/{document_id}", 200) == 1
    assert counted("GET", "/collections/{name}/documents/{document_id}", 404) == 1
    assert counted("POST", "/collections/{name}/search", 200) == 1
    assert counted("GET", "unknown", 404) == 1
    assert counted("DELETE", "/embed", 405) == 1
    assert counted("GET", "/openapi.json", 200) == 1
    assert changed("millpond_http_request_seconds_count", route="/collections/{name}/search") == 1
    phases = {
        phase: changed("millpond_phase_seconds_count", phase=phase) for phase in ("tokenize", "search", "store")
    }
    assert phases == {"tokenize": 2, "search": 1, "store": 1}
    assert changed("millpond_store_commit_seconds_count") >= 1


def test_collections(http: httpx.Client, collection: str) -> None:
    documents = [{"id": f"{number}", "text": f"text {number}"} for number in range(3)]
    http.post(f"{collection}/documents", json={"documents": documents})
    now = samples(http)
    of_it = {("collection", collection.rpartition("/")[2])}
    assert now["millpond_collection_documents", frozenset(of_it)] == 3
    assert now["millpond_collection_vectors", frozenset(of_it)] == 3
    assert now["millpond_index_bytes", frozenset(of_it)] >= 3 * 384 * 4
    assert now["millpond_collection_stored_bytes", frozenset(of_it)] > 3 * 384 * 4
    assert now["millpond_collections", frozenset()] == len(http.get("/collections").json()["collections"])


def test_what_is_served_and_what_it_takes(http: httpx.Client) -> None:
    now = samples(http)
    models = [dict(labels) for name, labels in now if name == "millpond_model_info"]
    info = http.get("/info").json()
    assert {model["model"]: model["fingerprint"] for model in models} == {
        name: model["fingerprint"] for name, model in info["models"].items()
    }
    assert now["millpond_info", frozenset({("version", info["version"])})] == 1
    assert now["millpond_queue_limit_tokens", frozenset()] == info["limits"]["max_queued_tokens"]
    assert now["process_resident_memory_bytes", frozenset()] > 2**20
    assert now["process_open_fds", frozenset()] > 0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Deployment]:
    config = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "precision": "fp32"},
        "store": {"path": tmp_path},
    }
    with open_deployment(Config.model_validate(config)) as served:
        yield served


def test_applications_of_a_process_have_metrics_of_their_own(served: Deployment) -> None:
    async def ask() -> None:
        apps = [create_app(served), create_app(served)]
        clients = [httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") for app in apps]
        await clients[0].post("/embed", json={"inputs": "a"})
        first, second = [(await client.get("/metrics")).text for client in clients]
        assert 'te_request_count{method="single"} 1.0' in first
        assert 'te_request_count{method="single"} 0.0' in second

    asyncio.run(ask())


def test_an_index_that_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tiny(HnswIndex):
        kind = "tiny"
        exact_below = 40

    monkeypatch.setitem(KINDS, "tiny", Tiny)
    engine = EmbeddedEngine(tmp_path / "store")
    foreign = Definition(None, None, None, FOREIGN, {"foreign": True})
    collection, _ = engine.create("built", foreign, 8, "tiny", 0.9)
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    collection.upsert([Document(f"d{number}", "", {}) for number in range(60)], vectors)
    engine.wait_for_builds()
    collection.upsert([Document("later", "", {})], vectors[:1])
    collection.delete("d7")
    told = {metric.name: metric for metric in metrics_of_collections([collection])}
    now = {name: metric.samples[0].value for name, metric in told.items() if metric.samples}
    assert now["millpond_index_recall_target"] == 0.9 and 0.9 <= now["millpond_index_recall"] <= 1
    assert now["millpond_index_tail_vectors"] == now["millpond_index_deleted_vectors"] == 1
    assert time.time() - 600 < now["millpond_index_snapshot_timestamp_seconds"] <= time.time()
    assert not told["millpond_index_building"].samples
    engine.close()


def test_a_scrape_tells_what_it_can_where_the_store_fails(served: Deployment) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(served)), base_url="http://here"
        ) as http:
            assert (await http.put("/collections/notes")).status_code == 201
            served.collections.close()
            answer = await http.get("/metrics")
            assert answer.status_code == 200 and "millpond_collections 1.0" in answer.text
            assert "collection_documents{" not in answer.text

    asyncio.run(ask())


def test_the_documentation_has_every_metric(http: httpx.Client) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    told = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `((?:millpond|te)_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    }
    http.post("/embed", json={"inputs": " "})  # so that failures have a series
    scraped = {}
    for family in families(http.get("/metrics").text):
        if not family.name.startswith("process_"):
            labels = frozenset(label for sample in family.samples for label in sample.labels if label != "le")
            kind = family.type if family.type != "unknown" else "counter"
            scraped[family.name + "_total" * (family.type == "counter")] = kind, labels
    assert scraped.keys() == told.keys()
    assert {name: kind for name, (kind, _) in scraped.items()} == {name: kind for name, (kind, _) in told.items()}
    assert {name: labels for name, (_, labels) in scraped.items() if labels} == {
        name: told[name][1] for name, (_, labels) in scraped.items() if labels
    }

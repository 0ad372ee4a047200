"""A collection is embedded anew from its stored text while it is served; nothing that was acknowledged is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.problems import problem
from tests.support.servers import ROOT, Server

MANY = 160
"""Documents that take some seconds to embed."""
ABOUT = "the flow of air over a slender body of revolution at an angle of attack, measured in a wind tunnel " * 4


def document(name: str, version: int = 0) -> dict[str, Any]:
    return {"id": name, "text": f"Report {name}, edition {version}: {ABOUT}", "metadata": {"version": version}}


def store(http: httpx.Client, path: str, documents: list[dict[str, Any]], **options: Any) -> None:
    assert http.post(f"{path}/documents", json={"documents": documents, **options}).status_code == 200


def state(http: httpx.Client, path: str) -> dict[str, Any]:
    answer = http.get(f"{path}/reindex")
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait(http: httpx.Client, path: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while not until(now := state(http, path)):
        assert time.monotonic() < deadline, now
        time.sleep(0.02)
    return now


def ended(http: httpx.Client, path: str) -> dict[str, Any]:
    return wait(http, path, lambda now: now["state"] != "running")


def ranked(http: httpx.Client, path: str, k: int = 1000) -> list[tuple[str, float]]:
    answer = http.post(f"{path}/search", json={"query": "lift and drag of a wing", "k": k})
    assert answer.status_code == 200, answer.text
    return [(hit["id"], hit["score"]) for hit in answer.json()["hits"]]


def same(left: list[tuple[str, float]], right: list[tuple[str, float]]) -> bool:
    """Whether the same documents have the same scores."""
    return dict(left) == pytest.approx(dict(right), abs=2e-5)


@pytest.fixture
def many(http: httpx.Client, collection: str) -> Iterator[str]:
    """A collection of the model `mean` that takes some seconds to embed."""
    store(http, collection, [document(str(number)) for number in range(MANY)])
    yield collection
    http.delete(f"{collection}/reindex")


def test_nothing_to_do(http: httpx.Client, collection: str) -> None:
    problem(http.get(f"{collection}/reindex"), 404, "has no reindex", "millpond reindex")
    problem(http.delete(f"{collection}/reindex"), 404, "no reindex that could be abandoned")
    problem(http.post("/collections/nowhere/reindex"), 404, "there is no collection 'nowhere'")
    store(http, collection, [document("a")])
    for body in (None, {}, {"model": "mean"}, {"pooling": "mean"}, {"model": "mean", "pooling": "declared"}):
        answer = http.post(f"{collection}/reindex", json=body)
        assert answer.status_code == 200
        now = answer.json()
        assert (now["state"], now["done"], now["total"], now["error"]) == ("unneeded", 1, 1, None)
        assert now["from"] == now["to"]
    assert http.get(f"{collection}/reindex").status_code == 404
    before = ranked(http, collection)
    assert http.post(f"{collection}/reindex", json={"force": True}).status_code == 202
    assert ended(http, collection)["state"] == "complete"
    assert same(ranked(http, collection), before)


@pytest.mark.parametrize(
    ("body", "model", "pooling", "dimension"),
    [
        ({"model": "cls"}, "cls", "cls", 384),
        ({"pooling": "mean + max"}, "mean", "mean + max", 768),
        ({"model": "max", "pooling": "cls"}, "max", "cls", 384),
    ],
)
def test_another_model_or_pooling(
    http: httpx.Client, collection: str, body: dict[str, str], model: str, pooling: str, dimension: int
) -> None:
    documents = [document(str(number)) for number in range(5)]
    store(http, collection, documents)
    before = http.get(collection).json()
    begun = http.post(f"{collection}/reindex", json=body)
    assert begun.status_code == 202
    now = ended(http, collection)
    after = http.get(collection).json()
    assert (now["state"], now["done"], now["total"], now["error"]) == ("complete", 5, 5, None)
    assert now["texts_per_second"] > 0
    for side, described in (("from", before), ("to", after)):
        told = {key: described[key] for key in ("model", "pooling", "fingerprint", "similarity")}
        assert now[side] == told | {"layers": None, "chunking": None}
    assert (after["model"], after["pooling"], after["dimension"], after["count"]) == (model, pooling, dimension, 5)
    assert after["created"] == before["created"]
    anew = f"{collection}-anew"
    assert http.put(anew, json=body).status_code == 201
    store(http, anew, documents)
    assert same(ranked(http, collection), ranked(http, anew))
    http.delete(anew)
    # Another time without saying anything, it keeps what it has; naming its model takes that model's own pooling.
    assert http.post(f"{collection}/reindex").json()["state"] == "unneeded"
    assert http.post(f"{collection}/reindex", json={"model": "mean"}).json()["to"] == now["from"]
    assert ended(http, collection)["state"] == "complete"
    assert http.post(f"{collection}/reindex", json={"model": "mean"}).status_code == 200


@pytest.mark.slow
def test_it_is_served_meanwhile_joined_abandoned_and_dropped(
    http: httpx.Client, many: str, side_by_side: Server
) -> None:
    before = ranked(http, many)
    begun = http.post(f"{many}/reindex", json={"model": "cls"}).json()
    assert (begun["state"], begun["total"]) == ("running", MANY)
    joined = http.post(f"{many}/reindex", json={"model": "cls"})
    assert (joined.status_code, joined.json()["state"]) == (202, "running")
    for other in ({"model": "max"}, {"model": "cls", "truncate": True}, {"model": "mean", "force": True}):
        refusal = problem(http.post(f"{many}/reindex", json=other), 409, "under way", "'cls'", "--abandon")
        assert refusal["type"] == "urn:millpond:reindex-running"
    now = wait(http, many, lambda now: now["done"] > 0)
    assert now["state"] == "running" and now["texts_per_second"] > 0
    assert ranked(http, many) == before
    assert http.delete(f"{many}/reindex").status_code == 204
    problem(http.get(f"{many}/reindex"), 404, "has no reindex")
    assert ranked(http, many) == before
    assert http.get(many).json()["model"] == "mean"
    # What was made is gone: another one begins with the first document.
    assert http.post(f"{many}/reindex", json={"model": "max"}).json()["done"] == 0
    wait(http, many, lambda now: now["done"] > 0)
    assert http.delete(many).status_code == 204
    problem(http.get(f"{many}/reindex"), 404, "there is no collection")
    assert http.put(many).status_code == 201
    problem(http.get(f"{many}/reindex"), 404, "has no reindex")
    assert http.get(many).json()["count"] == 0
    assert "Traceback" not in side_by_side.log.read_text()


def test_texts_that_are_too_long(http: httpx.Client, collection: str) -> None:
    documents = [document(str(number)) for number in range(3)]
    long = [{"id": f"long {number}", "text": "wing " * (300 + number)} for number in range(2)]
    store(http, collection, documents)
    store(http, collection, long, truncate=True)
    before = ranked(http, collection)
    assert http.post(f"{collection}/reindex", json={"model": "cls"}).status_code == 202
    now = ended(http, collection)
    assert (now["state"], now["done"], now["total"]) == ("failed", 3, 5)
    for words in ("2 documents cannot", "'long 0' has 302 tokens", "'long 1' has 303", "takes 256", "--truncate"):
        assert words in now["error"]
    assert ranked(http, collection) == before
    assert http.post(f"{collection}/reindex", json={"model": "cls", "truncate": True}).status_code == 202
    assert ended(http, collection)["state"] == "complete"
    anew = f"{collection}-anew"
    http.put(anew, json={"model": "cls"})
    store(http, anew, documents + long, truncate=True)
    assert same(ranked(http, collection), ranked(http, anew))
    http.delete(anew)


@pytest.mark.slow
def test_many_texts_that_are_too_long_are_not_all_looked_for(http: httpx.Client, collection: str) -> None:
    store(http, collection, [{"id": str(n), "text": "wing " * 300} for n in range(30)], truncate=True)
    http.post(f"{collection}/reindex", json={"model": "cls"})
    now = ended(http, collection)
    assert (now["state"], now["done"]) == ("failed", 0)
    assert "20 documents (and maybe others)" in now["error"] and len(now["error"]) < 2500


def test_what_is_not_served(http: httpx.Client, collection: str) -> None:
    problem(http.post(f"{collection}/reindex", json={"model": "maen"}), 404, "Did you mean 'mean'?")
    problem(http.post(f"{collection}/reindex", json={"pooling": "maen"}), 422, "maen")
    problem(http.post(f"{collection}/reindex", json={"pooling": "attention"}), 422, "learned")
    problem(http.post(f"{collection}/reindex", json={"modle": "mean"}), 422, "Did you mean 'model'?")
    problem(http.post(f"{collection}/reindex", content=b"{", headers={"content-type": "application/json"}), 400)
    problem(http.get(f"{collection}/reindex"), 404)


@pytest.mark.slow
def test_a_full_queue_is_waited_for(small: Server) -> None:
    http = small.http
    http.put("/collections/waiting")
    store(http, "/collections/waiting", [document(str(number)) for number in range(20)])
    over = threading.Event()
    refused = threading.Event()

    def hammer() -> None:
        with httpx.Client(base_url=small.url, timeout=60) as client:
            while not over.is_set():
                if client.post("/embed", json={"inputs": [ABOUT] * 16}).status_code == 503:
                    refused.set()

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(hammer)
        try:
            assert refused.wait(60)
            assert http.post("/collections/waiting/reindex", json={"pooling": "cls"}).status_code == 202
            refused.clear()
            assert refused.wait(60)
        finally:
            over.set()
    assert ended(http, "/collections/waiting")["state"] == "complete"
    http.delete("/collections/waiting")


@pytest.mark.slow
def test_kill_in_the_middle_under_concurrent_writes(tmp_path: Path) -> None:
    """Every acknowledged write is in the collection after it, which is then as one that was made anew.

    Each document is one sentence, and so one span of the new collection.
    """
    target = {"pooling": "cls", "chunking": {"by": "sentence"}}
    config, path, store_path = ROOT / "configs" / "mean.yaml", "/collections/reports", tmp_path / "store"
    acknowledged: dict[str, dict[str, Any] | None] = {}  # None where the document was deleted
    in_doubt: set[str] = set()

    def write(server: Server, writer: int, run: int, over: threading.Event, deletes: range) -> None:
        """Replaces documents, adds some, deletes some, until the service is gone or it is over."""
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(100_000):
                if over.is_set():
                    return
                batch = [document(str((7 * number + writer) % 200), 1000 * run + number), document(f"{run}/{number}")]
                batch = [each | {"id": f"{each['id']}.{writer}"} for each in batch]
                gone = f"{deletes[number]}.x" if number < len(deletes) else None
                in_doubt.update(each["id"] for each in batch)
                in_doubt.update({gone} if gone else ())
                try:
                    assert client.post(f"{path}/documents", json={"documents": batch}).status_code == 200
                    for each in batch:
                        acknowledged[each["id"]] = each
                        in_doubt.discard(each["id"])
                    if gone:
                        assert client.delete(f"{path}/documents/{gone}").status_code == 204
                        acknowledged[gone] = None
                        in_doubt.discard(gone)
                except httpx.TransportError:
                    return

    with Server(config, store_path) as server:
        assert server.http.put(path).status_code == 201
        first = [document(f"{number}.x") for number in range(MANY)]
        store(server.http, path, first)
        acknowledged |= {each["id"]: each for each in first}
        assert server.http.post(f"{path}/reindex", json=target).status_code == 202
        with ThreadPoolExecutor(2) as pool:
            for writer, deletes in enumerate((range(0, 5), range(MANY - 5, MANY))):
                pool.submit(write, server, writer, 0, threading.Event(), deletes)
            wait(server.http, path, lambda now: now["done"] >= MANY // 3)
            assert state(server.http, path)["state"] == "running"
            server.kill()

    unsure = set(in_doubt)
    with Server(config, store_path) as server:
        log = server.log.read_text()
        assert "a reindex was interrupted" in log and "`millpond reindex reports` goes on with it" in log
        now = state(server.http, path)
        assert now["state"] == "interrupted" and MANY // 4 < now["done"] < now["total"]
        assert (now["from"]["pooling"], now["to"]["pooling"]) == ("mean", "cls")
        assert server.http.get(path).json()["pooling"] == "mean"
        check(server.http, path, acknowledged, unsure)
        assert server.http.post(f"{path}/reindex", json=target).status_code == 202
        assert wait(server.http, path, lambda later: later["done"] > 0)["done"] >= now["done"]
        over = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(write, server, writer, 1, over, range(0)) for writer in range(2)]
            try:
                # It comes to its end although the writers go on.
                assert ended(server.http, path)["state"] == "complete"
            finally:
                over.set()
            for one in writers:
                one.result(60)
        assert server.http.get(path).json()["pooling"] == "cls"
        check(server.http, path, acknowledged, unsure)
        found = server.http.post(f"{path}/search", json={"query": "lift", "k": 10_000}).json()["hits"]
        assert server.http.put("/collections/anew", json=target).status_code == 201
        store(server.http, "/collections/anew", [{key: hit[key] for key in ("id", "text")} for hit in found])
        assert same(ranked(server.http, path, 10_000), ranked(server.http, "/collections/anew", 10_000))
        about = server.http.get(path).json()
        assert about["chunks"] == about["count"]

    with Server(config, store_path) as server:
        assert server.http.get(path).json() == about
        assert "WARNING" not in server.log.read_text()
        assert server.http.post(f"{path}/reindex").json()["state"] == "unneeded"


def check(http: httpx.Client, path: str, acknowledged: dict[str, dict[str, Any] | None], unsure: set[str]) -> None:
    """What was acknowledged is there as it was sent last, unless it was sent again without an answer."""
    found = http.post(f"{path}/search", json={"query": "lift", "k": 10_000}).json()["hits"]
    stored = {hit["id"]: hit for hit in found}
    assert len(stored) == len(found) == http.get(path).json()["count"]
    for name, sent in acknowledged.items():
        if name in unsure:
            continue
        assert (sent is None) == (name not in stored), name
        assert sent is None or stored[name]["text"] == sent["text"]
    assert stored.keys() - acknowledged.keys() <= unsure

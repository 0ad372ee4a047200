"""`millpond cluster serve` over a Milvus server: replicas share documents, and they and the server may be killed.

No document that was acknowledged is lost, what cannot be done now is answered with 503 and `Retry-After`, and all
goes on without a restart of what was not killed.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.applications import EXPORTED
from tests.support.clusters import ClusterServer
from tests.support.milvus import MilvusServer
from tests.support.servers import ROOT

pytest.importorskip(
    "ray.serve", reason="Ray Serve is not installed: pip install 'millpond[ray]'", exc_type=ImportError
)

pytestmark = pytest.mark.peers

SIZE = 10
"""Documents of a request."""
WRITERS, SEARCHERS = 3, 2
PATIENCE = 180
DOCUMENTS = "/collections/notes/documents"
CHUNKED = {"index": "flat", "chunking": {"by": "sentence"}}


@pytest.fixture(scope="module")
def server(milvus_server: MilvusServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServer]:
    config = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "store": {"engine": "milvus", "uri": milvus_server.uri},
        "cluster": {"replicas": 2},
    }
    with ClusterServer(tmp_path_factory.mktemp("cluster"), config) as started:
        yield started


@pytest.fixture
def notes(server: ClusterServer) -> Iterator[httpx.Client]:
    """A client of a cluster with two replicas and one empty collection, `notes`."""
    wait_until(lambda: len(server.replicas()) == 2)
    made = server.http.put("/collections/notes", json=CHUNKED)
    assert made.status_code == 201, made.text
    yield server.http
    assert server.http.delete("/collections/notes").status_code == 204


class Clients:
    """Threads that store, delete and search all the time, each request again until it is acknowledged.

    What is refused has to be a 503 with `Retry-After`; anything else ends the thread and fails the test.
    """

    def __init__(self, url: str, writers: int = WRITERS, searchers: int = SEARCHERS) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        """What was acknowledged, without what was acknowledged as deleted."""
        self.acknowledged = self.searched = 0
        self.refused: list[dict[str, Any]] = []
        self._url = url
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        jobs = [*((self._write, n) for n in range(writers)), *((self._search, n) for n in range(searchers))]
        self._threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in jobs]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self._failed:
            raise self._failed[0]

    def wait(self, requests: int = 15, searches: int = 15) -> None:
        """Wait for so many more requests to change something, and so many searches, that are acknowledged."""
        wanted = self.acknowledged + requests, self.searched + searches
        self.wait_until(lambda: self.acknowledged >= wanted[0] and self.searched >= wanted[1])

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: bool(self._failed) or condition())
        assert self._failed == []

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} changes and {self.searched} searches acknowledged, {len(self.refused)} refused; "
            f"{len(self.stored)} documents"
        )

    def _run(self, job: Callable[[httpx.Client, int], None], number: int) -> None:
        try:
            with httpx.Client(base_url=self._url, timeout=PATIENCE, trust_env=False) as http:
                for turn in itertools.count():
                    if self._over.is_set():
                        return
                    job(http, number * 1_000_000 + turn)
        except BaseException as error:
            self._failed.append(error)

    def _write(self, http: httpx.Client, turn: int) -> None:
        documents = some_documents(turn)
        self._ask(http, "POST", DOCUMENTS, {200}, {"documents": documents})
        self.stored |= {each["id"]: each for each in documents}
        # one that a replica has deleted before it died, another one does not find
        self._ask(http, "DELETE", f"{DOCUMENTS}/{documents[0]['id']}", {204, 404})
        del self.stored[documents[0]["id"]]
        self.acknowledged += 2

    def _search(self, http: httpx.Client, turn: int) -> None:
        answer = self._ask(http, "POST", "/collections/notes/search", {200}, {"query": f"number {turn}", "k": 3})
        assert len(answer.json()["hits"]) == 3 or len(self.stored) < 3
        self.searched += 1

    def _ask(self, http: httpx.Client, method: str, path: str, done: set[int], body: Any = None) -> httpx.Response:
        while (answer := http.request(method, path, json=body)).status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0
            self.refused.append(answer.json())
            time.sleep(0.2)
        assert answer.status_code in done, answer.text
        return answer


def some_documents(turn: int) -> list[dict[str, Any]]:
    ids = [f"{turn}-{place}" for place in range(SIZE)]
    return [{"id": id_, "text": f"Number {id_} is one. It has two.", "metadata": {"of": id_}} for id_ in ids]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def exported(http: httpx.Client, name: str = "notes") -> dict[str, dict[str, Any]]:
    """All documents of a collection, each with a vector for each of its sentences."""
    answer = http.get(f"/collections/{name}/export", params={"include": "vectors"})
    assert answer.status_code == 200, answer.text
    found = {each["id"]: each for each in map(json.loads, answer.text.splitlines())}
    assert all(len(each["vectors"]) == len(each["spans"]) == 2 for each in found.values())
    return found


def require_all(http: httpx.Client, stored: dict[str, dict[str, Any]]) -> None:
    """Ask often enough that both replicas answer."""
    for _ in range(4):
        found = exported(http)
        assert {id_: {key: each[key] for key in ("id", "text", "metadata")} for id_, each in found.items()} == stored
        assert http.get("/collections/notes").json()["count"] == len(stored)


def answering(http: httpx.Client) -> dict[str, float]:
    """How many vectors each replica has made."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("millpond_vectors_total{")]
    return {line.split('replica="')[1].split('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_what_one_replica_stores_any_other_finds_counts_and_deletes(notes: httpx.Client) -> None:
    batches = [some_documents(turn) for turn in range(12)]
    for batch in batches:
        assert notes.post(DOCUMENTS, json={"documents": batch}).status_code == 200
    stored = {each["id"]: each for batch in batches for each in batch}
    require_all(notes, stored)
    for id_ in ("3-7", "7-3", "11-0", "0-0"):
        asked = {"query": f"Number {id_}", "k": 4, "filter": {"of": id_}}
        hits = [
            notes.post("/collections/notes/search", json=asked).raise_for_status().json()["hits"] for _ in range(4)
        ]
        assert [hit["id"] for hit in hits[0]] == [id_] * 2 and hits == [hits[0]] * 4
    assert len(answering(notes)) == 2 and all(answering(notes).values())  # each has embedded queries and documents
    for id_ in ("3-7", "7-3", "11-0", "0-0"):
        assert notes.delete(f"{DOCUMENTS}/{id_}").status_code == 204
        del stored[id_]
        for _ in range(4):
            assert notes.get(f"{DOCUMENTS}/{id_}").status_code == 404
            assert notes.get("/collections/notes").json()["count"] == len(stored)
    require_all(notes, stored)


def test_replicas_are_killed_in_mid_upsert(server: ClusterServer, notes: httpx.Client) -> None:
    edge, sent_again = server.process.pid, server.log.read_text().count("is sent to another replica")
    with Clients(server.url) as clients:
        clients.wait()
        for _ in range(2):
            killed = server.kill_a_replica()
            clients.wait()  # by the other one, before the next is there
            wait_until(lambda: len(set(server.replicas()) - {killed}) == 2)  # noqa: B023
            clients.wait()
    assert clients.refused == []
    assert server.log.read_text().count("is sent to another replica") > sent_again
    assert server.process.pid == edge and server.process.poll() is None
    require_all(notes, clients.stored)
    print(f"two replicas killed: {clients}")


def test_the_milvus_server_is_killed_in_mid_upsert(
    milvus_server: MilvusServer, server: ClusterServer, notes: httpx.Client
) -> None:
    replicas = {each.pid for each in server.replicas()}
    with Clients(server.url) as clients:
        clients.wait()
        milvus_server.kill()
        clients.wait_until(lambda: len(clients.refused) >= 10)
        assert notes.get("/ready").status_code == 503
        assert notes.get("/health").status_code == 200
        assert notes.post("/embed", json={"inputs": "a text"}).status_code == 200
        milvus_server.start()
        clients.wait()
    assert {each["code"] for each in clients.refused} == {"store_unavailable"}
    assert {each.pid for each in server.replicas()} == replicas
    wait_until(lambda: notes.get("/ready").status_code == 200)
    require_all(notes, clients.stored)
    print(f"Milvus killed: {clients}")


def test_a_reindex_ends_and_is_right_while_documents_are_searched_and_stored(
    server: ClusterServer, notes: httpx.Client
) -> None:
    old = {each["id"]: each for turn in range(900, 1000) for each in some_documents(turn)}
    notes.post(DOCUMENTS, json={"documents": [*old.values()]}).raise_for_status()
    notes.put("/aliases/live", json={"collection": "notes"}).raise_for_status()
    told = []
    with Clients(server.url, writers=1) as clients:
        clients.wait(2)
        assert notes.post("/collections/notes/reindex", json={"pooling": "max"}).status_code == 202
        while not told or told[-1]["state"] == "running":
            told.append(notes.get(f"/collections/{('notes', 'live')[len(told) % 2]}/reindex").json())
            time.sleep(0.05)
        clients.wait(4)
    assert {each["state"] for each in told[:-1]} == {"running"} and told[-1]["state"] == "complete", told
    assert len(told) > 5 and clients.refused == []
    stored = old | clients.stored
    require_all(notes, stored)
    for name in ("notes", "live") * 2:
        assert notes.get(f"/collections/{name}").json()["pooling"] == "max"
        assert notes.get(f"/collections/{name}/reindex").json()["state"] == "complete"
    assert notes.put("/collections/anew", json={**CHUNKED, "pooling": "max"}).status_code == 201
    notes.post("/collections/anew/documents", json={"documents": [*stored.values()]}).raise_for_status()
    reindexed, anew = exported(notes), exported(notes, "anew")
    assert reindexed.keys() == anew.keys()
    for id_, document in anew.items():
        for got, wanted in zip(reindexed[id_]["vectors"], document["vectors"], strict=True):
            assert got == pytest.approx(wanted, abs=1e-5)
    assert notes.delete("/collections/anew").status_code == 204
    print(f"reindexed, told {len(told)} times: {clients}")


def test_a_reindex_whose_replica_is_killed_is_gone_on_with(server: ClusterServer, notes: httpx.Client) -> None:
    documents = [each for turn in range(100) for each in some_documents(turn)]
    notes.post(DOCUMENTS, json={"documents": documents}).raise_for_status()
    command = [sys.executable, "-m", "service", "reindex", "notes", "--pooling", "max", "--url", server.url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reindex:
        wait_until(lambda: notes.get("/collections/notes/reindex").json().get("done", 0) >= 64)
        for replica in server.replicas():  # the one that runs it among them
            replica.kill()
        said, _ = reindex.communicate(timeout=PATIENCE)
    assert reindex.returncode == 1 and "was interrupted" in " ".join(said.split()), said
    told = notes.get("/collections/notes/reindex").json()
    assert told["state"] == "interrupted" and told["done"] >= 64
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0 and "1000 documents of 'notes' re-embedded" in again.stdout, again
    assert notes.get("/collections/notes").json()["pooling"] == "max"
    require_all(notes, {each["id"]: each for each in documents})

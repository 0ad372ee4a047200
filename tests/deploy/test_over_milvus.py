"""Replicas over one Milvus server, one of them killed, behind a real nginx with the configuration that is shipped."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.applications import EXPORTED
from tests.support.milvus import MilvusServer, missing_milvus
from tests.support.nginx import NEEDS_NGINX, proxy
from tests.support.servers import Launcher, Server

pytestmark = [pytest.mark.peers, NEEDS_NGINX]
WRITERS = 2
SIZE = 20
KILLS = 1


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[MilvusServer]:
    if missing := missing_milvus():
        pytest.skip(missing)
    server = MilvusServer(tmp_path / "milvus")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def replicas(milvus: MilvusServer, tmp_path: Path) -> Iterator[list[Server]]:
    config = tmp_path / "config.yaml"
    said = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "threads": 1},
        "store": {"engine": "milvus", "uri": milvus.uri},
    }
    config.write_text(yaml.safe_dump(said))
    with ExitStack() as stack:
        yield [stack.enter_context(Server(config, tmp_path / f"store-{number}")) for number in range(2)]


@pytest.fixture
def gateway(replicas: list[Server], tmp_path: Path) -> Iterator[Launcher]:
    ports = {f"api-{number}": replica.port for number, replica in enumerate(replicas, 1)}
    with proxy("nginx-milvus.conf", ports, tmp_path) as running:
        yield running


class Writers:
    """Clients that store documents by the gateway all the time, and repeat nothing; they note every answer."""

    def __init__(self, url: str) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.failed: list[httpx.Response | Exception] = []
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(WRITERS)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more documents are acknowledged."""
        wanted, until = len(self.stored) + more, time.monotonic() + 120
        while len(self.stored) < wanted:
            assert time.monotonic() < until and any(thread.is_alive() for thread in self._threads)
            time.sleep(0.02)

    def _run(self, number: int) -> None:
        turn = 0
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while not self._over.is_set():
                ids = [f"{number}-{turn}-{place}" for place in range(SIZE)]
                documents = [{"id": id_, "text": f"{id_} turns.", "metadata": {"of": id_}} for id_ in ids]
                try:
                    answer = http.post("/collections/notes/documents", json={"documents": documents})
                except httpx.HTTPError as error:
                    self.failed.append(error)
                else:
                    if answer.status_code == 200:
                        self.stored |= {each["id"]: each for each in documents}
                    else:
                        self.failed.append(answer)
                turn += 1


def held(http: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = http.get("/collections/notes/export").raise_for_status()
    return {each["id"]: each for each in map(json.loads, answer.text.splitlines())}


def test_replicas_are_killed_in_mid_upsert_and_no_request_fails(replicas: list[Server], gateway: Launcher) -> None:
    assert gateway.http.put("/collections/notes", json={"index": "flat"}).status_code == 201
    with Writers(gateway.url) as writers:
        writers.wait_for(5 * SIZE)
        for replica in replicas * KILLS:
            replica.kill()
            writers.wait_for(5 * SIZE)  # by the other one
            replica.__enter__()
            writers.wait_for(5 * SIZE)
    assert writers.failed == [], gateway.last_words()
    for http in (gateway.http, *(replica.http for replica in replicas)):
        assert held(http) == writers.stored
        assert http.get("/collections/notes").json()["count"] == len(writers.stored)
    hits = gateway.http.post("/collections/notes/search", json={"query": "0-0-0 turns.", "k": 3}).json()["hits"]
    assert len(hits) == 3
    print(f"{len(writers.stored)} documents acknowledged and found, {2 * KILLS} kills, no request failed")


def test_what_two_replicas_say_is_the_same_and_milvus_lost_is_a_503(
    milvus: MilvusServer, replicas: list[Server], gateway: Launcher
) -> None:
    first, second = (replica.http for replica in replicas)
    assert first.put("/collections/notes", json={"index": "flat"}).status_code == 201
    documents = [{"id": str(number), "text": f"Mill {number}.", "metadata": {"n": number}} for number in range(9)]
    gateway.http.post("/collections/notes/documents", json={"documents": documents}).raise_for_status()
    asked = {"query": "A mill.", "k": 5, "filter": {"n": {"$gte": 3}}}
    found = [each.post("/collections/notes/search", json=asked).json()["hits"] for each in (first, second)]
    assert found[0] == found[1] and len(found[0]) == 5
    milvus.kill()
    for http in (gateway.http, first, second):
        until = time.monotonic() + 30
        while (answer := http.post("/collections/notes/search", json=asked)).status_code != 503:
            assert time.monotonic() < until
        assert answer.json()["code"] == "store_unavailable" and int(answer.headers["Retry-After"]) > 0
    assert gateway.http.post("/embed", json={"inputs": "a text"}).status_code == 200
    assert gateway.http.get("/health").status_code == 200
    milvus.start()
    until = time.monotonic() + 60
    while (answer := gateway.http.post("/collections/notes/search", json=asked)).status_code != 200:
        assert answer.status_code == 503 and time.monotonic() < until
        time.sleep(0.2)
    assert answer.json()["hits"] == found[0]


class BreaksOff:
    """What takes a request and ends the connection, as a replica that is killed then."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.taken: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                line, _, _ = connection.recv(65_536).decode().partition("\r\n")
                if "/health" in line:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                else:
                    self.taken.append(line.removesuffix(" HTTP/1.1"))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        ("POST", "/collections/notes/documents", 2),
        ("POST", "/collections/notes/search", 2),
        ("POST", "/collections/notes/documents/metadata", 2),
        ("DELETE", "/collections/notes/documents/copy", 2),
        ("PUT", "/collections/reindex", 2),
        ("POST", "/embed", 2),
        ("POST", "/collections/notes/copy", 1),
        ("POST", "/collections/notes/rename", 1),
        ("POST", "/collections/notes/reindex", 1),
        ("GET", "/collections/notes/reindex", 2),
    ],
)
def test_what_is_sent_again(
    method: str, path: str, times: int, tmp_path: Path, closing_all: Callable[[BreaksOff], BreaksOff]
) -> None:
    both = [closing_all(BreaksOff()) for _ in range(2)]
    ports = {f"api-{number}": each.port for number, each in enumerate(both, 1)}
    with proxy("nginx-milvus.conf", ports, tmp_path, ready="/health") as gateway:
        answer = gateway.http.request(method, path, json={"texts": "some"}, timeout=20)
    assert answer.status_code == 502
    assert [line for each in both for line in each.taken] == [f"{method} {path}"] * times


@pytest.fixture
def closing_all() -> Iterator[Callable[[BreaksOff], BreaksOff]]:
    with ExitStack() as stack:

        def keep(each: BreaksOff) -> BreaksOff:
            stack.callback(each.close)
            return each

        yield keep

"""Replicas behind a real nginx with the configuration that is shipped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.nginx import NEEDS_NGINX
from tests.support.nginx import proxy as nginx
from tests.support.servers import ROOT, Launcher, Server

pytestmark = [pytest.mark.peers, NEEDS_NGINX]

TEXTS = [f"The wheel of mill number {number} turns when water flows over it." for number in range(8)]
RESTARTS = 2
CLIENTS = 6


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Server(ROOT / "configs" / "mean.yaml", tmp_path / f"store-{number}"))
            for number in range(2)
        ]


@pytest.fixture
def proxy(replicas: list[Server], tmp_path: Path) -> Iterator[Launcher]:
    ports = {f"millpond-{number}": replica.port for number, replica in enumerate(replicas, 1)}
    with nginx("nginx.conf", ports, tmp_path) as running:
        yield running


class Clients:
    """Ask for the same vectors over and over, each over a connection of its own, and note every answer."""

    def __init__(self, url: str) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while not self._over.is_set():
                try:
                    self.answers.append(http.post("/embed", json={"inputs": TEXTS}))
                except httpx.HTTPError as error:
                    self.answers.append(error)

    def wait_for(self, more: int) -> None:
        """Wait until there are so many more answers."""
        wanted, deadline = len(self.answers) + more, time.monotonic() + 120
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_replicas_are_restarted_in_turn_and_no_request_fails(replicas: list[Server], proxy: Launcher) -> None:
    wanted = np.array(proxy.http.post("/embed", json={"inputs": TEXTS}).raise_for_status().json())
    with Clients(proxy.url) as clients:
        clients.wait_for(100)
        for replica in replicas * RESTARTS:
            assert replica.stop() == 0
            clients.wait_for(50)  # of the other one
            replica.__enter__()
            clients.wait_for(100)
    failed = [
        answer for answer in clients.answers if not isinstance(answer, httpx.Response) or answer.status_code != 200
    ]
    print(f"{len(clients.answers)} requests, {2 * RESTARTS} restarts, {len(failed)} failed")
    assert not failed, (failed[0], proxy.last_words())
    for answer in clients.answers:
        assert isinstance(answer, httpx.Response)
        np.testing.assert_allclose(answer.json(), wanted, atol=1e-5)

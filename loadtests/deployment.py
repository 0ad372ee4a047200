"""The service under load: one that runs already, or one started for the occasion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx

from tests.support import datasets
from tests.support.servers import ROOT, Server

PATIENCE: Final = 600.0
"""Seconds until the service must be ready; the first start of a deployment may convert or download its model."""


class ServiceFailed(Exception):
    """The service could not be asked or ended, or ended by itself; the message says why."""


@dataclass(frozen=True)
class Facts:
    """What `/info` says of a deployment."""

    model: str
    dimension: int
    summary: str


class Service:
    """A running service.

    Args:
        url: where it is.
        server: its process, where that was started here.

    """

    def __init__(self, url: str, server: Server | None = None) -> None:
        self.url = url.rstrip("/")
        self._server = server
        self.pid = server.process.pid if server else None
        """Of its process, where that is known to be on this machine."""

    def client(self) -> httpx.Client:
        """Make a client without proxies, as Locust's is."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def facts(self) -> Facts:
        """Ask for its default model and what that runs on."""
        with self.client() as client:
            info = client.get("/info").raise_for_status().json()
        name = info["default_model"]
        model = info["models"][name]
        summary = (
            f"Millpond {info['version']}, {model['encoder']}, pooling {model['pooling']}, "
            f"{model['backend']} {model['precision']}, {model['streams']} streams"
        )
        return Facts(name, model["dimension"], summary)

    def require_alive(self) -> None:
        """Raise `ServiceFailed` where it has ended by itself; of a service elsewhere the requests tell that."""
        if self._server and (status := self._server.process.poll()) is not None:
            raise ServiceFailed(f"the service ended with status {status}. {self._server.last_words()}")


@contextmanager
def running(url: str) -> Iterator[Service]:
    """Give the service at a URL, which is left as it is; raises `ServiceFailed` where it is not ready."""
    service = Service(url)
    try:
        with service.client() as client:
            ready = client.get("/ready").status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        ready = False
    if not ready:
        raise ServiceFailed(f"{service.url}/ready does not answer 200; start a service there, or leave --url out")
    yield service


@contextmanager
def started(config: Path, folder: Path) -> Iterator[Service]:
    """Run `millpond serve` with an empty store until the end of the `with` block.

    Args:
        config: the deployment's YAML file; environment variables apply to it as always.
        folder: for its store and its log.

    Raises:
        NotStarted: it did not become ready.
        ServiceFailed: asked to end, it failed.

    """
    with Server(config, folder / "store", os.environ, PATIENCE, precision=None) as server:
        yield Service(server.url, server)
        status = server.stop()
        if status != 0:
            raise ServiceFailed(f"asked to end, the service ended with status {status}. {server.last_words()}")


@contextmanager
def cranfield(service: Service) -> Iterator[str]:
    """Store Cranfield's documents in a new collection, by `millpond index`; it is dropped in the end.

    Raises:
        ServiceFailed: the documents could not be stored.

    """
    name = f"loadtest-{uuid4().hex[:8]}"
    source = datasets.folder() / "cranfield"
    command = [sys.executable, "-m", "service", "index", str(source), "--collection", name, "--truncate"]
    try:
        status = subprocess.run([*command, "--url", service.url], cwd=ROOT).returncode
        if status != 0:
            raise ServiceFailed(f"`millpond index` of Cranfield ended with status {status}; see above")
        yield name
    finally:
        try:
            with service.client() as client:
                client.delete(f"/collections/{name}")
        except httpx.HTTPError as error:
            print(f"the collection {name} may be left at {service.url}: {error!r}", file=sys.stderr)

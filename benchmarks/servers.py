"""Servers to measure: each a process on a port of 127.0.0.1, ended with everything under it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import Client, Load, Outcome, Request
from benchmarks.machine import cpu_seconds, resident_mb


class NotStarted(RuntimeError):
    """A server ended, or was not ready in time; the message is the end of its log."""


class Server(ABC):
    """Starts a server and waits until it is ready; ends it on leaving the `with` block.

    Args:
        name: what tables call it.
        folder: where it runs; its log goes there too.

    """

    ready = "/health"
    patience = 180.0
    counted: Literal["data", "list"] = "data"
    """Where an answer to `embed_request` has its vectors."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder = folder
        self.log = folder / f"{self.port}.log"
        self.ready_after = 0.0
        """Seconds from the process's start to the first 200 of `ready`."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What runs it."""

    def environment(self) -> Mapping[str, str]:
        """Its environment variables. Settings of a deployment that happens to be configured here are none of them."""
        return {
            name: value for name, value in os.environ.items() if not (name.startswith("MILLPOND_") and "__" in name)
        }

    @abstractmethod
    def embed_request(self, texts: Sequence[str]) -> Request:
        """A request for vectors of texts."""

    @abstractmethod
    def vectors(self, answer: bytes) -> NDArray[np.float32]:
        """Vectors (texts, dim) from the answer's body."""

    def load(self, texts: Sequence[str], *, clients: int, each: int, seconds: float | None = None) -> Load:
        """`each` texts a request by `clients` at once."""
        requests = [self.embed_request(texts[start : start + each]) for start in range(0, len(texts), each)]
        return Load(self.port, requests, clients, self.counted, seconds)

    def warm_up(self, client: Client, texts: Sequence[str]) -> None:
        """Every load's shapes once, before anything is measured."""
        for clients, each in ((8, 32), (16, 1), (1, 1)):
            client.run(self.load(texts, clients=clients, each=each))

    def ask(self, method: str, path: str, body: str | None = None, timeout: float = 300) -> tuple[int, bytes]:
        """Status and body of one request, outside of any measurement."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of a few texts.

        Raises:
            RuntimeError: the server refused them.

        """
        request = self.embed_request(texts)
        status, body = self.ask(request.method, request.path, request.body)
        if status != 200:
            raise RuntimeError(f"{self.name} answered {status}: {body[:300]!r}")
        return self.vectors(body)

    @property
    def memory(self) -> float:
        """Resident memory of its processes, in MB."""
        return resident_mb(self.process.pid)

    @property
    def cpu(self) -> float:
        """Processor time used so far, in seconds."""
        return cpu_seconds(self.process.pid)

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            while not self._is_ready():
                if self.process.poll() is not None:
                    raise NotStarted(f"it ended: {self._last_words()}")
                if time.perf_counter() - started > self.patience:
                    raise NotStarted(f"it was not ready after {self.patience:.0f} s: {self._last_words()}")
                time.sleep(0.01)
        except BaseException:
            self._end()
            raise
        self.ready_after = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()

    def _is_ready(self) -> bool:
        try:
            return self.ask("GET", self.ready, timeout=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _end(self) -> None:
        for sign, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " ".join(lines[-4:])[-600:]


class Bystanders:
    """The servers that run beside the one being measured: they must be idle, so what they use is kept."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self.most = 0.0
        """The largest share of one core that they used together during any load."""

    def run(self, client: Client, server: Server, load: Load) -> Outcome:
        """Run a load on a server, watching the others."""
        others = [other for other in self._servers if other is not server]
        before = sum(other.cpu for other in others)
        outcome = client.run(load)
        self.most = max(self.most, (sum(other.cpu for other in others) - before) / outcome.seconds)
        return outcome


def openai_vectors(data: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """The vectors of an OpenAI answer's `data`, base64."""
    from base64 import b64decode

    return np.stack([np.frombuffer(b64decode(item["embedding"]), dtype=np.float32) for item in data])

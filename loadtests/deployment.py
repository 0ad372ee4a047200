"""The service under load: one that runs already, or one started for the occasion."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import httpx

from benchmarks import datasets

ROOT: Final = Path(__file__).parents[1]
PATIENCE: Final = 600.0
"""Seconds until the service must be ready; the first start of a deployment may convert or download its model."""
LAST_REQUESTS: Final = 30.0
"""Seconds that the service may take to end."""


class ServiceFailed(Exception):
    """The service could not be started, asked or ended; the message says why."""


@dataclass(frozen=True)
class Facts:
    """What `/info` says of a deployment."""

    model: str
    dimension: int
    summary: str


class Service:
    """A service that runs at a URL, which is left as it is.

    Raises, on entering: `ServiceFailed` where it is not ready.
    """

    pid: int | None = None
    """Of its process, where that is known to be on this machine."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __enter__(self) -> Self:
        if not self.ready():
            raise ServiceFailed(f"{self.url}/ready does not answer 200; start a service there, or leave --url out")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Nothing: it is someone else's."""

    def client(self) -> httpx.Client:
        """A client without proxies, as Locust's is."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def ready(self) -> bool:
        """Whether it says that it can serve."""
        try:
            with self.client() as client:
                return client.get("/ready").status_code == 200
        except (httpx.HTTPError, httpx.InvalidURL):
            return False

    def facts(self) -> Facts:
        """Its default model and what that runs on."""
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
        """Raises `ServiceFailed` where it has ended by itself; of a service elsewhere the requests tell that."""


class OwnService(Service):
    """`millpond serve` on a free port with an empty store, from entering the `with` block to leaving it.

    It runs in a session of its own: Ctrl-C reaches the load test alone, which then ends it in its turn.

    Args:
        config: the deployment's YAML file.
        folder: for its store and its log.

    """

    def __init__(self, config: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}")
        self._log = folder / "service.log"
        serve = [sys.executable, "-m", "service", "serve", "--config", str(config.resolve())]
        self._command = [*serve, "--host", "127.0.0.1", "--port", str(port), "--store", str(folder / "store")]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + PATIENCE
        try:
            while not self.ready():
                self.require_alive()
                if time.monotonic() > deadline:
                    raise ServiceFailed(f"the service was not ready in {PATIENCE:.0f} s. {self._last_words()}")
                time.sleep(0.1)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        status = self._end()
        if error is None and status != 0:
            raise ServiceFailed(f"asked to end, the service ended with status {status}. {self._last_words()}")

    def require_alive(self) -> None:
        """Raises `ServiceFailed` where it has ended by itself."""
        if (status := self._process.poll()) is not None:
            raise ServiceFailed(f"the service ended with status {status}. {self._last_words()}")

    def _end(self) -> int:
        """Ask it to end, kill it where it does not; gives its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(LAST_REQUESTS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        said = "\n".join(line for line in lines[-20:] if line.strip())
        return f"Its last words:\n{said}" if said else "It said nothing."


@contextmanager
def cranfield(service: Service) -> Iterator[str]:
    """A new collection with Cranfield's documents, by `millpond index`; it is dropped in the end.

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

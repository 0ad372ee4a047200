"""`millpond cluster serve` as a process, its replicas, and requests that go on meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import psutil
import yaml

from tests.support.servers import ROOT, Launcher, environment_without_settings, free_port

_REPLICA: Final = "ray::ServeReplica"


class ClusterServer(Launcher):
    """`millpond cluster serve` with a Ray cluster of its own, on a free port.

    Args:
        folder: for its config and log.
        config: what the config says.
        env: further environment variables.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], env: Mapping[str, str] | None = None) -> None:
        port = free_port()
        self.config = folder / f"cluster-{port}.yaml"
        self.write(config)
        serve = [sys.executable, "-m", "service", "cluster", "serve", "--host", "127.0.0.1", "--port", str(port)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = {**environment_without_settings(), "PYTHONPATH": path, **(env or {})}
        log = folder / f"cluster-{port}.log"
        super().__init__([*serve, "--config", self.config], port, log, ready="/ready", env=variables, patience=300)

    def write(self, config: Mapping[str, Any]) -> None:
        """Change the config's file."""
        self.config.write_text(yaml.safe_dump(dict(config)))

    def processes(self) -> list[psutil.Process]:
        """Those that it has started, Ray's among them."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def replicas(self) -> list[psutil.Process]:
        """The processes of replicas."""
        found = []
        for each in self.processes():
            try:
                if each.cmdline() and each.cmdline()[0].startswith(_REPLICA):
                    found.append(each)
            except psutil.Error:  # ended meanwhile
                continue
        return found

    def kill_a_replica(self) -> psutil.Process:
        """End one as a power cut would; return which."""
        killed = self.replicas()[0]
        os.kill(killed.pid, signal.SIGKILL)
        return killed


@dataclass
class Load:
    """Clients that send one request after the other, for as long as the `with` block lasts.

    Args:
        url: of the server.
        bodies: what they send to `/embed`, in turn.
        clients: how many at once.
    """

    url: str
    bodies: Sequence[Mapping[str, Any]]
    clients: int = 4
    answers: list[tuple[int, httpx.Response]] = field(default_factory=list)
    """Which body was sent, and what came back."""
    failures: list[str] = field(default_factory=list)
    """Requests that came to no answer."""

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(self.clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def wait(self, answers: int, seconds: float = 60) -> None:
        """Wait for so many more answers."""
        wanted, end = len(self.answers) + answers, time.monotonic() + seconds
        while len(self.answers) < wanted and time.monotonic() < end:
            time.sleep(0.02)
        assert len(self.answers) >= wanted, f"{len(self.answers)} answers, {self.failures[:3]}"

    @property
    def statuses(self) -> Counter[int]:
        """How often each came."""
        return Counter(answer.status_code for _, answer in self.answers)

    def _send(self, client: int) -> None:
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False) as http:
            turn = client
            while not self._over.is_set():
                body = turn % len(self.bodies)
                turn += 1
                try:
                    self.answers.append((body, http.post("/embed", json=self.bodies[body])))
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    self._over.wait(0.05)

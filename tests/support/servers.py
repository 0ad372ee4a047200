"""A real server: `millpond serve` in a process of its own, on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

ROOT = Path(__file__).parents[2]


class Server:
    """Starts the service and waits until it is ready; stops it on leaving the `with` block.

    Its store outlives it, so a second `Server` over the same folder is the service after a restart.
    """

    def __init__(
        self,
        config: Path,
        store: Path,
        env: dict[str, str] | None = None,
        patience: float = 240,
        precision: str = "fp32",  # what parity is shown in, also where the processor would allow for less
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = store
        self.log = store.parent / f"{store.name}-{self.port}.log"
        self._config, self._patience = config, patience
        self._env = {**(os.environ if env is None else env), "MILLPOND_RUNTIME__PRECISION": precision}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "service", "serve", "--config", str(self._config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--store", str(self.store)],
                cwd=ROOT,
                env=self._env,
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=self.url, timeout=300)
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service ended:\n{self.log.read_text()}"
            try:
                if self.http.get("/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the service was not ready in time:\n{self.log.read_text()}")

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

"""Servers in processes of their own: for tests, benchmarks and load tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import httpx

ROOT: Final = Path(__file__).parents[2]
_END_SECONDS: Final = 30.0


class NotStarted(RuntimeError):
    """A server ended before it was ready, or was not ready in time; the message holds the end of its log."""


class Process(Protocol):
    """What is asked of the process of a server, which leads a session of its own."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status; raises `subprocess.TimeoutExpired`."""

    def terminate(self) -> None:
        """Ask it to end."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal."""


class Launcher:
    """A command that serves HTTP: started and ready on entering the `with` block, ended on leaving it.

    It runs in a session of its own, so that Ctrl-C reaches only the program that started it. On leaving it is asked
    to end; `kill` ends its child processes too.

    Args:
        command: what to run.
        port: where it will listen on 127.0.0.1.
        log: the file for its output.
        ready: the path that answers 200 once it can serve.
        cwd: its working directory.
        env: its environment variables.
        patience: seconds until it must be ready.

    Raises, on entering: `NotStarted`.
    """

    process: Process

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        *,
        ready: str = "/health",
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        patience: float = 240,
    ) -> None:
        self.command = command
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.log = log
        self.http = httpx.Client(base_url=self.url, timeout=300, trust_env=False)
        self.ready_after = 0.0
        """Seconds from the start of the process to the first 200 of `ready`."""
        self._ready, self._cwd, self._env, self._patience = ready, cwd, env, patience

    def __enter__(self) -> Self:
        started = time.perf_counter()
        self.process = self._begun()
        try:
            while not self.is_ready():
                if (status := self.process.poll()) is not None:
                    raise NotStarted(f"{self.url} ended with status {status}:\n{self.last_words()}")
                if time.perf_counter() - started > self._patience:
                    raise NotStarted(f"{self.url} was not ready in {self._patience:.0f} s:\n{self.last_words()}")
                time.sleep(0.02)
        except BaseException:
            self.kill()
            raise
        self.ready_after = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.http.close()
        self.stop()

    def _begun(self) -> Process:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self.command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether it answers 200 at `ready`."""
        try:
            return self.http.get(self._ready).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Ask it to end, and kill it where it does not; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """End it and its child processes as a power cut would: SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines[-20:] if line.strip()) or "It said nothing."


class Server(Launcher):
    """`millpond serve` on a free port.

    Its store outlives it, so a second `Server` over the same folder is the service after a restart. Settings in
    environment variables of the program that starts it are not passed on.

    Args:
        config: the deployment's YAML file.
        store: the folder of its store; the log is written beside it.
        env: further environment variables.
        patience: seconds until it must be ready.
        precision: fp32 by default, in which vectors can be compared wherever the tests run; None leaves the choice
            to the config.

    """

    def __init__(
        self,
        config: Path,
        store: Path,
        env: Mapping[str, str] | None = None,
        patience: float = 240,
        precision: str | None = "fp32",
    ) -> None:
        self.store = store
        port = free_port()
        serve = [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", str(port)]
        settings = {"MILLPOND_RUNTIME__PRECISION": precision} if precision else {}
        super().__init__(
            [*serve, "--config", config.resolve(), "--store", store.resolve()],
            port,
            store.parent / f"{store.name}-{port}.log",
            ready="/ready",
            env={**environment_without_settings(), **settings, **(env or {})},
            patience=patience,
        )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment_without_settings() -> dict[str, str]:
    """The environment variables of this process without those that configure a deployment."""
    return {name: value for name, value in os.environ.items() if not (name.startswith("MILLPOND_") and "__" in name)}

"""Loads on a server, and the client program that makes them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
import orjson

ROOT: Final = Path(__file__).parents[1]

HOW: Final = (
    "The load is one client program for all servers (`benchmarks/client.py`), in a process of its own: a closed loop "
    "over HTTP/1.1 connections that stay open, requests encoded before the clock starts, answers decoded and "
    "their vectors counted after it stopped, vectors as base64 where the server offers it."
)


@dataclass(frozen=True)
class Request:
    """One HTTP request, and how many texts it brings."""

    method: Literal["GET", "POST"]
    path: str
    body: str
    texts: int


@dataclass(frozen=True)
class Load:
    """Requests to a port of this machine, by so many clients at once.

    Args:
        counted: where an answer's vectors are: its `data`, the whole `list`, or None where it has none.
        seconds: repeat the requests for so long; by default each is sent once.

    """

    port: int
    requests: Sequence[Request]
    clients: int
    counted: Literal["data", "list"] | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a load came to.

    `latencies` are in seconds, in the order of the answers; `cpu` is the client's share of one core.
    """

    seconds: float
    texts: int
    latencies: list[float]
    cpu: float

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.texts / self.seconds

    def milliseconds(self, percent: float) -> float:
        """A percentile of the latency."""
        return float(np.percentile(self.latencies, percent)) * 1000


class LoadFailed(RuntimeError):
    """A server answered other than it should, or not at all."""


class Client:
    """The client program, running."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.client"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._say, self._hear = self._process.stdin, self._process.stdout

    def run(self, load: Load) -> Outcome:
        """Run a load to its end.

        Raises:
            LoadFailed: an answer was not 200, or had another number of vectors than texts were sent.

        """
        self.start(load)
        return self.finish()

    def start(self, load: Load) -> None:
        """Begin a load; `finish` waits for it."""
        self._doing = f"{load.clients} clients, {len(load.requests)} requests to port {load.port}"
        self._say.write(orjson.dumps(load) + b"\n")
        self._say.flush()

    def finish(self) -> Outcome:
        """Wait for the load that was begun; raises as `run` does."""
        line = self._hear.readline()
        if not line:
            raise LoadFailed(f"{self._doing}: the client program has ended")
        answer = orjson.loads(line)
        if "error" in answer:
            raise LoadFailed(f"{self._doing}: {answer['error']}")
        return Outcome(**answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._say.close()
        self._hear.close()

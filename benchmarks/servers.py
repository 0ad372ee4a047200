"""Servers under measurement: how each is launched, and the requests that ask the same of all of them."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks.load import Client, Load, Outcome, Request
from benchmarks.machine import Usage, resident_mb, usage_of
from benchmarks.report import number, progress
from benchmarks.texts import Vectors
from tests.support.servers import Launcher, NotStarted


class Measured(NamedTuple):
    """A load, and what it cost the server."""

    outcome: Outcome
    usage: Usage

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the server's processor time a text."""
        return 1000 * self.usage.cpu / self.outcome.texts


def by_round(
    found: Mapping[str, Mapping[str, Sequence[Measured]]], figure: Callable[[Measured], float]
) -> dict[str, dict[str, list[float]]]:
    """Give a figure of each round, by row and column."""
    return {one: {load: [figure(each) for each in of] for load, of in by.items()} for one, by in found.items()}


def memory_cells(rounds: Sequence[Measured]) -> dict[str, str]:
    """Give a table's cells for resident memory in MB: after the last round, and the most in any."""
    most = max(each.usage.peak for each in rounds)
    return {"memory": number(rounds[-1].usage.resident), "at most": number(most)} if most else {}


class Target(ABC):
    """A server to measure.

    Args:
        name: what tables call it.

    """

    running: Launcher

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def launcher(self, folder: Path) -> Launcher:
        """Give what starts the server; files that it needs go into the folder."""

    def check(self) -> None:  # noqa: B027 (a hook, not a duty)
        """Raise `NotStarted` where the running server is not what was asked for."""

    @property
    @abstractmethod
    def remark(self) -> str:
        """How the running server computes: its backend, or the versions that matter."""

    @abstractmethod
    def embed_request(self, texts: Sequence[str]) -> Request:
        """Make a request for vectors in the most compact form that the server offers."""

    def load(self, texts: Sequence[str], *, clients: int, each: int, seconds: float | None = None) -> Load:
        """Make a load that embeds texts, `each` of them a request, by `clients` at once."""
        requests = [self.embed_request(texts[start : start + each]) for start in range(0, len(texts), each)]
        return Load(self.running.port, requests, clients, vectors=True, seconds=seconds)

    def measure(self, client: Client, load: Load) -> Measured:
        """Run a load on this server."""
        with usage_of(self.running.process.pid) as usage:
            outcome = client.run(load)
        return Measured(outcome, usage)

    def warm_up(self, client: Client, texts: Sequence[str]) -> None:
        """Run every shape of load once, before anything is measured."""
        progress(f"warming {self.name} up")
        for clients, each in ((8, 32), (16, 1), (1, 1)):
            client.run(self.load(texts, clients=clients, each=each))

    def ask(self, request: Request) -> Any:
        """Send a request outside of any measurement and return its answer's JSON; raises `httpx.HTTPStatusError`."""
        json = {"Content-Type": "application/json"}
        answer = self.running.http.request(request.method, request.path, content=request.body, headers=json)
        return orjson.loads(answer.raise_for_status().content)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Give the vectors of a few texts, (texts, dim)."""
        found = self.ask(self.embed_request(texts))
        if isinstance(found, dict):  # OpenAI's shape
            found = [np.frombuffer(b64decode(item["embedding"]), dtype=np.float32) for item in found["data"]]
        return np.array(found, dtype=np.float32)

    def found(self, search: Request) -> list[str]:
        """Search; gives the ids of the hits, the best first."""
        answer = self.ask(search)
        return [hit["id"] for hit in (answer["hits"] if isinstance(answer, dict) else answer)]

    @property
    def memory(self) -> float:
        """Resident memory of its processes, in MB."""
        return resident_mb(self.running.process.pid)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the server, with a temporary folder for its files, until the end of the `with` block.

        Raises:
            NotStarted: it cannot run here, or not as it was asked to.

        """
        with (
            tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as folder,
            self.launcher(Path(folder)) as self.running,
        ):
            self.check()
            yield


@dataclass
class Field:
    """The servers that a benchmark compares, all running, and which ones are left out and why."""

    servers: list[Target]
    left_out: list[str]


@contextmanager
def field_of(candidates: Iterable[Target]) -> Iterator[Field]:
    """Run all servers that can run here, until the end of the `with` block.

    Raises:
        SystemExit: none can.

    """
    with ExitStack() as stack:
        field = Field([], [])
        for server in candidates:
            progress(f"starting {server.name}")
            try:
                stack.enter_context(server.serving())
                field.servers.append(server)
            except NotStarted as error:
                field.left_out.append(f"{server.name} is left out: {' '.join(str(error).split())[-600:]}")
        if not field.servers:
            raise SystemExit("\n".join(["no server starts:", *field.left_out]))
        yield field

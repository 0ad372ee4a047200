"""The load on a server, made by a client in a process of its own: one event loop, HTTP/1.1 over open connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from typing import Final, Literal, NamedTuple

import numpy as np
import orjson
import uvloop

HOW: Final = (
    "The load is one client program for all servers (`benchmarks/load.py`), in a process of its own: a closed loop "
    "over HTTP/1.1 connections that stay open, requests encoded before the clock starts, answers decoded and "
    "their vectors counted after it stopped, vectors as base64 where the server offers it."
)
RETRY: Final = 0.5  # seconds
LONGEST: Final = 300.0
"""Seconds after which a load that still runs has failed."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Answer(NamedTuple):
    """When it came, in seconds from the start; how long it took; texts of its request; refusals before; its body."""

    at: float
    latency: float
    texts: int
    refused: int
    body: bytes


@dataclass(frozen=True)
class Request:
    """An HTTP request, and the number of texts in it."""

    method: Literal["GET", "POST"]
    path: str
    body: str = ""
    texts: int = 1


@dataclass(frozen=True)
class Load:
    """Requests to a port of this machine, by a number of clients at once.

    Args:
        port: where the server listens.
        requests: sent in this order, each by the first client that is free; a `Client` takes no iterator, but
            any object that can be pickled and makes an iterator of requests.
        clients: connections, each of which waits for its answer before it sends the next request.
        vectors: whether the answers hold a vector for each text, which is then checked.
        seconds: how long to repeat the requests; None to send each once.
        patient: whether to send again what is refused with a 503, after `RETRY`.
        rate: requests a second, whether or not others are answered, as long as a client is free; the latency of each
            is from when it was due. None to send each as soon as a client is free.
        lazy: whether requests are made while the clock runs, where all of them would take too much memory; none is
            repeated then.

    """

    port: int
    requests: Iterable[Request]
    clients: int
    vectors: bool = False
    seconds: float | None = None
    patient: bool = False
    rate: float | None = None
    lazy: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a load, or a loop without a server, measured.

    Args:
        seconds: from the first request to the last answer.
        texts: in all requests that were answered.
        latencies: seconds of each request, in the order of the answers.
        cpu: seconds of processor time, of the client or of the loop.

    """

    seconds: float
    texts: int
    latencies: Sequence[float] = ()
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.texts / self.seconds


def percentiles(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Give p50, p99 and the longest of the latencies of each outcome, in milliseconds."""
    heads = {"p50": 50, "p99": 99, "longest": 100}
    return {name: [1000 * float(np.percentile(each.latencies, p)) for each in outcomes] for name, p in heads.items()}


class LoadFailed(RuntimeError):
    """A server answered other than it should."""


class Client(ProcessPoolExecutor):
    """The process that makes loads, one after the other, until the end of the `with` block."""

    def __init__(self) -> None:
        super().__init__(1, get_context("spawn"))

    def start(self, load: Load) -> Future[Outcome]:
        """Begin a load; what `run` raises is raised where the outcome is asked for."""
        return self.submit(_run, load)

    def run(self, load: Load) -> Outcome:
        """Run a load to its end.

        Raises:
            LoadFailed: an answer was not 200, or had another number of vectors than texts were sent.
            TimeoutError: it took longer than `LONGEST`.

        """
        return self.start(load).result()


def _run(load: Load) -> Outcome:
    return uvloop.run(asyncio.wait_for(_measure(load), LONGEST))


async def _measure(load: Load) -> Outcome:
    """Only write bytes and count those that come back while the clock runs, unless requests are made meanwhile."""
    encoded: Iterable[tuple[bytes, int]] = ((encode(load.port, one), one.texts) for one in load.requests)
    if not load.lazy:
        encoded = list(encoded)
    done: list[Answer] = []
    cpu, start = time.process_time(), time.perf_counter()
    await send_all(load, cycle(encoded) if load.seconds and not load.lazy else iter(encoded), done)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for answer in done if load.vectors else ():
        _check(answer)
    latencies = [answer.latency for answer in done]
    return Outcome(seconds, sum(answer.texts for answer in done), latencies, cpu)


async def send_all(load: Load, encoded: Iterator[tuple[bytes, int]], done: list[Answer]) -> None:
    """Send requests, each with the number of its texts, as a load says; what comes back is appended to `done`."""
    start = time.perf_counter()
    turns = enumerate(encoded)

    async def take() -> None:
        connection = await asyncio.open_connection("127.0.0.1", load.port)
        for turn, (request, texts) in turns:
            refused, sent = 0, time.perf_counter()
            if load.rate is not None:
                due = start + turn / load.rate
                await asyncio.sleep(max(0.0, due - sent))
                sent = due
            if load.seconds and sent - start > load.seconds:
                break
            while (body := await _send(connection, request, patient=load.patient)) is None:
                await asyncio.sleep(RETRY)
                refused, sent = refused + 1, time.perf_counter()
            now = time.perf_counter()
            done.append(Answer(now - start, now - sent, texts, refused, body if load.vectors else b""))
        connection[1].close()

    await asyncio.gather(*(take() for _ in range(load.clients)))


async def _send(connection: Connection, request: bytes, *, patient: bool) -> bytes | None:
    """Send a request; gives the body of its answer, which has a Content-Length, or None for a 503 where patient."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.partition(b":")[::2] for line in head.lower().split(b"\r\n"))
    body = await reader.readexactly(int(fields[b"content-length"]))
    if patient and head.startswith(b"HTTP/1.1 503"):
        return None
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadFailed((head + body)[:600].decode(errors="replace"))
    return body


def encode(port: int, request: Request) -> bytes:
    """Give a request's bytes."""
    body = request.body.encode()
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _check(answer: Answer) -> None:
    """Raise `LoadFailed` unless an answer, bare or in OpenAI's shape, has a vector for each text."""
    found = orjson.loads(answer.body)
    vectors = len(found["data"] if isinstance(found, dict) else found)
    if vectors != answer.texts:
        raise LoadFailed(f"{vectors} vectors came back for {answer.texts} texts")

"""The client that loads every server: one process, one event loop, HTTP/1.1 over connections that stay open.

It reads a load as a line of JSON from stdin, runs it, and answers with a line of JSON. Requests are encoded before
the clock starts and answers are looked at after it stopped; in between it only writes bytes and counts those that
come back. It imports nothing of the service, and of what is installed only uvloop and orjson.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any, Final, cast

import orjson
import uvloop

LONGEST: Final = 300.0
"""Seconds after which a load that still runs has failed."""


class Connection(asyncio.Protocol):
    """One request at a time; an answer has a Content-Length."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_at = self._end = 0
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's side of it."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Add to the answer, and hand it over once it is whole."""
        self._buffer += data
        if not self._body_at:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            self._body_at = head + 4
            fields = dict(line.partition(b":")[::2] for line in bytes(self._buffer[:head]).lower().split(b"\r\n"))
            self._end = self._body_at + int(fields[b"content-length"])
        if len(self._buffer) >= self._end and self._answer is not None:
            self._answer.set_result(bytes(self._buffer))
            self._answer = None

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits learns of it."""
        if self._answer is not None:
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def send(self, request: bytes) -> bytes:
        """The body of the answer.

        Raises:
            RuntimeError: its status is not 200.
            ConnectionError: the server has closed the connection.

        """
        if self.transport.is_closing():
            raise ConnectionError("the server closed the connection")
        self._buffer.clear()
        self._body_at = self._end = 0
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        answer = await self._answer
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:600].decode(errors="replace"))
        return answer[self._body_at :]


async def run(load: dict[str, Any]) -> dict[str, Any]:
    """Send a load's requests in their order over `clients` connections, each waiting for its answer before the next.

    With `seconds` they are sent over and over until that time is up, without it once.
    """
    port, seconds = load["port"], load["seconds"]
    encoded = [(_encode(port, **request), texts) for request in load["requests"] if (texts := request.pop("texts"))]
    waiting: Iterator[tuple[bytes, int]] = cycle(encoded) if seconds else iter(encoded)
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(load["clients"])]
    done: list[tuple[float, float, int, bytes]] = []

    async def one(connection: Connection) -> None:
        for request, texts in waiting:
            sent = time.perf_counter()
            if seconds and sent - start > seconds:
                return
            answer = await connection.send(request)
            done.append((sent, time.perf_counter(), texts, answer))

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one(connection) for connection in connections))
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.transport.close()
    if load["counted"]:
        for *_, texts, answer in done:
            found = orjson.loads(answer)
            vectors = len(found["data"] if load["counted"] == "data" else found)
            if vectors != texts:
                raise RuntimeError(f"{vectors} vectors came back for {texts} texts")
    return {
        "seconds": took,
        "texts": sum(texts for *_, texts, _ in done),
        "latencies": [received - sent for sent, received, *_ in done],
        "cpu": cpu / took,
    }


def _encode(port: int, method: str, path: str, body: str) -> bytes:
    content = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def main() -> None:
    for line in sys.stdin.buffer:
        try:
            answer = uvloop.run(asyncio.wait_for(run(orjson.loads(line)), LONGEST))
        except TimeoutError:
            answer = {"error": f"not all was answered after {LONGEST:.0f} s"}
        except Exception as error:  # told to who asked; the next load may go well
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

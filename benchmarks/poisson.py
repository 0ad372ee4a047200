"""A load that does not wait for answers: requests at the times of a plan, whose clients come back as they are told.

What `benchmarks/load.py` sends is a closed loop, or a fixed rate as long as a client is free. Here each request has
a client of its own, and one that is refused is sent again after the `Retry-After` of its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final

import uvloop

from benchmarks.load import Connection, LoadFailed, Request, encode

_AHEAD: Final = 1.0
"""Seconds from the start of the client's process to the time 0 of the plan."""


@dataclass(frozen=True)
class Sent:
    """What came of a request; times are in seconds of the plan.

    Args:
        sent: when it was sent last.
        done: when it was answered; None where its client gave up.
        refusals: when it was refused.

    """

    sent: float
    done: float | None
    refusals: Sequence[float] = ()


@dataclass
class _Plan:
    port: int
    patience: float
    began: float = 0.0
    idle: list[Connection] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.perf_counter() - self.began

    async def carry_out(self, requests: Sequence[tuple[float, Request]]) -> list[Sent]:
        encoded = [(at, encode(self.port, request)) for at, request in requests]
        self.began = time.perf_counter() + _AHEAD
        return await asyncio.gather(*(self._one(at, body) for at, body in encoded))

    async def _one(self, at: float, request: bytes) -> Sent:
        await self._until(at)
        # From when it was due: a client that is late is a fault of the measurement, and has to show.
        sent, refusals = at, []
        while (pause := await self._send(request)) is not None:
            refusals.append(self.now)
            again = refusals[-1] + pause
            if again > at + self.patience:
                return Sent(sent, None, refusals)
            await self._until(again)
            sent = self.now
        return Sent(sent, self.now, refusals)

    async def _until(self, at: float) -> None:
        """Sleep until a time and no less: a timer of uvloop counts milliseconds, and may end before its time."""
        while (left := at - self.now) > 0:
            await asyncio.sleep(left)

    async def _send(self, request: bytes) -> int | None:
        """Send a request; gives the seconds of `Retry-After` where it is refused."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.partition(b": ")[::2] for line in head.split(b"\r\n"))
        body = await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        if head.startswith(b"http/1.1 503"):
            return int(fields[b"retry-after"])
        if not head.startswith(b"http/1.1 200"):
            raise LoadFailed((head + body)[:600].decode(errors="replace"))
        return None


def carry_out(port: int, requests: Sequence[tuple[float, Request]], *, patience: float) -> list[Sent]:
    """Send requests at their times, in a process of its own, and wait for the last of them.

    Args:
        port: of this machine.
        requests: each with its time, in seconds.
        patience: seconds from its time after which a request that is refused is given up.

    Raises:
        LoadFailed: an answer was neither 200 nor 503.

    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_run, port, requests, patience).result()


def _run(port: int, requests: Sequence[tuple[float, Request]], patience: float) -> list[Sent]:
    return uvloop.run(_Plan(port, patience).carry_out(requests))

"""Threads for searches: as few as keep the cores busy, and others for searches that may take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from service.cores import available_cores
from service.errors import Unavailable

T = TypeVar("T")
_MOST: Final = 4
"""Threads of a lane. A short search spends as much time in Python as in the index, so that more threads only take
the interpreter from each other: with six, 8 clients got 0.6 times the searches that two threads give them."""


class Lanes:
    """A lane for short searches and one for all others, so that none of the former waits for one of the latter."""

    def __init__(self) -> None:
        threads = min(available_cores(), _MOST)
        self._short = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._long = ThreadPoolExecutor(threads, thread_name_prefix="long-search")

    async def run(self, search: Callable[[], T], *, short: bool = False) -> T:
        """Run a search on a thread of its lane, once one is free."""
        lane = self._short if short else self._long
        try:
            running = lane.submit(search)
        except RuntimeError as error:  # which it is after its shutdown
            raise Unavailable("the service stops; repeat the request.", retry_after=10) from error
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Finish the searches that were asked for, and refuse others."""
        self._short.shutdown()
        self._long.shutdown()

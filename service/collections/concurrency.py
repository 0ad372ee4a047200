"""Who may read a collection and who may change it, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Condition
from typing import Any, TypeVar

T = TypeVar("T")


class Writer:
    """Runs changes one after the other on a thread of its own, so that what a change reads holds until it is done.

    The store takes one writer at a time; those that wait for it must not occupy the threads that search.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    async def __call__(self, change: Callable[..., T], *arguments: Any) -> T:
        """Run a change to its end, even if the client that asked for it disconnects."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(change, *arguments))

    def close(self) -> None:
        """Finish the changes that were asked for."""
        self._thread.shutdown()


class ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before readers that come after it. Not reentrant.

    Without that preference, a steady stream of searches would keep an upsert waiting for ever.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()

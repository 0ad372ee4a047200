"""Temporary collections: each is dropped once it was not used for as long as its idle timeout says."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

from service.collections.protocols import Collection, Engine
from service.collections.reindex import Reindexes
from service.errors import NotFound, ServiceError, StoreUnavailable

logger = logging.getLogger(__name__)

_AGAIN: Final = 10.0
"""Seconds after which a collection that could not be dropped is tried again."""


class Idle:
    """Drops the temporary collections of a service, those with an idle timeout, once they are due.

    A collection is in use while a task runs that has asked for it, which is that of a request, to its very end; and
    while it is reindexed. Its time is counted from the end of its last use, and at first from when `run` begins: what
    was used before the service was started is not kept, so that no use has to be written to the disk.
    """

    def __init__(self, collections: Engine, reindexes: Reindexes) -> None:
        self._collections = collections
        self._reindexes = reindexes
        self._began = time.monotonic()
        self._used: dict[Collection, float] = {}
        self._users: dict[Collection, set[asyncio.Task[Any]]] = {}
        self._woken: asyncio.Event | None = None

    def use(self, collection: Collection) -> None:
        """Note that the task that calls this uses a collection until it ends; a thread uses it now."""
        if collection.idle_timeout is None:
            return
        if collection not in self._used and self._woken is not None:
            self._woken.set()  # it may be due before all others
        self._used[collection] = time.monotonic()
        with suppress(RuntimeError):  # a thread has no task
            task, users = asyncio.current_task(), self._users.setdefault(collection, set())
            if task is not None and task not in users:
                users.add(task)
                task.add_done_callback(partial(self._ended, collection))

    def forget(self, collection: Collection) -> None:
        """Forget a collection that was dropped."""
        self._used.pop(collection, None)
        self._users.pop(collection, None)

    async def run(self) -> None:
        """Drop each collection that is due, until this is cancelled."""
        self._woken = asyncio.Event()
        self._began = time.monotonic()
        while True:
            self._woken.clear()
            try:
                every = await self._collections.look(self._collections.list)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)
                continue
            temporary = [each for each in every if each.idle_timeout is not None]
            first = min(temporary, key=self._left, default=None)
            left = None if first is None else self._left(first)
            if first is None or left is None or left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), left)
            elif not await self._dropped(first):
                await asyncio.sleep(_AGAIN)

    async def _dropped(self, collection: Collection) -> bool:
        """Drop a collection unless it is used after all; return False where that failed, which is logged."""
        try:
            count = await self._collections.write(self._drop, collection)
        except NotFound:
            pass  # somebody else dropped it
        except ServiceError as error:
            logger.warning("collection %r is idle, and cannot be dropped: %s", collection.name, error)
            return False
        except Exception:
            logger.exception("collection %r is idle, and cannot be dropped", collection.name)
            return False
        else:
            if count is None:
                return True
            logger.info(
                "collection %r was not used for its idle timeout, %d s: it is dropped, with its documents (%d)",
                *(collection.name, collection.idle_timeout, count),
            )
        self._reindexes.forget(collection)
        self.forget(collection)
        return True

    def _drop(self, collection: Collection) -> int | None:
        """Drop a collection and return how many documents it had; None where it has been used since it was due."""
        if self._left(collection) > 0:
            return None
        count = collection.count()
        self._collections.drop(collection.name)
        return count

    def _left(self, collection: Collection) -> float:
        """Return the seconds until a collection is due, if nobody uses it meanwhile."""
        now = time.monotonic()
        used = now if self._users.get(collection) else self._used.get(collection, self._began)
        reindex = self._reindexes.last.get(collection)
        if reindex is not None:
            used = max(used, reindex.worked_until)
        return used + (collection.idle_timeout or 0) - now

    def _ended(self, collection: Collection, task: asyncio.Task[Any]) -> None:
        users = self._users.get(collection)
        if users is not None and task in users:
            users.remove(task)
            self._used[collection] = time.monotonic()

"""Reports on the served models, each made when first asked for, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from pathlib import Path

from service.arrays import Vectors
from service.deadline import in_time
from service.doctor import reference
from service.doctor.examine import examine
from service.doctor.findings import Report
from service.embedding.embedder import Embedder
from service.embedding.models import Models


class Examinations:
    """Examines served models, one at a time, beside their other requests."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._tasks: dict[str, asyncio.Task[Report]] = {}
        self._reference: dict[tuple[Path, str | None], Vectors] = {}
        self._one_at_a_time = asyncio.Lock()

    async def report(self, name: str | None = None) -> Report:
        """Return the report on a model, the default one for None.

        Raises:
            UnknownModel: no model has this name.
            Unavailable: the queue is full; a later call may succeed.
            DeadlineExceeded: the caller has no time for it; it is made all the same.
        """
        embedder = self._models.get(name)
        task = self._tasks.get(embedder.name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            # In a context of its own, as it outlives the deadline of who asked first.
            task = asyncio.create_task(self._examine(embedder), context=Context())
            self._tasks[embedder.name] = task
        # Others may wait for it, even if this caller goes away or has no more time.
        return await in_time(asyncio.shield(task))

    async def close(self) -> None:
        """Cancel examinations under way."""
        for task in self._tasks.values():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _examine(self, embedder: Embedder) -> Report:
        async with self._one_at_a_time:
            return await examine(embedder, reference=self._encode, model=embedder.name)

    async def _encode(self, folder: Path, texts: Sequence[str], task: str | None) -> Vectors:
        """Encode with sentence-transformers, once per folder and task: all are examined with the same texts."""
        if (folder, task) not in self._reference:
            self._reference[folder, task] = await reference.apart(folder, texts, task)
        return self._reference[folder, task]

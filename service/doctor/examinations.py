"""The served models' reports: each is made once, when it is first asked for, and one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.arrays import Vectors
from service.doctor import reference
from service.doctor.examine import examine
from service.doctor.findings import Report
from service.embedding.embedder import Embedder
from service.embedding.models import Models


class Examinations:
    """Examines served models beside their other requests, and keeps the reports."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._tasks: dict[str, asyncio.Task[Report]] = {}
        self._reference: dict[Path, Vectors] = {}
        self._one_at_a_time = asyncio.Lock()

    async def report(self, name: str | None = None) -> Report:
        """The report on a model, the default one for None.

        Raises:
            UnknownModel: no model has this name.
            Unavailable: the queue is full; another time it may not be.

        """
        embedder = self._models.get(name)
        task = self._tasks.get(embedder.name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._tasks[embedder.name] = asyncio.create_task(self._examine(embedder))
        return await asyncio.shield(task)  # whoever else asks waits for the same, though this one may go away

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _examine(self, embedder: Embedder) -> Report:
        async with self._one_at_a_time:
            return await examine(embedder, reference=self._encode, model=embedder.name)

    async def _encode(self, folder: Path, texts: Sequence[str]) -> Vectors:
        """Models that share a folder are examined with the same texts."""
        if folder not in self._reference:
            self._reference[folder] = await reference.apart(folder, texts)
        return self._reference[folder]

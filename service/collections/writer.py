"""The one thread on which collections are changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Writer:
    """Runs changes one after the other, so that what a change finds holds until it is done.

    The store takes one writer at a time; those that wait for it must not hold up the threads that search.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    async def __call__(self, change: Callable[..., T], *arguments: Any) -> T:
        """Run a change to its end, even where the client that asked for it has gone."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(change, *arguments))

    def close(self) -> None:
        """Finish the changes under way."""
        self._thread.shutdown()

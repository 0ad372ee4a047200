"""Builds parts of indexes aside, one after another, on a thread that gives way to all others."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

logger = logging.getLogger(__name__)

Work = Callable[[Callable[[], bool]], bool]
"""Builds something, unless the function that it is given says to stop; returns whether there is more to build."""

_NICENESS: Final = 10


class Builder:
    """One thread of low priority, and what waits for it. Every method is thread-safe."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="builder", initializer=_give_way)
        self._changed = threading.Condition()
        self._asked: dict[object, bool] = {}  # whether it was asked for again since it began
        self._stopped = False

    def ask(self, owner: object, work: Work) -> None:
        """Build what belongs to an owner, and again as long as there is more."""
        with self._changed:
            if self._stopped:
                return
            if owner in self._asked:
                self._asked[owner] = True
                return
            self._asked[owner] = False
            self._pool.submit(self._run, owner, work)

    def has(self, owner: object) -> bool:
        """Return whether something of an owner is built, or waits for it."""
        with self._changed:
            return owner in self._asked

    def wait(self) -> None:
        """Wait until nothing is left to build."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked)

    def close(self) -> None:
        """Stop what is being built, and build nothing more."""
        with self._changed:
            self._stopped = True
        self._pool.shutdown()

    def _run(self, owner: object, work: Work) -> None:
        more = False
        try:
            more = not self._stopped and work(lambda: self._stopped)
        except Exception:
            logger.exception("an index could not be built; searches go on without")
        finally:
            with self._changed:
                if (more or self._asked[owner]) and not self._stopped:
                    self._asked[owner] = False
                    self._pool.submit(self._run, owner, work)
                else:
                    del self._asked[owner]
                    self._changed.notify_all()


def _give_way() -> None:
    """Lower the priority of this thread, and of those that it starts, where the system has one for each."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)

"""Whether replicas run."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Final

from ray import serve

from service.errors import Unavailable

logger = logging.getLogger(__name__)

_PATIENCE: Final = 30.0
"""Seconds for which requests wait where no replica runs, for one to start."""
_LOOK: Final = 1.0
"""Seconds between looks at how many replicas run."""
_LAST_LOOK: Final = 5.0


class Watch:
    """A thread that asks Ray Serve now and then whether a replica of a deployment runs.

    Args:
        application: the name of its application.
        deployment: its name.
    """

    def __init__(self, application: str, deployment: str) -> None:
        self._application = application
        self._deployment = deployment
        self.lost = asyncio.Event()
        """Set where none has been running for long."""
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seen = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="replicas", daemon=True)
        self._thread.start()

    def require_replicas(self) -> None:
        """Raise `Unavailable` where none has been running for long."""
        self._loop = self._loop or asyncio.get_running_loop()
        if self.lost.is_set():
            raise none()

    def close(self) -> None:
        """Look no more; it waits for a look under way, since Ray connects anew for one that comes after its end."""
        self._ended.set()
        self._thread.join(_LAST_LOOK)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK):
            try:
                application = serve.status().applications.get(self._application)
            except Exception as error:  # whatever it is, the next look may tell more
                logger.debug("Ray Serve does not tell its state: %s", error)
                continue
            now = time.monotonic()
            found = application and application.deployments.get(self._deployment)
            if found and found.replica_states.get("RUNNING"):
                self._seen = now
            lost = now - self._seen > _PATIENCE
            if lost != self.lost.is_set() and self._loop is not None:
                self._loop.call_soon_threadsafe(self.lost.set if lost else self.lost.clear)


def none() -> Unavailable:
    """Return what a request comes to where no replica runs."""
    return Unavailable(
        f"no replica has been running for {_PATIENCE:.0f} s; see the logs of the cluster.", retry_after=5
    )

"""What the log says of the build of an index, while the collection is searched exactly."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from service.index import Build

logger = logging.getLogger(__name__)

_EVERY: Final = 10.0
"""Seconds between two messages of one build."""


class Progress:
    """Tells that a build has begun, from time to time how far it is, and when it is done."""

    def __init__(self, collection: str, vectors: int, build: Build[Any]) -> None:
        self._collection = collection
        self._build = build
        self._began = self._told = time.monotonic()
        logger.info(
            "collection %r: the index of %d vectors is being built; searches are exact until then",
            collection,
            vectors,
        )

    def tell(self) -> None:
        """Tell how far the build is, unless that was told just now."""
        if (now := time.monotonic()) >= self._told + _EVERY:
            self._told = now
            logger.info("collection %r: %d %% of the index is built", self._collection, 100 * self._build.done)

    def end(self) -> None:
        """Tell that the index is built."""
        seconds = time.monotonic() - self._began
        logger.info("collection %r: the index is built, in %.1f s", self._collection, seconds)

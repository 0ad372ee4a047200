"""A log line for each request: what was asked and how it ended, never what it held."""

from __future__ import annotations

import logging
from typing import Final

from service.observation import Observed

logger = logging.getLogger("service.access")

_PROBES: Final = frozenset({"/health", "/metrics", "/ready"})
"""Routes that machines ask every few seconds, whose successes are told at the level `debug`."""


def log_access(request: Observed) -> None:
    """Log a request that has ended."""
    level = logging.DEBUG if request.route in _PROBES and request.status < 400 else logging.INFO
    if not logger.isEnabledFor(level):
        return
    milliseconds = round(request.duration * 1000, 1)
    tokens = f", {request.tokens} tokens" if request.texts else ""
    message = f"{request.method} {request.route} {request.status} in {milliseconds} ms{tokens}"
    record = logging.LogRecord(logger.name, level, "", 0, message, None, None)  # without a search for the caller
    fields = {
        "method": request.method,
        "route": request.route,
        "status": request.status,
        "duration_ms": milliseconds,
        "texts": request.texts,
        "tokens": request.tokens,
    }
    vars(record).update(request_id=request.id, fields=fields)
    logger.handle(record)

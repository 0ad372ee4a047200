"""Who pays for the tokens of a request: whatever queues them in its context is counted as they are admitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_METER: Final[ContextVar[Callable[[int], object] | None]] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Callable[[int], object]) -> Iterator[None]:
    """Call a function with the number of tokens of each request to an encoder in this context.

    Tasks that begin within the block, such as a reindex, remain in that context after it.
    """
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


def count_tokens(tokens: int) -> None:
    """Count tokens, special ones and those of a prompt among them, for whom they were sent by."""
    meter = _METER.get()
    if meter is not None:
        meter(tokens)

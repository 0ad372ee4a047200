"""When a request has to be answered: a deadline that its work can ask for wherever it waits, without being told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

from service.errors import DeadlineExceeded

T = TypeVar("T")


class Deadline(NamedTuple):
    """When a request has to be answered, by the clock of the event loop, and how many seconds it was given."""

    at: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return asyncio.get_running_loop().time() >= self.at

    def error(self) -> DeadlineExceeded:
        """Return what a request comes to that is not done by then."""
        return DeadlineExceeded(
            f"the request was not done within its {self.seconds:g} s (X-Request-Timeout, server.request_timeout), "
            "and the rest of it is not computed. Give it more time, or send less at once."
        )


_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def answered_within(seconds: float) -> Iterator[Deadline]:
    """Give what is done and awaited within the block a deadline that many seconds from now."""
    deadline = Deadline(asyncio.get_running_loop().time() + seconds, seconds)
    token = _deadline.set(deadline)
    try:
        yield deadline
    finally:
        _deadline.reset(token)


def require_time() -> None:
    """Raise `DeadlineExceeded` where the request that is served here is too late, so that nothing is begun for it."""
    deadline = _deadline.get()
    if deadline is not None and deadline.passed:
        raise deadline.error()


async def in_time(work: Awaitable[T]) -> T:
    """Wait for something as long as the request that is served here has time; then cancel it.

    Raises:
        DeadlineExceeded: it took longer.
    """
    deadline = _deadline.get()
    if deadline is None:
        return await work
    try:
        async with asyncio.timeout_at(deadline.at) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise deadline.error() from None

"""Whole data sets through an encoder: one pass over each text, whatever is made of its states."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

from service.embedding.embedder import Embedder, Role
from service.encoder import PostProcess
from service.errors import Place, shortened

_BLOCK: Final = 128
"""Texts a request: enough to group their lengths, few enough to see progress."""
_IN_FLIGHT: Final = 2
"""Requests at once, so that the streams are never idle."""


async def results(
    model: Embedder,
    texts: Sequence[str],
    post_process: PostProcess,
    *,
    role: Role | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[Any]:
    """Apply `post_process` to each text's states, in the order of the texts; arguments as for `Embedder.pass_over`.

    Args:
        advance: told how many texts more are done.

    """
    pending: deque[asyncio.Task[list[Any]]] = deque()
    starts = iter(range(0, len(texts), _BLOCK))

    def begin() -> None:
        if (start := next(starts, None)) is not None:
            block = texts[start : start + _BLOCK]
            where = partial(_text, block)
            pending.append(asyncio.create_task(model.pass_over(block, post_process, role=role, where=where)))

    try:
        for _ in range(_IN_FLIGHT):
            begin()
        while pending:
            found = await pending[0]
            pending.popleft()
            begin()
            for result in found:
                yield result
            advance(len(found))
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _text(block: Sequence[str], place: int) -> Place:
    return Place("texts", place, name=f"the text {shortened(block[place])}")

"""Any number of texts through an encoder's queue, in blocks, from a thread that waits for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from pooling.layers import LayerStates
from service.arrays import Ids
from service.encoder import Batcher, PostProcess
from service.encoder.metering import count_tokens
from service.errors import Unavailable

_IN_FLIGHT: Final = 2
"""Blocks in the queue at once, so that the encoder is never idle."""
_LOOK: Final = 0.1
"""Seconds of waiting after which who waits is asked whether to go on."""


def run(
    batcher: Batcher,
    count: int,
    tokenize: Callable[[range], Sequence[Ids]],
    post_process: PostProcess,
    layers: LayerStates,
    *,
    block: int,
    advance: Callable[[int], object],
) -> Iterator[Any]:
    """Run `count` texts through the encoder and yield what `post_process` makes of each one's states, in order.

    The states are those of `layers`. `tokenize` gives the token ids of the texts at some places, `block` of them at a
    time; `advance` is called with the number of further texts that are done, and every tenth of a second while none
    is. What it raises ends the run, and drops what waits for the encoder. Waits while the queue is full; raises
    `Unavailable` if it is closed.
    """
    blocks = (range(start, min(start + block, count)) for start in range(0, count, block))
    futures = (_submit(batcher, tokenize(places), post_process, layers, advance) for places in blocks)
    pending: deque[Future[list[Any]]] = deque()
    try:
        pending.extend(islice(futures, _IN_FLIGHT))
        while pending:
            found = _result(pending[0], advance)
            pending.popleft()
            pending.extend(islice(futures, 1))
            yield from found
            advance(len(found))
    finally:
        for future in pending:
            future.cancel()


def _submit(
    batcher: Batcher,
    ids: Sequence[Ids],
    post_process: PostProcess,
    layers: LayerStates,
    advance: Callable[[int], object],
) -> Future[list[Any]]:
    while True:
        try:
            found = batcher.submit(ids, post_process, layers)
        except Unavailable as error:
            if not batcher.alive:
                raise
            again = time.monotonic() + error.retry_after
            while time.monotonic() < again:
                time.sleep(_LOOK)
                advance(0)
        else:
            count_tokens(sum(map(len, ids)))
            return found


def _result(future: Future[list[Any]], advance: Callable[[int], object]) -> list[Any]:
    while True:
        with suppress(TimeoutError):
            return future.result(_LOOK)
        advance(0)

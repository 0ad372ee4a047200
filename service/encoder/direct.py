"""Requests that are computed where they come from, without the queue: means of a table's rows take less time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pooling.layers import LAST, LayerStates
from service.deadline import in_time, require_time
from service.encoder.batcher import Batcher, Room, stopping
from service.encoder.metering import count_tokens
from service.encoder.queue import PostProcess
from service.encoder.runtimes.base import MeansRuntime
from service.observation import Phase, observed

_FEW: Final = 2_048
"""Tokens of a request of which the event loop makes means by itself: a millisecond of work."""


class DirectBatcher(Batcher):
    """Computes requests that need no more than the means of states at once; all others take the queue.

    Args:
        runtime: what gives the means.
        limits: as for `Batcher`.
    """

    def __init__(self, runtime: MeansRuntime, **limits: Any) -> None:
        super().__init__(runtime, **limits)
        self._means = runtime.means

    def submit(
        self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess, layers: LayerStates = LAST
    ) -> Future[list[Any]]:
        """As `Batcher.submit`."""
        if (found := self._at_once(ids, post_process)) is None:
            return super().submit(ids, post_process, layers)
        done: Future[list[Any]] = Future()
        done.set_result(found[0])
        return done

    async def run(
        self,
        ids: Sequence[NDArray[np.int64]],
        post_process: PostProcess,
        room: Room | None = None,
        layers: LayerStates = LAST,
        padding: Sequence[int] = (),
    ) -> list[Any]:
        """As `Batcher.run`; a request that has a place is computed here if it is small, else on a thread."""
        require_time()
        found, tokens = None, sum(map(len, ids))
        if room is not None and tokens <= _FEW:
            found = self._at_once(ids, post_process)
        elif room is not None:
            work = asyncio.get_running_loop().run_in_executor(None, self._at_once, ids, post_process)
            found = await in_time(work)
        if found is None:
            return await super().run(ids, post_process, room, layers, padding)
        results, phases = found
        count_tokens(tokens)
        if (request := observed()) is not None:
            request.phases += phases
        return results

    def _at_once(
        self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess
    ) -> tuple[list[Any], list[Phase]] | None:
        """Compute a request in the calling thread.

        None where it needs more than means, and where it fails: the queue knows how to find the row at fault.

        Raises:
            Unavailable: the service is stopping.
        """
        of_means = getattr(post_process, "of_means", None)
        if of_means is None:
            return None
        if self._closed:
            raise stopping()
        if not ids:
            return [], []
        begun = perf_counter()
        try:
            with torch.inference_mode():
                means = self._means(ids)
                computed = perf_counter()
                results = list(of_means(means))
        except Exception:  # the queue says what it was
            return None
        ended = perf_counter()
        lengths = list(map(len, ids))
        tokens = sum(lengths)
        with self._lock:
            self.passes += 1
            self.figures.lengths.update(lengths)
            self.figures.add(len(ids), tokens / len(ids), tokens, computed - begun, ended - computed)
        return results, [
            Phase("queue", begun, begun),
            Phase("inference", begun, ended),
            Phase("pass", begun, computed, {"texts": len(ids), "tokens": tokens}),
            Phase("pooling", computed, ended),
        ]

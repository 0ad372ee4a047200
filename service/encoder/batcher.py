"""Forward passes off the event loop: requests in, batches through the runtime, results out."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from service.encoder.queue import QUICK, Job, PostProcess, Row, TokenQueue
from service.encoder.runtimes.base import Runtime
from service.encoder.tokenizer import pad
from service.errors import Unavailable

__all__ = ["Batcher", "PostProcess"]

logger = logging.getLogger(__name__)

_SHARE_OF_QUEUE: Final = 4
"""A request counts for at most this fraction of the queue, a quarter, so that small ones still get in beside it."""
_NICE: Final = 3
"""Niceness of the streams, which yield to the event loop and the express lane. With a much higher one, other programs
on the machine would starve them."""


class Batcher:
    """Runs the requests of one encoder through as many streams as its runtime has.

    An idle stream starts at once on whatever waits; what arrives meanwhile makes up the next batch. Rows of different
    requests and different poolings share a pass. Beside the streams there is an express lane, whose passes take all
    cores: it runs a small request that is alone, and lets a quick one overtake where every stream is busy with larger
    requests.

    Args:
        runtime: what computes token states.
        pad_id: the token id that fills a batch up.
        max_batch_tokens: most tokens of one pass, padding included.
        max_queued_tokens: waiting tokens beyond which further requests are refused.
    """

    def __init__(self, runtime: Runtime, *, pad_id: int, max_batch_tokens: int, max_queued_tokens: int) -> None:
        self._runtime = runtime
        self._pad_id = pad_id
        self._limit = max_queued_tokens
        self._queue = TokenQueue(max_batch_tokens, runtime.streams)
        self._admitted = 0
        self._wake = threading.Condition()
        self._closed = False
        self.passes = 0
        """Forward passes so far."""
        self._running: list[list[Row]] = []
        self._threads = [
            threading.Thread(target=self._work, args=(self._next_batch, False), name=f"stream-{number}", daemon=True)
            for number in range(runtime.streams)
        ]
        # One thread makes all wide passes: each that made some would have helpers of its own, waiting on the cores.
        express = threading.Thread(
            target=self._work, args=(self._next_express_batch, True), name="express", daemon=True
        )
        self._threads.append(express)
        for thread in self._threads:
            thread.start()

    def submit(self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess) -> Future[list[Any]]:
        """Queue a request.

        Args:
            ids: token ids, one array a text, none empty.
            post_process: from states and mask to one result per row.

        Returns:
            A future of the results, in the order of `ids`. Cancelling it drops what has not run yet.

        Raises:
            Unavailable: the queue is full, or the service is stopping.
        """
        job = Job(ids, post_process)
        if not ids:
            job.deliver()
            return job.future
        cost = min(job.tokens, max(self._limit // _SHARE_OF_QUEUE, 1))
        with self._wake:
            if self._closed:
                raise _stopping()
            if self._admitted and self._admitted + cost > self._limit:
                raise Unavailable(
                    f"the queue is full: {self._admitted} tokens wait and batching.max_queued_tokens is "
                    f"{self._limit}. Send the request again in a moment, with fewer clients at once."
                )
            self._admitted += cost
            self._queue.put(job)
            self._wake.notify_all()
        job.future.add_done_callback(lambda _: self._release(cost))
        return job.future

    @property
    def alive(self) -> bool:
        """Whether all streams run."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Stop after the batches under way; waiting requests fail with `Unavailable`."""
        with self._wake:
            self._closed = True
            waiting = self._queue.clear()
            self._wake.notify_all()
        for job in waiting:
            job.fail(_stopping())
        for thread in self._threads:
            thread.join()

    def _release(self, cost: int) -> None:
        with self._wake:
            self._admitted -= cost

    def _work(self, take: Callable[[], list[Row]], wide: bool) -> None:
        if not wide:
            _yield_to_others()
        self._runtime.prepare_thread()
        while True:
            with self._wake:
                while not (batch := take()):
                    if self._closed:
                        return
                    self._wake.wait()
                self._running.append(batch)
                self._wake.notify_all()  # what the other threads may take depends on what runs
            try:
                self._run(batch, wide=wide)
            except Exception as error:  # for the clients that wait; the stream goes on
                _fail(batch, error)
            for job in self._complete(batch):
                job.deliver()

    def _small_and_alone(self) -> bool:
        """Whether what waits is small and nothing runs, so that all cores had best do it at once."""
        return not self._running and self._queue.tokens <= QUICK

    def _next_batch(self) -> list[Row]:
        """Return a stream's next batch; empty where the express lane takes it, or has the cores."""
        if len(self._running) >= self._runtime.streams or self._small_and_alone():
            return []
        return self._queue.take()

    def _next_express_batch(self) -> list[Row]:
        """Return the waiting rows if few and alone, or quick requests if larger ones occupy all streams."""
        if self._small_and_alone():
            return self._queue.take()
        all_busy = len(self._running) >= self._runtime.streams
        if not all_busy or any(all(row.job.quick for row in batch) for batch in self._running):
            return []
        return self._queue.take_quick()

    def _run(self, batch: list[Row], *, wide: bool) -> None:
        ids, mask = pad([row.ids for row in batch], self._pad_id)
        groups: defaultdict[PostProcess, list[int]] = defaultdict(list)
        for place, row in enumerate(batch):
            groups[row.job.post_process].append(place)
        with torch.inference_mode():
            states = self._runtime.states(ids, mask, wide=wide)
            counts = torch.from_numpy(mask)
            for post_process, places in groups.items():
                chosen = slice(None) if len(groups) == 1 else places
                try:
                    results = post_process(states[chosen], counts[chosen])
                    for place, result in zip(places, results, strict=True):
                        batch[place].job.results[batch[place].index] = result
                except Exception as error:  # concerns only the requests of this group
                    _fail([batch[place] for place in places], error)

    def _complete(self, batch: list[Row]) -> list[Job]:
        """Count a batch as done, and return the jobs that are complete with it."""
        with self._wake:
            self.passes += 1
            self._running.remove(batch)
            self._wake.notify_all()
            for row in batch:
                row.job.remaining -= 1
            return [job for job in {row.job for row in batch} if job.remaining == 0]


def _yield_to_others() -> None:
    """Lower this thread's priority; only on Linux does a thread have its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _stopping() -> Unavailable:
    return Unavailable("the service is stopping; send the request again in a moment.", retry_after=5)


def _fail(rows: Sequence[Row], error: Exception) -> None:
    logger.error("a batch of %d texts failed", len(rows), exc_info=error)
    for job in {row.job for row in rows}:
        job.fail(error)

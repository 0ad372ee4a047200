"""The queue of an encoder: rows of all requests, handed out in batches of similar length."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

PostProcess = Callable[[Tensor, Tensor], Sequence[Any]]
"""States (rows, time, dim) and mask (rows, time) -> one result per row, at the end of a pass.

Rows whose `PostProcess` compares equal share one call."""

_LEAST_BATCH: Final = 64
"""Tokens below which splitting a batch between streams costs more than it gains."""
_FREE_PADDING: Final = 8
"""Padding tokens that cost about as much as another forward pass."""
QUICK: Final = 128
"""Tokens up to which a request is quick: one query or a few, done in milliseconds unless it has to wait."""


class Job:
    """The rows of one request, and the future of their results, in the order of the rows."""

    def __init__(self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess) -> None:
        self.post_process = post_process
        self.future: Future[list[Any]] = Future()
        self.results: list[Any] = [None] * len(ids)
        self.remaining = len(ids)
        self.tokens = sum(map(len, ids))
        self.rows = sorted((Row(self, index, row) for index, row in enumerate(ids)), key=len)

    @property
    def quick(self) -> bool:
        """Whether the express lane may run it, beside the streams."""
        return self.tokens <= QUICK

    @property
    def over(self) -> bool:
        """Whether nobody waits for its results any more: delivered, failed or cancelled."""
        return self.future.done()

    def fail(self, error: BaseException) -> None:
        """Fail the whole request."""
        with suppress(InvalidStateError):  # cancelled, or failed by another batch
            self.future.set_exception(error)

    def deliver(self) -> None:
        """Deliver the results."""
        with suppress(InvalidStateError):
            self.future.set_result(self.results)


class Row:
    """One text of a job; `taken` once it is in a batch or dropped."""

    __slots__ = ("ids", "index", "job", "taken")

    def __init__(self, job: Job, index: int, ids: NDArray[np.int64]) -> None:
        self.job = job
        self.index = index
        self.ids = ids
        self.taken = False

    def __len__(self) -> int:
        return len(self.ids)


class TokenQueue:
    """Waiting rows by length. Not thread-safe: the batcher's lock guards it.

    Requests take turns: each batch begins with the longest row of the next request and is filled up with rows of
    similar length of any request. So a request of thousands of texts never delays a small one by more than the
    batches under way.

    Args:
        max_batch_tokens: most tokens of one batch, padding included; a longer row is a batch of its own.
        streams: how many batches run at once.
    """

    def __init__(self, max_batch_tokens: int, streams: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._streams = streams
        self._jobs: deque[Job] = deque()
        self._quick: deque[Job] = deque()
        self._by_length: dict[int, deque[Row]] = {}
        self._lengths: list[int] = []
        self.tokens = 0
        """Waiting tokens."""

    def put(self, job: Job) -> None:
        """Add all rows of a job."""
        self._jobs.append(job)
        if job.quick:
            while self._quick and all(row.taken for row in self._quick[0].rows):
                self._quick.popleft()
            self._quick.append(job)
        self.tokens += job.tokens
        for row in job.rows:
            if len(row) not in self._by_length:
                self._by_length[len(row)] = deque()
                insort(self._lengths, len(row))
            self._by_length[len(row)].append(row)

    def take(self) -> list[Row]:
        """Return the next batch, its longest row first; empty where nothing waits."""
        share = max(self.tokens // self._streams, _LEAST_BATCH)
        budget = min(self._max_batch_tokens, share)
        leader = self._lead()
        if leader is None:
            self._forget_rows()
            return []
        batch = [leader]
        self._fill(batch, budget // len(leader))
        return batch

    def take_quick(self) -> list[Row]:
        """Return the next batch with rows of quick requests only, its longest row first; empty where none waits."""
        batch: list[Row] = []
        width = 0
        while self._quick:
            for row in self._quick[0].rows:
                if row.taken:
                    continue
                if batch and max(width, len(row)) * (len(batch) + 1) > QUICK:
                    return sorted(batch, key=len, reverse=True)
                if self._claim(row):
                    batch.append(row)
                    width = max(width, len(row))
            self._quick.popleft()
        return sorted(batch, key=len, reverse=True)

    def clear(self) -> list[Job]:
        """Drop everything; return the jobs of which a row still waited."""
        jobs = [job for job in self._jobs if not all(row.taken for row in job.rows)]
        self._jobs.clear()
        self._forget_rows()
        self.tokens = 0
        return jobs

    def _forget_rows(self) -> None:
        self._quick.clear()
        self._by_length.clear()
        self._lengths.clear()

    def _lead(self) -> Row | None:
        while self._jobs:
            job = self._jobs.popleft()
            while job.rows:
                row = job.rows.pop()
                if self._claim(row):
                    self._jobs.append(job)
                    return row
        return None

    def _claim(self, row: Row) -> bool:
        """Take a row off the queue; False where it was taken before, or nobody waits for it."""
        if row.taken:
            return False
        row.taken = True
        self.tokens -= len(row)
        return not row.job.over

    def _fill(self, batch: list[Row], most: int) -> None:
        width = len(batch[0])
        padding = 0
        for place in range(bisect_right(self._lengths, width) - 1, -1, -1):
            length = self._lengths[place]
            waiting = self._by_length[length]
            while waiting:
                if not waiting[0].taken:
                    padding += width - length
                    if len(batch) >= most or padding > _FREE_PADDING + width * len(batch) // 8:
                        return
                row = waiting.popleft()
                if self._claim(row):
                    batch.append(row)

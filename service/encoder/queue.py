"""The queue of an encoder: rows of all requests, handed out in batches of similar length."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pooling.layers import LAST, LayerStates
from service.encoder.shapes import Shapes
from service.observation import Phase

PostProcess = Callable[[Tensor, Tensor, Tensor], Sequence[Any]]
"""States (rows, time, dim), mask and token ids (rows, time) -> one result per row, at the end of a pass.

Rows whose `PostProcess` and layers compare equal share one call. One that needs no more of a text than the mean of
its states has an attribute `of_means`, a function that gives the same from means (rows, dim); it may be None."""

_LEAST_BATCH: Final = 64
"""Tokens below which splitting a batch between streams costs more than it gains."""
_FREE_PADDING: Final = 8
"""Padding tokens that cost about as much as another forward pass."""
_PADDED: Final = 16
"""Beyond that, at most this fraction of a batch is padding, a sixteenth."""
QUICK: Final = 128
"""Tokens up to which a request is quick: one query or a few, done in milliseconds unless it has to wait."""


class Job:
    """The rows of one request, and the future of their results, in the order of the rows.

    Args:
        ids: token ids, one array a text.
        post_process: from states, mask and ids to one result per row.
        loop: the event loop in which the results are awaited; None for a thread that waits for them.
        layers: which layers' states `post_process` is given, and how they are mixed.
        padding: how many padding tokens are computed behind each text, whatever shares its pass; none by default.
    """

    def __init__(
        self,
        ids: Sequence[NDArray[np.int64]],
        post_process: PostProcess,
        loop: asyncio.AbstractEventLoop | None = None,
        layers: LayerStates = LAST,
        padding: Sequence[int] = (),
    ) -> None:
        self.post_process = post_process
        self.layers = layers
        self.carries_layers = layers.used != LAST.used
        """Whether a pass with rows of it has to carry the states of other layers than the last."""
        self.loop = loop
        self.future: Future[list[Any]] | asyncio.Future[list[Any]] = loop.create_future() if loop else Future()
        self.results: list[Any] = [None] * len(ids)
        self.error: Exception | None = None
        self.failed_row: int | None = None
        """Index of the row at fault, if the request failed because of one."""
        self.remaining = len(ids)
        rows = [Row(self, *each) for each in zip(range(len(ids)), ids, padding or (0,) * len(ids), strict=True)]
        self.lengths = list(map(len, rows))
        self.tokens = sum(self.lengths)
        self.rows = sorted(rows, key=len)
        self.begun = perf_counter()
        self.passes: list[Phase] = []
        """For each pass with rows of it, the computation of the states and what was made of them, as it ended."""

    def phases(self) -> list[Phase]:
        """Return how long it waited, how long its passes took, and those passes."""
        if not self.passes:
            return [Phase("queue", self.begun, perf_counter())]
        first = min(each.begun for each in self.passes)
        inference = Phase("inference", first, self.passes[-1].ended)
        return [Phase("queue", self.begun, first), inference, *self.passes]

    @property
    def quick(self) -> bool:
        """Whether the express lane may run it, beside the streams."""
        return self.tokens <= QUICK

    @property
    def over(self) -> bool:
        """Whether nobody waits for its results any more: delivered, failed or cancelled."""
        return self.error is not None or self.future.done()

    def fail(self, error: Exception, row: int | None = None) -> None:
        """Fail the whole request, because of one of its rows or of none in particular; `deliver` says so."""
        if self.error is None:
            self.error, self.failed_row = error, row

    def settle(self) -> None:
        """Give the results, or the error, to who waits; in the thread of the event loop if there is one."""
        if self.future.done():  # cancelled
            return
        with suppress(InvalidStateError):  # cancelled meanwhile, by another thread
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.results)


def deliver(jobs: Iterable[Job]) -> None:
    """Settle jobs from any thread, with one call for all that are awaited in the same event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop | None, list[Job]] = defaultdict(list)
    for job in jobs:
        by_loop[job.loop].append(job)
    for loop, some in by_loop.items():
        if loop is None:
            _settle(some)
        else:
            with suppress(RuntimeError):  # the loop has ended, and with it who waited
                loop.call_soon_threadsafe(_settle, some)


def _settle(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.settle()


class Row:
    """One text of a job, as long as its tokens and its own padding; `taken` once it is in a batch or dropped."""

    __slots__ = ("ids", "index", "job", "padding", "taken")

    def __init__(self, job: Job, index: int, ids: NDArray[np.int64], padding: int) -> None:
        self.job = job
        self.index = index
        self.ids = ids
        self.padding = padding
        self.taken = False

    def __len__(self) -> int:
        return len(self.ids) + self.padding


class TokenQueue:
    """Waiting rows by length. Not thread-safe: the batcher's lock guards it.

    Requests take turns: each batch begins with the longest row of the next request and is filled up with rows of
    similar length of any request. So a request of thousands of texts never delays a small one by more than the
    batches under way.

    Args:
        max_batch_tokens: most tokens of one batch, padding included; a longer row is a batch of its own.
        streams: how many batches run at once.
        shapes: which shapes batches may have.
    """

    def __init__(self, max_batch_tokens: int, streams: int, shapes: Shapes) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._streams = streams
        self._shapes = shapes
        self._jobs: deque[Job] = deque()
        self._quick: deque[Job] = deque()
        # The waiting rows and no others: a row that was taken would keep its job, and the job its results.
        self._by_length: dict[int, OrderedDict[Row, None]] = {}
        self._lengths: list[int] = []
        self.tokens = 0
        """Waiting tokens."""

    @property
    def texts(self) -> int:
        """Waiting texts."""
        return sum(map(len, self._by_length.values()))

    @property
    def carries_layers(self) -> bool:
        """Whether the next batch may carry the states of other layers than the last."""
        return any(job.carries_layers for job in self._jobs)

    def put(self, job: Job) -> None:
        """Add all rows of a job."""
        self._jobs.append(job)
        if job.quick:
            while self._quick and all(row.taken for row in self._quick[0].rows):
                self._quick.popleft()
            self._quick.append(job)
        self.tokens += job.tokens
        for row in job.rows:
            self._of_length(len(row))[row] = None

    def take(self, room: Callable[[int], int] | None = None) -> list[Row]:
        """Return the next batch, its longest row first; empty where nothing waits, or the longest row must wait.

        Args:
            room: from the width of a batch to how many rows there is memory for; by default for any number.
        """
        share = max(self.tokens // self._streams, _LEAST_BATCH)
        leader = self._leader()
        if leader is None:
            self._quick.clear()
            return []
        width = self._shapes.width(len(leader))
        most = max(min(self._max_batch_tokens // width, share // len(leader)), 1)
        if room is not None:
            most = min(most, room(width))
        if not most:
            return []
        self._claim(leader)
        self._jobs.rotate(-1)
        batch = [leader]
        self._fill(batch, most)
        self._put_back(batch, self._shapes.rows(len(batch)))
        return batch

    def take_quick(self) -> list[Row]:
        """Return the next batch with rows of quick requests only, its longest row first; empty where none waits."""
        found: list[Row] = []
        for row in self._quick_rows():
            lengths = [len(row), *map(len, found)]
            longest = max(lengths)
            too_large = self._shapes.width(longest) * len(lengths) > QUICK
            if found and (too_large or min(lengths) < self._shapes.shortest(longest)):
                break
            found.append(row)
        batch = found[: self._shapes.rows(len(found))] if found else []
        for row in batch:
            self._claim(row)
        while self._quick and all(row.taken for row in self._quick[0].rows):
            self._quick.popleft()
        return sorted(batch, key=len, reverse=True)

    def clear(self) -> list[Job]:
        """Drop everything; return the jobs of which a row still waited."""
        jobs = [job for job in self._jobs if not all(row.taken for row in job.rows)]
        self._jobs.clear()
        self._quick.clear()
        self._by_length.clear()
        self._lengths.clear()
        self.tokens = 0
        return jobs

    def _of_length(self, length: int) -> OrderedDict[Row, None]:
        """Return the waiting rows of a length, to add one."""
        if length not in self._by_length:
            self._by_length[length] = OrderedDict()
            insort(self._lengths, length)
        return self._by_length[length]

    def _leader(self) -> Row | None:
        """Return the longest waiting row of the job whose turn it is; it stays in the queue."""
        while self._jobs:
            rows = self._jobs[0].rows
            while rows:
                if not rows[-1].taken and not rows[-1].job.over:
                    return rows[-1]
                self._claim(rows.pop())
            self._jobs.popleft()
        return None

    def _quick_rows(self) -> Iterator[Row]:
        """Yield the waiting rows of quick requests in turn, dropping those that nobody waits for."""
        for job in self._quick:
            for row in job.rows:
                if not row.taken and (not job.over or self._claim(row)):
                    yield row

    def _claim(self, row: Row) -> bool:
        """Take a row off the queue; False where it was taken before, or nobody waits for it."""
        if row.taken:
            return False
        row.taken = True
        self.tokens -= len(row)
        waiting = self._by_length[len(row)]
        del waiting[row]
        if not waiting:
            del self._by_length[len(row)]
            del self._lengths[bisect_left(self._lengths, len(row))]
        return not row.job.over

    def _fill(self, batch: list[Row], most: int) -> None:
        width = len(batch[0])
        padding = 0
        first = bisect_left(self._lengths, self._shapes.shortest(width))
        for length in reversed(self._lengths[first : bisect_right(self._lengths, width)]):
            waiting = self._by_length[length]
            while waiting:
                padding += width - length
                if len(batch) >= most or padding > _FREE_PADDING + width * len(batch) // _PADDED:
                    return
                row = next(iter(waiting))
                if self._claim(row):
                    batch.append(row)

    def _put_back(self, batch: list[Row], kept: int) -> None:
        """Put the rows after the first `kept` ones back to where they were taken from."""
        while len(batch) > kept:
            row = batch.pop()
            row.taken = False
            self.tokens += len(row)
            waiting = self._of_length(len(row))
            waiting[row] = None
            waiting.move_to_end(row, last=False)

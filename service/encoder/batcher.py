"""Forward passes off the event loop: requests in, batches through the runtime, results out."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.layers import LAST, LayerStates
from service.deadline import in_time, require_time
from service.encoder.admission import Admission, DrainRate
from service.encoder.figures import PassFigures
from service.encoder.metering import count_tokens
from service.encoder.queue import QUICK, Job, PostProcess, Row, TokenQueue, deliver
from service.encoder.runtimes.base import Runtime
from service.encoder.shapes import Shapes
from service.encoder.tokenizer import pad
from service.errors import Unavailable
from service.observation import Phase, observed

__all__ = ["Batcher", "PostProcess", "Room", "RowFailed"]

logger = logging.getLogger(__name__)

_QUICK_BYTES: Final = 8 * QUICK
"""Most bytes of the body of a quick request, in any script, what stands around its texts included."""
_WARM_WIDTH: Final = 32
"""Widest pass that is warmed up: longer texts are rarer, and a pass over them is long beside its compilation."""
_WARM_TOKENS: Final = 512
"""Most tokens of a pass that is warmed up."""


class RowFailed(Exception):
    """A request failed because of one of its rows.

    Args:
        index: which row.
        reason: how it failed.
    """

    def __init__(self, index: int, reason: Exception) -> None:
        super().__init__(f"row {index}: {reason}")
        self.index = index
        self.reason = reason


@dataclass
class Room:
    """A place in the queue that a request has been given; what it counts for, in tokens."""

    cost: int


class Batcher:
    """Runs the requests of one encoder through as many streams as its runtime has.

    An idle stream starts at once on whatever waits; what arrives meanwhile makes up the next batch. Rows of different
    requests, poolings and layers share a pass, which carries other layers than the last if any of them asks for it.
    Beside the streams there is an express lane, whose passes take all
    cores: it runs a small request that is alone, and lets a quick one overtake where every stream is busy with larger
    requests. A thread that has nothing else to do runs the common shapes once, so that they are compiled.

    Args:
        runtime: what computes token states.
        shapes: which shapes passes may have.
        pad_id: the token id that fills a batch up.
        max_batch_tokens: most tokens of one pass, padding included.
        max_queued_tokens: waiting tokens beyond which further requests are refused.
        max_queued_seconds: the same as seconds of work.
        max_state_bytes: most memory of the passes under way; a larger one runs alone.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        shapes: Shapes,
        pad_id: int,
        max_batch_tokens: int,
        max_queued_tokens: int,
        max_queued_seconds: float,
        max_state_bytes: int,
    ) -> None:
        self._runtime = runtime
        self._pad_id = pad_id
        self._memory = max_state_bytes
        self.shapes = shapes
        """Which shapes passes may have."""
        self.compiled: set[tuple[int, int, bool]] = set()
        """Shapes (rows, time, wide) that passes had so far, where the runtime compiles each."""
        self._compiled_layers: set[tuple[int, int, bool]] = set()
        """The same of passes that carry layers, which are compiled apart."""
        self.passes = 0
        """Forward passes so far, without those that warm up."""
        self.figures = PassFigures()
        """What those passes were like."""
        self._queue = TokenQueue(max_batch_tokens, runtime.streams, self.shapes)
        self._admission = Admission(runtime.streams, max_batch_tokens, max_queued_tokens, max_queued_seconds)
        self._closed = False
        self._running: list[_Pass] = []
        self._short_of_memory = False
        self._lock = threading.Lock()
        self._for_streams, self._for_express = threading.Condition(self._lock), threading.Condition(self._lock)
        streams = [
            threading.Thread(
                target=self._work, args=(self._next_batch, self._for_streams, False), name=f"stream-{number}"
            )
            for number in range(runtime.streams)
        ]
        # One thread makes all wide passes: each that made some would have helpers of its own, waiting on the cores.
        express = threading.Thread(
            target=self._work, args=(self._next_express_batch, self._for_express, True), name="express"
        )
        self._threads = [*streams, express]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @property
    def most_compiled(self) -> int:
        """How many shapes (rows, time, wide) passes may have; 0 where the runtime compiles none."""
        return sum(1 + (rows * width <= QUICK) for rows, width in self.shapes)

    @contextmanager
    def room(self, tokens: int) -> Iterator[Room]:
        """Admit a request of about so many tokens, which are not known yet, until the end of the `with` block.

        A request that is refused has cost nothing so far.

        Raises:
            Unavailable: the queue is full, or the service is stopping.
            DeadlineExceeded: it comes too late.
        """
        require_time()
        with self._lock:
            room = Room(self._admit(tokens))
        try:
            yield room
        finally:
            self._release(room)

    def submit(
        self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess, layers: LayerStates = LAST
    ) -> Future[list[Any]]:
        """Queue a request for a thread that waits for its results.

        Args:
            ids: token ids, one array a text, none empty.
            post_process: from states, mask and ids to one result per row.
            layers: which layers' states those are; others than the last where the runtime has a `depth`.

        Returns:
            A future of the results, in the order of `ids`. Cancelling it drops what has not run yet.

        Raises:
            Unavailable: the queue is full, or the service is stopping.
        """
        job = Job(ids, post_process, layers=layers)
        self._put(job)
        return cast("Future[list[Any]]", job.future)

    async def run(
        self,
        ids: Sequence[NDArray[np.int64]],
        post_process: PostProcess,
        room: Room | None = None,
        layers: LayerStates = LAST,
        padding: Sequence[int] = (),
    ) -> list[Any]:
        """Queue a request and wait for its results; arguments and errors as for `submit`.

        Args:
            room: the one that the request has been given; by default it is admitted here.
            padding: how many padding tokens `post_process` is sure to be given behind each text; none by default.

        Raises:
            RowFailed: because of one of its rows.
            DeadlineExceeded: it took too long; what has not run yet is dropped.
        """
        require_time()
        job = Job(ids, post_process, asyncio.get_running_loop(), layers, padding)
        self._put(job, room)
        count_tokens(job.tokens)
        try:
            return await in_time(cast("asyncio.Future[list[Any]]", job.future))
        except Exception as error:
            if job.failed_row is None:
                raise
            raise RowFailed(job.failed_row, error) from error
        finally:
            if (request := observed()) is not None:
                request.phases += job.phases()

    @property
    def queued(self) -> tuple[int, int]:
        """How many texts wait for a pass, and how many tokens they have."""
        with self._lock:
            return self._queue.texts, self._queue.tokens

    def refusal(self, body_bytes: int) -> Unavailable | None:
        """Return the error of a request that is refused whatever its body holds; None where it may be taken.

        Args:
            body_bytes: the length of its body, which need not have been read.
        """
        with self._lock:
            full = self._admission.full and body_bytes > _QUICK_BYTES
            return self._admission.refusal(self._waiting()) if full else None

    def limit(self, max_queued_tokens: int, max_queued_seconds: float) -> None:
        """Change what may wait."""
        with self._lock:
            self._admission.max_tokens, self._admission.max_seconds = max_queued_tokens, max_queued_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """How fast waiting requests were worked off lately; None where that was not measured yet."""
        rate = self._admission.rate.tokens_per_second
        return rate if math.isfinite(rate) else None

    def forget_rate(self) -> None:
        """Measure anew how fast requests are worked off."""
        with self._lock:
            self._admission.rate = DrainRate(self._runtime.streams)

    @property
    def pause(self) -> int:
        """After how many seconds a client that is refused may come back: when what waits now is done."""
        with self._lock:
            return self._admission.pause(self._waiting())

    @property
    def alive(self) -> bool:
        """Whether all streams run."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Stop after the batches under way; waiting requests fail with `Unavailable`."""
        with self._lock:
            self._closed = True
            waiting = self._queue.clear()
            self._for_streams.notify_all()
            self._for_express.notify_all()
        for job in waiting:
            job.fail(stopping())
        deliver(waiting)
        for thread in self._threads:
            thread.join()

    def _put(self, job: Job, room: Room | None = None) -> None:
        if not job.rows:
            job.settle()
            return
        with self._lock:
            if room is None:
                admitted = Room(self._admit(job.tokens))
                job.future.add_done_callback(lambda _: self._release(admitted))
            elif self._closed:
                raise stopping()
            else:
                room.cost = self._admission.correct(room.cost, job.tokens)
            self._queue.put(job)
            self.figures.lengths.update(job.lengths)
            self._wanted().notify()

    def _admit(self, tokens: int) -> int:
        """Return what a request counts for that is taken, with the lock held."""
        if self._closed:
            raise stopping()
        return self._admission.take(tokens, self._waiting())

    def _release(self, room: Room) -> None:
        with self._lock:
            self._admission.release(room.cost)

    def _waiting(self) -> int:
        """Return how many tokens are not computed yet, with the lock held."""
        return self._queue.tokens + sum(one.tokens for one in self._running)

    def _work(self, take: Callable[[], list[Row]], work: threading.Condition, wide: bool) -> None:
        self._runtime.prepare_thread()
        warm_up = self._common_shapes(wide)
        while True:
            with self._lock:
                batch = take()
                current = self._begin(batch, wide=wide) if batch else None
                # A thread that could not take what waits wakes none of its kind, which could not either.
                if self._queue.tokens and (current or self._wanted() is not work):
                    self._wanted().notify()
                if not current:
                    if self._closed:
                        return
                    shape = next(warm_up, None)
                    if shape is None:
                        work.wait()
            if current:
                self._run(current.batch, wide=wide)
                deliver(self._end(current))
            elif shape is not None:
                try:
                    self._states(np.full(shape, self._pad_id), np.ones(shape, np.bool_), LAST.used, wide=wide)
                except Exception:  # a request of this shape will say so to who sent it
                    logger.exception("a pass of %d texts of %d tokens cannot be warmed up", *shape)
                    warm_up = iter(())

    def _wanted(self) -> threading.Condition:
        """Return for which threads there may be work in what waits."""
        free = len(self._running) < self._runtime.streams and not self._short_of_memory
        return self._for_streams if free and not self._small_and_alone() else self._for_express

    def _small_and_alone(self) -> bool:
        """Whether what waits is small and nothing runs, so that all cores had best do it at once."""
        return not self._running and self._queue.tokens <= QUICK

    def _next_batch(self) -> list[Row]:
        """Return a stream's next batch; empty where the express lane takes it, or has the cores."""
        if len(self._running) >= self._runtime.streams or self._small_and_alone():
            return []
        batch = self._queue.take(self._rows_in_memory)
        self._short_of_memory = not batch and self._queue.tokens > 0
        return batch

    def _next_express_batch(self) -> list[Row]:
        """Return the waiting rows if few and alone, or quick requests if larger ones keep the streams from them."""
        if self._small_and_alone():
            return self._queue.take(self._countable_rows if len(self.shapes) else None)
        busy = len(self._running) >= self._runtime.streams or self._short_of_memory
        if not busy or any(all(row.job.quick for row in one.batch) for one in self._running):
            return []
        return self._queue.take_quick()

    def _countable_rows(self, width: int) -> int:
        """Return how many rows of a width a pass on all cores may have; `most_compiled` counts no others."""
        return max(QUICK // width, 1)

    def _rows_in_memory(self, width: int) -> int:
        """Return how many rows of a width there is memory for; any width has room for one if nothing else runs."""
        left = self._memory - sum(one.size for one in self._running)
        rows = max(left // self._bytes(1, width, carries_layers=self._queue.carries_layers), 0)
        return rows if self._running else max(rows, 1)

    def _bytes(self, rows: int, width: int, *, carries_layers: bool) -> int:
        footprint, depth = self._runtime.footprint, self._runtime.depth
        size = footprint.of_pass(rows, width)
        return size + footprint.of_layers(rows, width, 1 + depth) if carries_layers and depth else size

    def _begin(self, batch: list[Row], *, wide: bool) -> _Pass:
        width = self.shapes.width(len(batch[0]))
        carries_layers = any(row.job.carries_layers for row in batch)
        size = self._bytes(len(batch), width, carries_layers=carries_layers)
        busy = not wide and (self._queue.tokens > 0 or len(self._running) + 1 >= self._runtime.streams)
        compiled = not len(self.shapes) or (len(batch), width, wide) in self._compiled(carries_layers)
        current = _Pass(batch, size, sum(map(len, batch)), perf_counter() if busy and compiled else None)
        self._running.append(current)
        return current

    def _end(self, current: _Pass) -> list[Job]:
        """Count a batch as done, and return the jobs that are over with it."""
        with self._lock:
            self.passes += 1
            if current.begun is not None:
                self._admission.rate.add(current.tokens, perf_counter() - current.begun)
            self._running.remove(current)
            self._short_of_memory = False
            for row in current.batch:
                row.job.remaining -= 1
            jobs = {row.job for row in current.batch}
            return [job for job in jobs if job.remaining == 0 or job.error is not None]

    def _common_shapes(self, wide: bool) -> Iterator[tuple[int, int]]:
        """Yield the shapes that most passes of short texts have."""
        most = QUICK if wide else _WARM_TOKENS
        return ((rows, width) for rows, width in self.shapes if width <= _WARM_WIDTH and rows * width <= most)

    def _run(self, rows: Sequence[Row], *, wide: bool) -> None:
        """Run a batch; what failed in it is run again by request, and then row by row, to find the row at fault."""
        for failed, error in self._attempt(rows, wide=wide):
            if len(failed) == 1:
                logger.error("a text of %d tokens failed", len(failed[0]), exc_info=error)
                failed[0].job.fail(error, failed[0].index)
                continue
            by_job: defaultdict[Job, list[Row]] = defaultdict(list)
            for row in failed:
                by_job[row.job].append(row)
            for some in by_job.values() if len(by_job) > 1 else ([row] for row in failed):
                left = some
                while left and not left[0].job.over:
                    count = self.shapes.rows(len(left))
                    self._run(left[:count], wide=wide)
                    left = left[count:]

    def _attempt(self, rows: Sequence[Row], *, wide: bool) -> list[tuple[Sequence[Row], Exception]]:
        """Run rows in one pass; return those that failed together, with their error."""
        failed: list[tuple[Sequence[Row], Exception]] = []
        groups: defaultdict[tuple[LayerStates, PostProcess], list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            groups[row.job.layers, row.job.post_process].append(place)
        wanted = {layer for layers, _ in groups for layer in layers.used}
        with torch.inference_mode():
            try:
                begun = perf_counter()
                ids, mask = pad([row.ids for row in rows], self._pad_id, self.shapes.width(max(map(len, rows))))
                new_shape = (*ids.shape, wide) not in self._compiled(wanted != set(LAST.used))
                states = self._states(ids, mask, wanted, wide=wide)
                computed = perf_counter()
            except Exception as error:  # for the clients that wait; the stream goes on
                return [(rows, error)]
            counts, tokens = torch.from_numpy(mask), torch.from_numpy(ids)
            for (layers, post_process), places in groups.items():
                chosen = slice(None) if len(groups) == 1 else places
                try:
                    own = layers({layer: states[layer][chosen] for layer in layers.used})
                    results = post_process(own, counts[chosen], tokens[chosen])
                    for place, result in zip(places, results, strict=True):
                        rows[place].job.results[rows[place].index] = result
                except Exception as error:  # concerns only the requests of this group
                    failed.append(([rows[place] for place in places], error))
        self._note(rows, ids.shape[1], begun, computed, new_shape=new_shape)
        return failed

    def _note(self, rows: Sequence[Row], width: int, begun: float, computed: float, *, new_shape: bool) -> None:
        """Count a pass that ends now, and note it in its requests."""
        ended = perf_counter()
        sizes = {"texts": len(rows), "tokens": len(rows) * width}
        passed = Phase("pass", begun, computed, sizes), Phase("pooling", computed, ended)
        with self._lock:
            self.figures.add(len(rows), width, sum(map(len, rows)), computed - begun, ended - computed)
            if len(self.shapes):
                self.figures.new_shapes += new_shape
                self.figures.known_shapes += not new_shape
            for job in {row.job for row in rows}:
                job.passes += passed

    def _states(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], wanted: Collection[int], *, wide: bool
    ) -> Mapping[int, Tensor]:
        if len(self.shapes):
            self._compiled(set(wanted) != set(LAST.used)).add((*ids.shape, wide))
        return self._runtime.by_layer(ids, mask, wanted, wide=wide)

    def _compiled(self, carries_layers: bool) -> set[tuple[int, int, bool]]:
        return self._compiled_layers if carries_layers else self.compiled


@dataclass(frozen=True, eq=False)
class _Pass:
    """A batch under way, the memory that it takes in bytes, its tokens without padding, and when it began.

    The latter is None where its speed tells nothing: it takes all cores or leaves some idle, or is compiled first.
    """

    batch: list[Row]
    size: int
    tokens: int
    begun: float | None


def stopping() -> Unavailable:
    """Return the error of what comes, or still waits, when the queue is closed."""
    return Unavailable("the service is stopping; send the request again in a moment.", retry_after=5)

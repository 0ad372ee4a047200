"""A replica of the service in simulated time: no model, no HTTP, and no clock but that of the simulation.

Batches and refusals are the service's own: `TokenQueue` and `Admission` run as they do in a service, with passes of
any shape, as in fp32, and `Replica` hands out batches by the rules of its batcher. What a pass and a request cost
comes from `Costs`.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from service.encoder.admission import Admission
from service.encoder.queue import QUICK, Job, Row, TokenQueue
from service.encoder.shapes import AnyShape
from service.errors import Unavailable

LONGEST: Final = 256
"""Most tokens of a text."""
_DONE: Final = 1e-9
"""Core-seconds below which a task has ended."""
_IDS: Final = [np.zeros(length, np.int64) for length in range(LONGEST + 1)]


class Events:
    """What happens in simulated time, in order; what is due at the same time, as it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds from the start."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` so many seconds from now."""
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, action))

    def run(self, until: float) -> None:
        """Let happen what is due by then."""
        while self._due and self._due[0][0] <= until:
            self.now, _, action = heapq.heappop(self._due)
            action()
        self.now = until


@dataclass(frozen=True)
class Costs:
    """What work costs a replica; each default is a figure of docs/benchmarks.md, of fp32 on two cores with AVX2.

    Args:
        cores: of the replica, each with a stream of passes.
        tokens_per_second: of all streams together, padding included, in batches of `max_batch_tokens`.
        pass_seconds: of a pass beside its tokens: what one sentence takes beyond its tokens at that rate.
        request_seconds: of a request beside its passes, on one core.
        text_seconds: of each text beside its pass, on one core.
        refusal_seconds: of a request that is refused, on one core; at most, since it is what the load test lost to
            them together with its client.
        speed: by which all of it is divided, for another machine.

    """

    cores: int = 2
    tokens_per_second: float = 7740.0
    pass_seconds: float = 0.0028
    request_seconds: float = 0.0005
    text_seconds: float = 0.0006
    refusal_seconds: float = 0.0008
    speed: float = 1.0

    def of_pass(self, tokens: int, *, wide: bool) -> float:
        """Return the core-seconds of a pass of so many tokens, padding included; a `wide` one takes all cores."""
        return self.pass_seconds * (self.cores if wide else 1) + tokens * self.cores / self.tokens_per_second


@dataclass(frozen=True)
class Limits:
    """The keys of `batching` in the config, with their defaults."""

    max_batch_tokens: int = 1024
    max_queued_tokens: int = 131072
    max_queued_seconds: float = 4.0


@dataclass(eq=False)
class Request:
    """A request, and what came of it; times are in seconds of the simulation.

    Args:
        at: when it was sent first.
        lengths: tokens of each text.
        sent: when it was sent last.
        refused: how often it was refused.
        done: when it was answered; None while it was not.
        gone: whether its client gave up.

    """

    at: float
    lengths: Sequence[int]
    sent: float = 0.0
    refused: int = 0
    done: float | None = None
    gone: bool = False

    @property
    def texts(self) -> int:
        """How many texts it has."""
        return len(self.lengths)


class _Waiting(Job):
    """A request in the queue, and what it counts for."""

    def __init__(self, request: Request, cost: int) -> None:
        super().__init__([_IDS[length] for length in request.lengths], _nothing)
        self.request = request
        self.cost = cost


@dataclass(eq=False)
class _Task:
    """Work on the cores: core-seconds that are left, the cores that it can use, and what follows it."""

    left: float
    cores: int
    follow: Callable[[], None]
    first: bool = False
    """Whether it goes before passes, as threads that answer do, which have the higher priority."""
    speed: float = 0.0


@dataclass(eq=False)
class _Pass:
    """A batch under way; `begun` is None where its speed tells nothing."""

    batch: list[Row]
    wide: bool
    tokens: int
    begun: float | None


class Replica:
    """One service: an event loop that takes one request at a time, streams of passes, and the express lane.

    They share the cores: the event loop gets its core first, passes share the rest by the cores that each can use.

    Args:
        events: of the simulation.
        costs: of its work.
        limits: of what waits.
        answered: called with each request that is answered.

    """

    def __init__(
        self, events: Events, costs: Costs, limits: Limits, answered: Callable[[Replica, Request], None]
    ) -> None:
        self._events, self._costs, self._answered = events, costs, answered
        self._shapes = AnyShape()
        self._queue = TokenQueue(limits.max_batch_tokens, costs.cores, self._shapes)
        self._admission = Admission(
            costs.cores,
            limits.max_batch_tokens,
            limits.max_queued_tokens,
            limits.max_queued_seconds,
            clock=lambda: events.now,
        )
        # The service measures a small batch at its start; here it is one of 256 tokens, on one stream.
        self._admission.rate.add(256, costs.of_pass(256, wide=False) / costs.speed)
        self.under_way: dict[Request, None] = {}
        """Requests that were taken and not answered yet."""
        self.lost = False
        """Whether it computes and answers nothing any more; who asks it waits."""
        self._to_handle: deque[tuple[float, Callable[[], None]]] = deque()
        self._handling = False
        self._running: list[_Pass] = []
        self._tasks: list[_Task] = []
        self._since = 0.0
        self._version = 0

    @property
    def queue_tokens(self) -> int:
        """The metric `millpond_queue_tokens`."""
        return self._queue.tokens

    def offer(self, request: Request) -> int | None:
        """Take a request; where it is refused, return after how many seconds its client may come back."""
        if self.lost:
            self.under_way[request] = None
            return None
        self._advance()
        costs, refusal = self._costs, None
        try:
            cost = self._admission.take(sum(request.lengths), self._not_computed())
        except Unavailable as error:
            refusal = error.retry_after
            self._handle(costs.refusal_seconds, _no_more)
        else:
            self.under_way[request] = None
            seconds = costs.request_seconds + costs.text_seconds * request.texts
            self._handle(seconds, partial(self._queue.put, _Waiting(request, cost)))
        self._go_on()
        return refusal

    def lose(self) -> None:
        """Stop all work at once."""
        self.lost = True
        self._version += 1

    def _handle(self, seconds: float, then: Callable[[], None]) -> None:
        self._to_handle.append((seconds, then))
        if not self._handling:
            self._handle_next()

    def _handle_next(self) -> None:
        self._handling = bool(self._to_handle)
        if self._to_handle:
            seconds, then = self._to_handle.popleft()
            self._tasks.append(_Task(seconds, 1, partial(self._handled, then), first=True))

    def _handled(self, then: Callable[[], None]) -> None:
        then()
        self._handle_next()

    def _not_computed(self) -> int:
        return self._queue.tokens + sum(one.tokens for one in self._running)

    # As service/encoder/batcher.py hands out batches, with memory for any of them.

    def _small_and_alone(self) -> bool:
        return not self._running and self._queue.tokens <= QUICK

    def _stream_batch(self) -> list[Row]:
        if len(self._running) >= self._costs.cores or self._small_and_alone():
            return []
        return self._queue.take()

    def _express_batch(self) -> list[Row]:
        if any(one.wide for one in self._running):
            return []
        if self._small_and_alone():
            return self._queue.take(lambda width: max(QUICK // width, 1))
        busy = len(self._running) >= self._costs.cores
        if not busy or any(all(row.job.quick for row in one.batch) for one in self._running):
            return []
        return self._queue.take_quick()

    def _begin(self, batch: list[Row], *, wide: bool) -> None:
        busy = not wide and (self._queue.tokens > 0 or len(self._running) + 1 >= self._costs.cores)
        begun = self._events.now if busy else None
        current = _Pass(batch, wide, sum(map(len, batch)), begun)
        self._running.append(current)
        work = self._costs.of_pass(len(batch) * self._shapes.width(len(batch[0])), wide=wide)
        self._tasks.append(_Task(work, self._costs.cores if wide else 1, partial(self._end, current)))

    def _end(self, current: _Pass) -> None:
        self._running.remove(current)
        if current.begun is not None:
            self._admission.rate.add(current.tokens, self._events.now - current.begun)
        for row in current.batch:
            row.job.remaining -= 1
        for job in dict.fromkeys(row.job for row in current.batch):
            if job.remaining == 0:
                assert isinstance(job, _Waiting)
                self._admission.release(job.cost)
                del self.under_way[job.request]
                job.request.done = self._events.now
                self._answered(self, job.request)

    # The cores.

    def _advance(self) -> None:
        """Count the work that was done since the last change."""
        elapsed, self._since = self._events.now - self._since, self._events.now
        for task in self._tasks:
            task.left -= elapsed * task.speed

    def _go_on(self) -> None:
        """Begin what can be begun, share the cores, and look again when the first task ends."""
        while True:
            if batch := self._stream_batch():
                self._begin(batch, wide=False)
            elif batch := self._express_batch():
                self._begin(batch, wide=True)
            else:
                break
        first = sum(task.first for task in self._tasks)
        wanted = sum(task.cores for task in self._tasks if not task.first)
        share = min(1.0, (self._costs.cores - first) / wanted) if wanted else 0.0
        for task in self._tasks:
            task.speed = self._costs.speed * (1.0 if task.first else task.cores * share)
        self._version += 1
        due = min((task.left / task.speed for task in self._tasks if task.speed), default=math.inf)
        if due < math.inf:
            self._events.after(max(due, 0.0), partial(self._look, self._version))

    def _look(self, version: int) -> None:
        if version != self._version:  # something changed meanwhile, and asked anew
            return
        self._advance()
        ended = [task for task in self._tasks if task.left <= _DONE]
        self._tasks = [task for task in self._tasks if task.left > _DONE]
        for task in ended:
            task.follow()
        self._go_on()


def _nothing(*_: object) -> list[object]:
    return []


def _no_more() -> None:
    pass

"""Simulated replicas behind a proxy, with their clients, an autoscaler, and the loss of one of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.simulation import Costs, Events, Limits, Replica, Request


def _nobody(_: Request) -> None:
    pass


@dataclass
class Fleet:
    """Replicas behind a proxy, as deploy/nginx.conf has it, and their clients.

    The proxy asks the replica with the fewest requests under way, and where that one refuses, the next. A client
    that both refuse comes back after the seconds of the last `Retry-After`, unless that is later than its patience.

    Args:
        events: of the simulation.
        costs: of each replica.
        limits: of each replica.
        patience: seconds from its first sending after which a request that is refused is given up.
        replicas: those that are asked.
        requests: all that were sent so far.
        refusals: when a client was refused.
        sizes: when the number of replicas changed, and the number.
        tries: how many replicas are asked for one sending.
        then: called with each request that is answered.

    """

    events: Events
    costs: Costs
    limits: Limits
    patience: float = 30.0
    replicas: list[Replica] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)
    tries: int = 2
    then: Callable[[Request], None] = _nobody
    _turn: int = 0

    def add(self, count: int = 1) -> None:
        """Add replicas that are ready."""
        self.replicas += [
            Replica(self.events, self.costs, self.limits, lambda _, request: self.then(request)) for _ in range(count)
        ]
        self.sizes.append((self.events.now, len(self.replicas)))

    def plan(self, requests: Sequence[Request]) -> None:
        """Have requests sent at their times; those of them that are sent are counted."""
        for request in requests:
            self.events.after(request.at - self.events.now, partial(self.first, request))

    def first(self, request: Request) -> None:
        """Send a request for the first time, and count it."""
        self.requests.append(request)
        self.send(request)

    def send(self, request: Request) -> None:
        """Send a request now."""
        request.sent = self.events.now
        self._turn += 1  # replicas that are equally busy take turns
        turn, count = self._turn, len(self.replicas)
        order = sorted(range(count), key=lambda at: (len(self.replicas[at].under_way), (at + turn) % count))
        pause = None
        for at in order[: self.tries]:
            pause = self.replicas[at].offer(request)
            if pause is None:
                return
        assert pause is not None
        self.refusals.append(self.events.now)
        request.refused += 1
        if self.events.now + pause > request.at + self.patience:
            request.gone = True
        else:
            self.events.after(pause, partial(self.send, request))

    def lose(self, noticed: float, replaced: float) -> None:
        """Lose a replica now.

        Args:
            noticed: seconds until the proxy knows, and sends what that replica had to others.
            replaced: seconds from then until there is a new one.

        """
        replica = self.replicas[0]
        replica.lose()

        def notice() -> None:
            self.replicas.remove(replica)
            self.sizes.append((self.events.now, len(self.replicas)))
            for request in replica.under_way:
                first = request.sent
                self.send(request)
                request.sent = first  # its client has waited since
            self.events.after(replaced, self.add)

        self.events.after(noticed, notice)


@dataclass
class Autoscaler:
    """The HorizontalPodAutoscaler of deploy/kubernetes, which adds replicas and, within minutes, removes none.

    Args:
        fleet: what it scales.
        most: replicas.
        start: seconds from the decision to a replica that is ready.
        target: waiting tokens a replica.
        every: seconds from one look to the next, and from one sample to the next.
        window: samples of a replica whose mean counts.

    """

    fleet: Fleet
    most: int
    start: float
    target: float = 4000.0
    every: float = 15.0
    window: int = 4
    _samples: dict[Replica, deque[int]] = field(default_factory=dict)
    _starting: int = 0

    def __post_init__(self) -> None:
        self.fleet.events.after(self.every, self._look)

    def _look(self) -> None:
        fleet = self.fleet
        for replica in fleet.replicas:
            self._samples.setdefault(replica, deque(maxlen=self.window)).append(replica.queue_tokens)
        waiting = sum(float(np.mean(self._samples[replica])) for replica in fleet.replicas)
        now = len(fleet.replicas) + self._starting  # one that starts counts with nothing that waits
        wanted = math.ceil(waiting / self.target)
        if wanted > 1.1 * now:  # the tolerance of Kubernetes, and the pace that it has by default
            more = min(wanted, self.most, max(2 * now, now + 4)) - now
            self._starting += more
            fleet.events.after(self.start, partial(self._started, more))
        fleet.events.after(self.every, self._look)

    def _started(self, count: int) -> None:
        self._starting -= count
        self.fleet.add(count)


def closed_loop(costs: Costs, lengths: Sequence[int], *, clients: int, texts: int, seconds: float) -> float:
    """Return the texts a second of one replica whose clients each send the next request when the last is answered.

    As `benchmarks/load.py` counts them: none is sent after so many seconds, and the last answer ends the time.
    """
    events = Events()
    fleet = Fleet(events, costs, Limits(max_queued_seconds=math.inf))
    fleet.add()
    place, ended = 0, 0.0

    def send(_: Request | None = None) -> None:
        nonlocal place, ended
        ended = events.now
        if events.now < seconds:
            some = [lengths[(place + at) % len(lengths)] for at in range(texts)]
            place += texts
            fleet.first(Request(events.now, some))

    fleet.then = send
    for _ in range(clients):
        send()
    events.run(math.inf)
    return sum(one.texts for one in fleet.requests) / ended

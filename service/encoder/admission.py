"""Admission to the queue of an encoder: what waits is bounded, in tokens and in seconds of work."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Final

from service.encoder.queue import QUICK
from service.errors import Unavailable

_SHARE: Final = 4
"""A request counts for at most this fraction of the queue, a quarter, so that small ones still get in beside it."""
_MEMORY: Final = 2.0
"""Seconds of a stream's work after which a measured pass counts for a third."""
_LASTING: Final = 0.5
"""What a load that lasts may fill of the queue: a burst may fill it all."""
_LONGEST_WAIT: Final = 60
"""Most seconds that a client is told to wait."""


class DrainRate:
    """Measures how fast the streams work off a queue, from the passes that run while all of them are busy.

    Passes beside idle streams tell little: each is alone with the memory and the caches of the machine.
    """

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Count a pass of one stream."""
        kept = math.exp(-seconds / _MEMORY)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds

    @property
    def tokens_per_second(self) -> float:
        """Of all streams together, lately; infinite where nothing was measured yet."""
        return self._streams * self._tokens / self._seconds if self._seconds else math.inf


class Admission:
    """Takes requests for as long as the admitted ones are within bounds. The batcher's lock guards it.

    A request that is alone is taken however large it is.

    Args:
        streams: how many passes run at once.
        max_batch_tokens: most tokens of one pass.
        max_tokens: admitted tokens beyond which requests are refused.
        max_seconds: the same as seconds of work, at the rate that was measured; half of it once the queue was never
            empty for as long. So a burst is taken, while under a load that lasts, in which whoever is taken waits for
            a whole queue, the queue is short. Two batches for each stream, one that runs and one that follows, are
            always taken, and of quick requests, which overtake others, a quarter more.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        streams: int,
        max_batch_tokens: int,
        max_tokens: int,
        max_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.max_tokens = max_tokens
        self.max_seconds = max_seconds
        self.admitted = 0
        """What the requests under way count for."""
        self.rate = DrainRate(streams)
        self.full = False
        """Whether requests are refused that are not quick: from when one was until there is room for the largest.

        So large requests get in as well as small ones, and most are refused at no more than a look.
        """
        self._clock = clock
        self._begun = -math.inf
        self._least = 2 * streams * max_batch_tokens

    def take(self, tokens: int, waiting: int) -> int:
        """Count a request, and return what it counts for.

        Args:
            tokens: of the request.
            waiting: tokens of all requests that are not computed yet.

        Raises:
            Unavailable: the queue is full.
        """
        cost, quick = self._cost(tokens), tokens <= QUICK
        no_room = self.admitted + cost > self._bound(quick=quick) or (self.full and not quick)
        if tokens and self.admitted and no_room:
            self.full = True
            raise self.refusal(waiting)
        if not self.admitted:
            self._begun = self._clock()
        self.admitted += cost
        return cost

    def release(self, cost: int) -> None:
        """Count a request that has ended."""
        self.admitted -= cost
        if self.admitted <= self._bound(quick=False) * (1 - 1 / _SHARE):
            self.full = False

    def refusal(self, waiting: int) -> Unavailable:
        """Return the error of a request that is refused; `waiting` as for `take`."""
        by_tokens = self._bound(quick=False) >= self.max_tokens
        lasting = "" if self._seconds == self.max_seconds else ", half of which is for a load that lasts"
        limit = f"tokens is {self.max_tokens}" if by_tokens else f"seconds is {self.max_seconds:g}{lasting}"
        pause = self.pause(waiting)
        return Unavailable(
            f"the queue is full: {self.admitted} tokens wait, {self.seconds(self.admitted):.1f} s of work, and "
            f"batching.max_queued_{limit}. Send the request again in {pause} s, with fewer clients at once.",
            retry_after=pause,
        )

    def correct(self, cost: int, tokens: int) -> int:
        """Return what a request counts for that was taken by an estimate, now that its tokens are known."""
        exact = self._cost(tokens)
        self.admitted += exact - cost
        return exact

    def seconds(self, waiting: int) -> float:
        """Return how long the work of waiting tokens takes; 0 where no rate was measured yet."""
        return waiting / self.rate.tokens_per_second

    def pause(self, waiting: int) -> int:
        """Return after how many seconds a client that is refused may come back: when what waits is done."""
        return min(max(math.ceil(self.seconds(waiting)), 1), _LONGEST_WAIT)

    @property
    def _seconds(self) -> float:
        """The seconds of work that are taken now."""
        burst = self._clock() < self._begun + self.max_seconds
        return self.max_seconds if burst else self.max_seconds * _LASTING

    def _bound(self, *, quick: bool) -> float:
        """Return the admitted tokens up to which a request is taken."""
        by_time = max(self._seconds * self.rate.tokens_per_second, self._least)
        return min(self.max_tokens, by_time * (1 + 1 / _SHARE) if quick else by_time)

    def _cost(self, tokens: int) -> int:
        return min(tokens, max(int(self._bound(quick=tokens <= QUICK)) // _SHARE, 1))

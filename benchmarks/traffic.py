"""Requests that come by a Poisson process, and what is told of them, whether replicas are real or simulated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from benchmarks.report import number
from benchmarks.simulation import Request

BULK: Final = 32
"""Texts of every other request, on average; the others have one."""
WINDOW: Final = 5.0
"""Seconds over which it is decided whether all is as before."""
_MEAN: Final = (1 + BULK) / 2


class Phase(NamedTuple):
    """So many seconds of so many texts a second."""

    seconds: float
    texts: float


@dataclass(frozen=True)
class Planned:
    """A request that is to be sent, and which texts it has."""

    request: Request
    places: Sequence[int]


def arrivals(seed: int, lengths: Sequence[int], phases: Sequence[Phase]) -> Iterator[Planned]:
    """Give requests of one text or `BULK`, by chance, at random times.

    Args:
        seed: of what is drawn.
        lengths: tokens of each text; they are used one after the other, again and again.
        phases: one after the other.

    """
    draw = np.random.default_rng(seed)
    begin, place = 0.0, 0
    for seconds, texts in phases:
        at = begin  # the process has no memory, so that each phase may begin anew
        while (at := at + draw.exponential(_MEAN / texts)) < begin + seconds:
            count = BULK if draw.random() < 0.5 else 1
            places = [(place + step) % len(lengths) for step in range(count)]
            place += count
            yield Planned(Request(float(at), [lengths[one] for one in places]), places)
        begin += seconds


@dataclass(frozen=True)
class Found:
    """What a stretch of time showed; latencies are in milliseconds, from the sending that was taken.

    Args:
        offered: texts a second of requests that were sent for the first time.
        answered: texts a second, the goodput.
        one: p50 and p99 of requests with one text.
        bulk: p50 and p99 of the others.
        whole: p99 of all, from when they were sent first.
        refused: share of the sendings.
        gone: share of the requests whose clients gave up.

    """

    offered: float
    answered: float
    one: tuple[float, float]
    bulk: tuple[float, float]
    whole: float
    refused: float
    gone: float

    def of(self, rate: float) -> Found:
        """Give the same with what is offered and answered as multiples of a rate."""
        return replace(self, offered=self.offered / rate, answered=self.answered / rate)

    def cells(self) -> dict[str, str]:
        """Give the cells of a table, in which rates are multiples."""
        return {
            "offered": f"{self.offered:.2f}",
            "answered": f"{self.answered:.2f}",
            "1 text, p50": number(self.one[0]),
            "1 text, p99": number(self.one[1]),
            f"{BULK} texts, p50": number(self.bulk[0]),
            f"{BULK} texts, p99": number(self.bulk[1]),
            "from the first sending, p99": number(self.whole),
            "refused": f"{self.refused:.1%}",
            "given up": f"{self.gone:.1%}",
        }


def summary(requests: Sequence[Request], refusals: Sequence[float], begin: float, end: float) -> Found:
    """Sum up what happened from `begin` to `end`: to requests, and when clients were refused."""
    first = [one for one in requests if begin <= one.at < end]
    done = [one for one in requests if one.done is not None and begin <= one.done < end]
    refused = sum(begin <= at < end for at in refusals)
    taken = sum(one.done is not None and begin <= one.sent < end for one in requests)

    def latencies(some: Sequence[Request]) -> tuple[float, float]:
        found = [1000 * (one.done - one.sent) for one in some if one.done is not None]
        return _percentile(found, 50), _percentile(found, 99)

    return Found(
        offered=sum(one.texts for one in first) / (end - begin),
        answered=sum(one.texts for one in done) / (end - begin),
        one=latencies([one for one in done if one.texts == 1]),
        bulk=latencies([one for one in done if one.texts > 1]),
        whole=_percentile([1000 * (one.done - one.at) for one in done if one.done is not None], 99),
        refused=refused / max(refused + taken, 1),
        gone=sum(one.gone for one in first) / max(len(first), 1),
    )


def recovery(
    requests: Sequence[Request], refusals: Sequence[float], since: float, until: float, usual: float
) -> float | None:
    """Return the seconds from `since` to the first `WINDOW` in which all is as usual; None where there is none.

    As usual is that nothing is refused, and the p99 from the first sending is at most twice the usual one.

    Args:
        requests: that were sent.
        refusals: when clients were refused.
        since: when what was unusual began, or ended.
        until: when to stop looking.
        usual: p99 from the first sending of before, in milliseconds.

    """
    refused = np.sort(refusals)
    done = sorted((one.done, 1000 * (one.done - one.at)) for one in requests if one.done is not None)
    times, latencies = np.array([at for at, _ in done]), [took for _, took in done]
    for begin in np.arange(since, until - WINDOW, 1.0):
        none, some = np.searchsorted(refused, (begin, begin + WINDOW))
        first, last = np.searchsorted(times, (begin, begin + WINDOW))
        if none == some and last > first and _percentile(latencies[first:last], 99) <= 2 * usual:
            return float(begin - since)
    return None


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else math.nan

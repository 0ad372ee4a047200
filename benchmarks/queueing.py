"""Simulated replicas under ten times their load, while others are added, and with one lost; one beside the real one.

Costs come from docs/benchmarks.md (`benchmarks/simulation.py`). For the validation the service itself is sent the
same requests at the same times as a simulated replica of its speed (`benchmarks/beside.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np

from benchmarks import beside
from benchmarks.encoder import token_ids
from benchmarks.fleet import Autoscaler, Fleet, closed_loop
from benchmarks.plots import Panel, curves
from benchmarks.report import Report, number, progress
from benchmarks.simulation import Costs, Events, Limits
from benchmarks.texts import fresh_abstracts, fresh_sentences
from benchmarks.traffic import BULK, WINDOW, Phase, arrivals, recovery, summary

SHARE: Final = 0.7
"""Of what replicas can do, the load that they are sized to: 1 x."""
LOADS: Final = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 5.0, 10.0)
"""Of one replica, in its rates."""
REPLICAS: Final = 4
PATIENCE: Final = (0.0, 5.0, 30.0)
"""Seconds after which clients of one replica give up, and of `REPLICAS`."""
GROWN: Final = (
    (2, 8, 5.0),
    (2, 8, 30.0),
    (2, 8, 120.0),
    (10, 8, 30.0),
    (10, 24, 5.0),
    (10, 24, 30.0),
    (10, 24, 120.0),
)
"""Loads, most replicas, and seconds that one takes to start."""
SETTLED: Final = 20.0
"""Seconds that are left out at the beginning."""
BEFORE: Final = SETTLED + 60.0
"""When something happens to a load that was steady."""


def run(report: Report) -> None:
    """Simulate, validate, and fill the report."""
    lengths = _lengths(fresh_sentences(), 12_000)
    rate = closed_loop(Costs(), lengths, clients=8, texts=BULK, seconds=60)
    report.say(
        "**What is simulated and what is measured are never in one table.** `benchmarks/simulation.py` runs the "
        "service's own queue and admission in simulated time, with costs from "
        "docs/benchmarks.md (fp32, two cores with AVX2): "
        f"{', '.join(f'{name} {value:g}' for name, value in asdict(Costs()).items())}. Requests come by a Poisson "
        f"process; half of them have one sentence and half have {BULK}, with the lengths of STS-B's sentences "
        f"({np.mean(lengths):.1f} tokens on average). A client that is refused comes back after the seconds of "
        "`Retry-After`, and gives up where that is later than 30 s after it sent first. The proxy asks the replica "
        "with the fewest requests under way, and where it refuses, one more. Latencies are in milliseconds, from "
        "the sending that was taken unless it says otherwise."
    )
    report.keep(costs=asdict(Costs()), rate=rate)
    _known_loads(report, lengths)
    beside.run(report)
    _one_replica(report, lengths, rate)
    _peak(report, lengths, rate)
    _patience(report, lengths, rate)
    _autoscaled(report, lengths, rate)
    _lost(report, lengths, rate)


def simulated(
    lengths: Sequence[int],
    phases: Sequence[Phase],
    *,
    replicas: int,
    patience: float = 30.0,
    prepare: Callable[[Fleet], object] = lambda _: None,
) -> Fleet:
    """Send requests to replicas in phases, and go on until the last is answered or given up.

    Args:
        lengths: tokens of texts.
        phases: of the load.
        replicas: how many there are at the start.
        patience: of the clients, in seconds.
        prepare: called with the fleet at the start.

    """
    events = Events()
    fleet = Fleet(events, Costs(), Limits(), patience)
    fleet.add(replicas)
    prepare(fleet)
    fleet.plan([planned.request for planned in arrivals(0, lengths, phases)])
    events.run(sum(phase.seconds for phase in phases) + patience + 60)
    return fleet


def _known_loads(report: Report, lengths: Sequence[int]) -> None:
    loads = {
        "STS-B 8 x 32": (lengths, 8, 32),
        "STS-B 64 x 1": (lengths, 64, 1),
        "STS-B 1 x 1": (lengths, 1, 1),
        "Cranfield 8 x 8": (_lengths(fresh_abstracts(), 1_000), 8, 8),
    }
    rates = {
        name: closed_loop(Costs(), some, clients=clients, texts=texts, seconds=report.size(60, 10))
        for name, (some, clients, texts) in loads.items()
    }
    report.say(
        "## Simulated: texts a second in a closed loop\n\nThe loads of docs/benchmarks.md, clients x texts a "
        "request; its table has what was measured."
    )
    report.computed("simulated", {"one replica": rates}, number)
    report.keep(closed_loop=rates)


def _one_replica(report: Report, lengths: Sequence[int], rate: float) -> None:
    seconds = report.size(300, 10)
    found = {}
    for share in LOADS:
        fleet = simulated(lengths, [Phase(SETTLED + seconds, share * rate)], replicas=1)
        found[share] = summary(fleet.requests, fleet.refusals, SETTLED, SETTLED + seconds).of(rate)
        progress(f"queueing: {share:g} x the rate of a replica")
    report.say(
        f"## Simulated: one replica, by its load\n\nIn multiples of its rate, {rate:.0f} texts a second: what 8 "
        f"clients x {BULK} texts have in a closed loop. {seconds} s each, after {SETTLED:.0f} s."
    )
    report.computed("simulated", {f"{share:g} x": one.cells() for share, one in found.items()})
    steps = [f"{share:g}" for share in LOADS]
    slow = {
        "1 text": [one.one[1] for one in found.values()],
        f"{BULK} texts": [one.bulk[1] for one in found.values()],
    }
    shares = {
        "texts answered": [one.answered for one in found.values()],
        "share of sendings refused": [one.refused for one in found.values()],
    }
    panels = [
        Panel("p99 of what is answered", "load, in rates of the replica", "ms", steps, slow, logarithmic=True),
        Panel("Answered and refused", "load, in rates of the replica", "rates; share", steps, shares, (0, None)),
    ]
    report.plot(curves(panels, "One simulated replica"), "queueing", "Latency and goodput by load, simulated")
    report.keep(one_replica={f"{share:g}": asdict(one) for share, one in found.items()})


def _peak(report: Report, lengths: Sequence[int], rate: float) -> None:
    peak, usual = report.size(120, 10), SHARE * REPLICAS * rate
    end = BEFORE + peak
    rows, kept = {}, {}
    for times in (1, 2, 10):
        phases = [Phase(BEFORE, usual), Phase(peak, times * usual), Phase(120, usual)]
        fleet = simulated(lengths, phases, replicas=REPLICAS)
        before = summary(fleet.requests, fleet.refusals, SETTLED, BEFORE)
        found = summary(fleet.requests, fleet.refusals, BEFORE, end).of(REPLICAS * rate)
        back = recovery(fleet.requests, fleet.refusals, end, end + 120, before.whole)
        rows[f"{times} x"] = found.cells() | ({"recovered, s": _seconds(back)} if times > 1 else {})
        kept[f"{times}"] = asdict(found) | {"recovered": back}
        progress(f"queueing: {times} x the load of {REPLICAS} replicas")
    report.say(
        f"## Simulated: {REPLICAS} replicas, and a peak\n\n1 x is {SHARE:.0%} of their rate. The peak lasts {peak} "
        f"s, with 1 x before and after it. *Recovered*: seconds from its end to the first {WINDOW:.0f} s in which "
        "nothing is refused, and p99 from the first sending is at most twice that of before."
    )
    report.computed("simulated", rows)
    report.keep(peak=kept)


def _patience(report: Report, lengths: Sequence[int], rate: float) -> None:
    peak, usual = report.size(120, 10), SHARE * REPLICAS * rate
    found = {}
    for patience in PATIENCE:
        phases = [Phase(BEFORE, usual), Phase(peak, 10 * usual)]
        fleet = simulated(lengths, phases, replicas=REPLICAS, patience=patience)
        found[patience] = summary(fleet.requests, fleet.refusals, BEFORE, BEFORE + peak).of(REPLICAS * rate)
        progress(f"queueing: clients that give up after {patience:g} s")
    report.say(
        "## Simulated: clients that give up sooner\n\nThe same 10 x, where clients give up after so many seconds. "
        "With 0 s none comes back."
    )
    report.computed("simulated", {f"{patience:g} s": one.cells() for patience, one in found.items()})
    report.keep(patience={f"{patience:g}": asdict(one) for patience, one in found.items()})


def _autoscaled(report: Report, lengths: Sequence[int], rate: float) -> None:
    peak = report.size(300, 40)
    usual, end, late = SHARE * 2 * rate, BEFORE + peak, BEFORE + 0.8 * peak
    rows, kept = {}, {}
    for times, most, start in GROWN:
        phases = [Phase(BEFORE, usual), Phase(peak, times * usual)]
        fleet = simulated(lengths, phases, replicas=2, prepare=partial(Autoscaler, most=most, start=start))
        before = summary(fleet.requests, fleet.refusals, SETTLED, BEFORE)
        found = summary(fleet.requests, fleet.refusals, BEFORE, end)
        last = summary(fleet.requests, fleet.refusals, late, end)
        back = recovery(fleet.requests, fleet.refusals, BEFORE, end, before.whole)
        sizes = [(at, size) for at, size in fleet.sizes if at <= end]
        name = f"{times} x, at most {most}, start {start:.0f} s"
        rows[name] = {
            "replicas": f"{sizes[-1][1]}",
            "the last after, s": f"{max(sizes[-1][0] - BEFORE, 0):.0f}",
            "refused": f"{found.refused:.1%}",
            "given up": f"{found.gone:.1%}",
            "answered at the end": f"{last.answered / last.offered:.2f}",
            "from the first sending, p99 at the end": number(last.whole),
            "recovered, s": _seconds(back),
        }
        kept[name] = {"peak": asdict(found), "end": asdict(last), "sizes": sizes, "recovered": back}
        progress(f"queueing: {name}")
    report.say(
        "## Simulated: replicas are added\n\nTwo replicas at 1 x, and from then on a load that stays. The rule is "
        "that of `deploy/kubernetes/embed.yaml`, whose most is 8: every 15 s as many replicas are wanted as "
        "waiting tokens (each replica's mean of 4 samples, one in 15 s) make at 4,000 each; at most twice as many "
        "as there are, or 4 more. *Start*: seconds from that decision to ready. *At the end*: the last "
        f"{0.2 * peak:.0f} s of {peak}; answered is a share of what is offered then. *Recovered*: seconds after the "
        "load rose."
    )
    report.computed("simulated", rows)
    report.keep(autoscaled=kept)


def _lost(report: Report, lengths: Sequence[int], rate: float) -> None:
    after = report.size(180, 40)
    rows: dict[str, dict[str, str]] = {}
    kept: dict[str, Any] = {}
    for replicas in (2, 4, 8):
        for noticed in (0.0, 10.0):

            def prepare(fleet: Fleet, noticed: float = noticed) -> None:
                fleet.events.after(BEFORE, partial(fleet.lose, noticed, 30.0))

            phases = [Phase(BEFORE + after, SHARE * replicas * rate)]
            fleet = simulated(lengths, phases, replicas=replicas, prepare=prepare)
            before = summary(fleet.requests, fleet.refusals, SETTLED, BEFORE)
            found = summary(fleet.requests, fleet.refusals, BEFORE, BEFORE + noticed + 30)
            back = recovery(fleet.requests, fleet.refusals, BEFORE, BEFORE + after, before.whole)
            name = f"1 of {replicas}, noticed after {noticed:.0f} s"
            rows[name] = {
                "load of the others": f"{SHARE * replicas / (replicas - 1):.2f}",
                "refused": f"{found.refused:.1%}",
                "given up": f"{found.gone:.1%}",
                "from the first sending, p99 before": number(before.whole),
                "meanwhile": number(found.whole),
                "recovered, s": _seconds(back),
            }
            kept[name] = {"before": asdict(before), "meanwhile": asdict(found), "recovered": back}
            progress(f"queueing: {name}")
    report.say(
        f"## Simulated: a replica is lost\n\nAt {SHARE:.0%} of the rate of all. Until it is noticed, what it has "
        "and what it is still sent waits; then the proxy sends all of that to the others, and 30 s later there is "
        "a new replica. The end of a process is noticed at once; 10 s are two readiness probes. *Meanwhile*: until "
        "the new one is there. *Recovered*: seconds from the loss."
    )
    report.computed("simulated", rows)
    report.keep(lost=kept)


def _lengths(texts: Any, count: int) -> list[int]:
    return [len(ids) for ids in token_ids(list(islice(texts, count)))]


def _seconds(value: float | None) -> str:
    return "not" if value is None else f"{value:.0f}"

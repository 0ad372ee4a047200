"""The service itself beside a simulated replica: the same requests at the same times, in tables of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import yaml

from benchmarks import load
from benchmarks.encoder import MINILM, token_ids
from benchmarks.fleet import Fleet, closed_loop
from benchmarks.millpond import Millpond
from benchmarks.paced import PACE
from benchmarks.poisson import carry_out
from benchmarks.report import Report, progress
from benchmarks.simulation import Costs, Events, Limits, Request
from benchmarks.texts import fresh_sentences
from benchmarks.traffic import BULK, Found, Phase, Planned, arrivals, summary
from tests.support.servers import Server

LOADS: Final = (0.5, 0.9, 2.0)
"""In multiples of the rate of a closed loop just before."""
CLIENTS: Final = 8
"""Of that closed loop, with `BULK` texts a request each."""


class Paced(Server):
    """The service with passes that wait."""

    def __init__(self, config: Path, store: Path) -> None:
        super().__init__(config, store)
        self.command = [sys.executable, "-m", "benchmarks.paced", *self.command[3:]]


@dataclass
class Rounds:
    """What each round showed by load, and the rates of the closed loops around it, in texts a second."""

    measured: dict[float, list[Found]] = field(default_factory=lambda: {share: [] for share in LOADS})
    simulated: dict[float, list[Found]] = field(default_factory=lambda: {share: [] for share in LOADS})
    rates: list[float] = field(default_factory=list)


class Beside:
    """Measures servers, and simulates the same.

    Args:
        report: says how often and how long.

    """

    def __init__(self, report: Report) -> None:
        self.rounds = report.rounds
        self.seconds, self.patience = report.size(30, 4), report.size(15, 4)
        self.closed = report.size(8, 2)
        self.texts = list(islice(fresh_sentences(1), 20_000))
        self.lengths = [len(ids) for ids in token_ids(self.texts)]
        self._bulk = [_request(self.texts[at : at + BULK]) for at in range(0, len(self.texts) - BULK, BULK)]

    def closed_loop(self, costs: Costs) -> float:
        """Return the texts a second of a simulated replica in the closed loop."""
        return closed_loop(costs, self.lengths, clients=CLIENTS, texts=BULK, seconds=self.closed)

    def run(self, kind: type[Server], costs: Callable[[float], Costs]) -> Rounds:
        """Measure a server, each load between two closed loops, and simulate a replica.

        Args:
            kind: of the server.
            costs: from the texts a second of those loops to what work costs the replica.

        """
        found = Rounds()
        with TemporaryDirectory() as folder, load.Client() as client:
            config = Path(folder) / "config.yaml"
            config.write_text(yaml.safe_dump({"models": {"default": {"encoder": MINILM}}}))
            with kind(config, Path(folder) / "store") as server:
                self._rate(client, server)  # the first passes of each shape are compiled
                for turn in range(self.rounds):
                    before = self._rate(client, server)
                    for share in LOADS:
                        plan = list(arrivals(turn, self.lengths, [Phase(self.seconds, share * before)]))
                        real = self._sent(server, plan)
                        after = self._rate(client, server)
                        mean, before = (before + after) / 2, after
                        found.rates.append(mean)
                        found.measured[share].append(real.of(mean))
                        found.simulated[share].append(self._simulated(plan, costs(mean)).of(mean))
                        progress(f"queueing: {kind.__name__}, {share:g} x, {mean:.0f} texts/s in closed loops")
        return found

    def _rate(self, client: load.Client, server: Server) -> float:
        sent = load.Load(server.port, self._bulk, CLIENTS, seconds=self.closed, patient=True)
        return client.run(sent).rate

    def _sent(self, server: Server, plan: Sequence[Planned]) -> Found:
        requests = [(one.request.at, _request([self.texts[at] for at in one.places])) for one in plan]
        answers = carry_out(server.port, requests, patience=self.patience)
        real = [
            Request(one.request.at, one.request.lengths, of.sent, len(of.refusals), of.done, of.done is None)
            for one, of in zip(plan, answers, strict=True)
        ]
        return self._summary(real, [at for of in answers for at in of.refusals])

    def _simulated(self, plan: Sequence[Planned], costs: Costs) -> Found:
        events = Events()
        fleet = Fleet(events, costs, Limits(), self.patience)
        fleet.add()
        fleet.plan([one.request for one in plan])
        events.run(self.seconds + self.patience + 60)
        return self._summary(fleet.requests, fleet.refusals)

    def _summary(self, requests: Sequence[Request], refusals: Sequence[float]) -> Found:
        return summary(requests, refusals, self.seconds / 6, self.seconds)


def run(report: Report) -> None:
    """Measure, simulate the same, and add the tables."""
    beside = Beside(report)
    own, paced = beside.closed_loop(Costs()), beside.closed_loop(PACE)
    report.say(
        "## Validation: one replica\n\nA service on this machine is sent requests as above by "
        f"`benchmarks/poisson.py` for {beside.seconds} s, of which the first sixth is left out; a simulated replica "
        f"gets the same requests at the same times. Clients give up after {beside.patience} s. Loads are multiples "
        f"of the rate that {CLIENTS} clients x {BULK} texts had in a closed loop of {beside.closed} s just before; "
        "*offered* and *answered* are of the mean of just before and just after. Medians of "
        f"{beside.rounds} (least-most)."
    )
    found = beside.run(Paced, lambda _: PACE)
    report.say(
        "### Passes that wait\n\nThe service with passes that wait as long as the simulated ones take "
        f"(`benchmarks/paced.py`: {PACE.tokens_per_second:g} tokens a second, {1000 * PACE.pass_seconds:g} ms a "
        "pass), so that neither the encoder nor other programs decide how long they take; what requests cost beside "
        "passes is left out of the simulation. Nothing is fitted: closed "
        f"loops had {min(found.rates):.1f} to {max(found.rates):.1f} texts a second, the simulated one has "
        f"{paced:.1f}."
    )
    _tables(report, "paced", found)
    found = beside.run(Server, lambda rate: replace(Costs(), speed=rate / own))
    report.say(
        "### The service\n\nThe service as it is, in fp32, beside other programs. Closed loops had "
        f"{min(found.rates):.0f} to {max(found.rates):.0f} texts a second. The simulated replica has the costs "
        f"above, its speed being the mean of just before and just after over {own:.0f}, which is all that is fitted."
    )
    _tables(report, "service", found)


def _tables(report: Report, name: str, found: Rounds) -> None:
    report.table("measured", {f"{share:g} x": _spreads(some) for share, some in found.measured.items()})
    report.computed("simulated", {f"{share:g} x": _spreads(some) for share, some in found.simulated.items()})
    kept = {
        "measured": {f"{share:g}": [asdict(one) for one in some] for share, some in found.measured.items()},
        "simulated": {f"{share:g}": [asdict(one) for one in some] for share, some in found.simulated.items()},
        "rates": found.rates,
    }
    report.keep(**{name: kept})


def _request(texts: Sequence[str]) -> load.Request:
    return Millpond("").embed_request(texts)


def _spreads(found: Sequence[Found]) -> dict[str, str]:
    rows = [one.cells() for one in found]
    return {head: _spread([row[head] for row in rows]) for head in rows[0]}


def _spread(cells: Sequence[str]) -> str:
    """Give the median of numbers, or of percentages, with the least and the most where they differ."""
    unit = "%" if cells[0].endswith("%") else ""
    values = sorted(float(cell.rstrip("%")) for cell in cells)
    middle = f"{median(values):g}{unit}"
    return middle if values[0] == values[-1] else f"{middle} ({values[0]:g}-{values[-1]:g})"

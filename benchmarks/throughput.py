"""Throughput, latency and memory over HTTP: against what this machine could give, and against Infinity, in one run.

No text comes twice in a row of a table, so that batches keep coming in new shapes. A single client is measured beside
others too: 8 that send 32 texts a request, and one that sends 10,000.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from statistics import median
from typing import Any, Final

from benchmarks.ceiling import PRECISIONS, costs
from benchmarks.load import HOW, Client, Load, percentiles
from benchmarks.millpond import Millpond, millponds, millponds_in
from benchmarks.peers.infinity import infinities
from benchmarks.plots import rows
from benchmarks.report import Report, Rows, medians_by_column, nested, number, progress, ratio, ratios, spread
from benchmarks.servers import Measured, Target, by_round, field_of, memory_cells
from benchmarks.texts import fresh_abstracts, fresh_sentences, unit

SOURCES: Final = {"STS-B": fresh_sentences, "Cranfield": fresh_abstracts}
SAMPLES: Final = {"STS-B": (2048, 256), "Cranfield": (256, 32)}
"""How many texts the ceiling is measured with, in full and with --quick."""
HEAD_START: Final = 1.0
"""Seconds that others run before a single client begins, and at least after its end."""


@dataclass(frozen=True)
class Kind:
    """A kind of load: texts of one data set, `each` a request, by `clients` at once."""

    data: str
    clients: int
    each: int

    @property
    def name(self) -> str:
        """The heading in tables: clients x texts a request."""
        return f"{self.data} {self.clients} x {self.each}"


CROWD: Final = Kind("STS-B", 8, 32)
ALONE: Final = Kind("STS-B", 1, 1)
KINDS: Final = (CROWD, Kind("STS-B", 64, 1), Kind("Cranfield", 8, 8), ALONE)
NAMES: Final = [kind.name for kind in KINDS]
HEADS: Final = ("texts/s", "of the ceiling", "CPU", "by CPU", "p50", "p99", "longest", "memory", "at most")


class Row:
    """A server under one kind of load; other servers get the same texts, and none comes twice."""

    def __init__(self, server: Target, kind: Kind, pace: float = 100.0) -> None:
        self.server, self.kind = server, kind
        self.pace = pace
        """Texts a second, as far as that is known."""
        self._texts = SOURCES[kind.data](seed=kind.clients)

    def load(self, seconds: float, *, repeated: bool = False) -> Load:
        """Take the texts of so many seconds at this pace; `repeated` where they do not last them."""
        requests = max(self.kind.clients, math.ceil(self.pace * seconds / self.kind.each))
        texts = list(islice(self._texts, requests * self.kind.each))
        most = seconds if repeated else None
        return self.server.load(texts, clients=self.kind.clients, each=self.kind.each, seconds=most)

    def warm_up(self, client: Client, seconds: float) -> None:
        """Run it once, patiently, to learn its pace."""
        self.pace = client.run(replace(self.load(seconds, repeated=True), patient=True)).rate


def run(report: Report) -> None:
    """Measure, and fill the report."""
    seconds, brief = report.size(20, 2), report.size(5, 1)
    long = Kind("STS-B", 1, report.size(10_000, 500))
    sample = {name: list(islice(source(), report.size(*SAMPLES[name]))) for name, source in SOURCES.items()}
    with field_of([*millponds(), *infinities()]) as field, Client() as client, Client() as others:

        def measure(row: Row) -> Measured:
            return row.server.measure(client, row.load(seconds))

        def beside(row: Row, company: Row) -> Measured:
            busy = others.start(company.load(brief + 2 * HEAD_START, repeated=True))
            time.sleep(HEAD_START)
            measured = row.server.measure(client, row.load(brief, repeated=True))
            busy.result()
            return measured

        contestants: dict[tuple[str, str], Any] = {}
        ceilings = {server.name: f"ceiling {server.precision}" for server in millponds_in(field)}
        for one in millponds_in(field):
            if one.precision in PRECISIONS:
                contestants[ceilings[one.name], ""] = partial(costs, one.precision, sample)
        for server in field.servers:
            progress(f"warming {server.name} up")
            by_kind = {kind: Row(server, kind) for kind in KINDS}
            for row in by_kind.values():
                row.warm_up(client, brief)
                contestants[server.name, row.kind.name] = partial(measure, row)
            for kind in (CROWD, long) if isinstance(server, Millpond) else (CROWD,):
                company = Row(server, kind, by_kind[CROWD].pace)
                contestants[server.name, f"beside {kind.name}"] = partial(beside, by_kind[ALONE], company)
        found: dict[str, dict[str, list[Any]]] = nested(report.interleave(contestants))
        spent = {ceiling: by.pop("") for ceiling, by in found.items() if "" in by}
        for name, ceiling in ceilings.items():
            ceilings[name] = ceiling if ceiling in spent else [*spent][-1]  # the last is the fastest
            for kind in KINDS[:-1] if ceiling in spent else ():
                pairs = zip(spent[ceiling], found[name][kind.name], strict=True)
                found[ceiling][kind.name] = [cost[kind.data].load(kind.each, one.outcome) for cost, one in pairs]
        show(report, found, ceilings)
        cosines = agreement(field.servers, sample["STS-B"][:64])
        least = ", ".join(f"{cosine:.4f} ({one})" for one, cosine in cosines.items())
        report.say(f"{HOW} The least cosine of 64 sentences' vectors to those of {field.servers[0].name}: {least}.")
        report.servers(field)
    report.keep(least_cosine=cosines, ceiling_ms=spent)


def show(report: Report, found: Rows[Sequence[Measured]], ceilings: Mapping[str, str]) -> None:
    """Fill the report with the rounds of servers and ceilings; `ceilings` names the one of each Millpond."""
    rates = by_round(found, lambda each: each.outcome.rate)
    cpu = by_round(found, lambda each: each.cpu_ms)
    memory = by_round(found, lambda each: each.usage.resident)
    waits = {
        one: {kind: percentiles([each.outcome for each in of]) for kind, of in by.items()}
        for one, by in found.items()
        if one not in ceilings.values()
    }
    others = [one for one in waits if one not in ceilings]
    report.say(
        "A load is *clients x texts a request*, of sentences like STS-B's or abstracts like Cranfield's, cut to 256 "
        f"tokens. No text comes twice in a row. Medians of {report.rounds} (least-most); ratios are the medians of "
        "the rounds' ratios."
    )
    report.say(
        "The ceiling is what this machine could give, measured in each round: the encoder's unmodified OpenVINO "
        "graph, a stream a core, over texts sorted by length in batches of 1,024 tokens; the tokenizer; 30 µs a "
        "request for HTTP; and the load client, which computes on the same cores. For int8 it is that of the fastest "
        "other precision. Ratios of texts a second:"
    )
    compared = {
        f"{one} / {other}": ratios(rates[one], rates[other])
        for one, ceiling in ceilings.items()
        for other in (ceiling, *others)
    }
    report.table("ratio", compared, heads=NAMES)
    report.say(
        "By load: CPU is the server's milliseconds of processor time a text, and *by CPU* those of the ceiling over "
        "them, which suffers less from whatever else the machine does. Latency is of a request, in milliseconds; "
        "memory is resident, in MB, after the last round and at most."
    )
    for kind in NAMES:
        table = {}
        for one in (one for one in found if kind in found[one]):
            table[one] = {"texts/s": spread(rates[one][kind]), "CPU": number(median(cpu[one][kind]))}
            if kind in rates[ceiling := ceilings.get(one, one)] and ceiling != one:
                table[one]["of the ceiling"] = number(ratio(rates[one][kind], rates[ceiling][kind]))
                table[one]["by CPU"] = number(ratio(cpu[ceiling][kind], cpu[one][kind]))
            if one in waits:
                table[one] |= {p: number(median(of)) for p, of in waits[one][kind].items()}
                table[one] |= memory_cells(found[one][kind])
        report.table(kind, table, heads=HEADS)
    report.say("A single client, one sentence a request, beside others, milliseconds; *x* is the ratio to alone:")
    besides = {
        f"{one}, {kind}": {p: spread(rounds) for p, rounds in of[kind].items()}
        | {f"{p} x": number(ratio(of[kind][p], of[ALONE.name][p])) for p in ("p50", "p99")}
        for one, of in waits.items()
        for kind in of
        if kind not in NAMES
    }
    report.table("beside others", besides)
    title = "Texts a second by load, clients x texts (higher is better)"
    report.plot(rows(medians_by_column(rates, NAMES[:-1]), title), "throughput", "Throughput")
    report.keep(ratios=compared, texts_per_second=rates, cpu_ms=cpu, latency_ms=waits, memory_mb=memory)


def agreement(servers: Sequence[Target], texts: Sequence[str]) -> dict[str, float]:
    """Give the least cosine of each server's vectors with the first one's: do they serve the same model?"""
    vectors = {server.name: unit(server.embed(texts)) for server in servers}
    reference = vectors[servers[0].name]
    return {name: float((found * reference).sum(axis=1).min()) for name, found in vectors.items()}

"""Texts a second over HTTP against a bare loop over the same tokens, and against Infinity, interleaved in one run.

python -m benchmarks.throughput
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benchmarks import datasets, wrk
from benchmarks.load import HOW, Client
from benchmarks.loop import Loop
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.peers import FP32, INT8, infinities
from benchmarks.plots import bars
from benchmarks.report import Report, number, ratio, spread
from benchmarks.servers import Bystanders, Server
from benchmarks.service import runnable
from service.encoder.runtimes.machine import available_cores

STS: Final = "STS-B"
CRANFIELD: Final = "Cranfield"


@dataclass(frozen=True)
class Kind:
    """A kind of load: texts of one data set, `each` a request, by `clients` at once."""

    data: str
    clients: int
    each: int
    full: int
    quick: int

    @property
    def name(self) -> str:
        """As tables say it: clients x texts a request."""
        return f"{self.data} {self.clients} x {self.each}"


KINDS: Final = (
    Kind(STS, 8, 32, 1280, 256),
    Kind(STS, 64, 1, 512, 128),
    Kind(STS, 1, 1, 200, 30),
    Kind(CRANFIELD, 4, 16, 96, 64),
    Kind(CRANFIELD, 16, 1, 64, 32),
)
ALONE: Final = KINDS[2]
BARE: Final = {STS: KINDS[0], CRANFIELD: KINDS[3]}
"""The bare loops run over the texts of these."""

Results = dict[str, dict[str, list[float]]]
"""Texts a second of each round, by contestant and load."""


def agreement(server: Server, reference: Server, texts: Sequence[str]) -> float:
    """The least cosine between two servers' vectors of the same texts: do they serve the same model?"""
    first, second = server.embed(texts), reference.embed(texts)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / norms).min())


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("throughput", "Throughput and latency over HTTP", settings)
    source = {STS: datasets.sts_sentences(), CRANFIELD: [t for t in datasets.cranfield().documents.values() if t]}
    texts = {kind: source[kind.data][: settings.some(kind.full, kind.quick)] for kind in KINDS}
    sets = {data: texts[kind] for data, kind in BARE.items()}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours, notes = runnable(stack, folder)
        peers, left_out = infinities(stack, folder, (FP32, INT8))
        notes += left_out
        servers: list[Server] = [*ours.values(), *peers]
        progress("starting the bare loops")
        bare = {
            f"bare, transformers fp32, {'1 stream over all cores' if streams == 1 else f'{streams} streams'}": Loop(
                "benchmarks.bare", "torch", str(streams), texts=sets
            )
            for streams in sorted({1, available_cores()})
        }
        bare |= {
            f"bare, as the service runs {server.runs_on}": Loop("benchmarks.bare", "service", precision, texts=sets)
            for precision, server in ours.items()
        }
        for loop in bare.values():
            stack.enter_context(loop)
        client = stack.enter_context(Client())
        for server in servers:
            progress(f"warming {server.name} up")
            server.warm_up(client, [*source[STS][-64:], *source[CRANFIELD][-16:]])
        reference = ours.get("fp32", next(iter(ours.values())))
        same = {server.name: agreement(server, reference, source[STS][:64]) for server in servers}
        rates: Results = {one: {} for one in (*bare, *(server.name for server in servers))}
        latency: dict[str, dict[str, list[float]]] = {server.name: {"p50": [], "p99": []} for server in servers}
        watch, busiest = Bystanders(servers), 0.0
        for number_of in range(settings.rounds):
            for data in BARE:
                for one, loop in bare.items():
                    rates[one].setdefault(BARE[data].name, []).append(loop.round(data))
            for kind in KINDS:
                for server in servers:
                    load = server.load(texts[kind], clients=kind.clients, each=kind.each)
                    outcome = watch.run(client, server, load)
                    busiest = max(busiest, outcome.cpu)
                    rates[server.name].setdefault(kind.name, []).append(outcome.rate)
                    if kind is ALONE:
                        latency[server.name]["p50"].append(outcome.milliseconds(50))
                        latency[server.name]["p99"].append(outcome.milliseconds(99))
            progress(f"throughput: round {number_of + 1} of {settings.rounds}")
        second = _by_wrk(settings, servers, texts, folder) if settings.wrk else []
        memory = {server.name: server.memory for server in servers}
        runs_on = {server.name: server.runs_on for server in ours.values()}
        commands = {server.name: server.command() for server in servers}
        versions = {server.versions for server in peers}

    counts = ", ".join(f"{kind.name}: {len(texts[kind])}" for kind in KINDS)
    report.say(
        f"Texts a second, median of {settings.rounds} (least-most). A load is *clients x texts a request*; "
        f"texts of each: {counts}. STS-B is sentences, Cranfield abstracts cut to 256 tokens. A bare loop runs the "
        "encoder in one process over texts already tokenized, sorted by length and batched by tokens."
    )
    heads = [kind.name for kind in KINDS if kind is not ALONE]
    report.table(
        ["texts/s", *heads],
        [[one, *(spread(found[head]) if head in found else "" for head in heads)] for one, found in rates.items()],
    )
    report.say(f"One client, one sentence a request ({len(texts[ALONE])} of them), milliseconds; memory afterwards:")
    report.table(
        ["latency", "p50", "p99", "memory, MB"],
        [
            [one, f"{median(found['p50']):.1f}", f"{median(found['p99']):.1f}", f"{memory[one]:.0f}"]
            for one, found in latency.items()
        ],
    )
    _ratios(report, rates, latency, list(ours), [*bare], [peer.name for peer in peers])
    report.say(
        f"{HOW} It used at most {busiest:.0%} of one core; the servers that were not being measured used at most "
        f"{watch.most:.1%} of one together. The least cosine of 64 sentences' vectors to those of {reference.name}: "
        + ", ".join(f"{cosine:.4f} ({one})" for one, cosine in same.items())
        + "."
    )
    ran = [f"{one} ran {on}." for one, on in runs_on.items()]
    report.note([*notes, *second, *ran, *(f"Infinity's environment: {of}." for of in versions)])
    report.commands(commands)
    panels = {
        f"{head} (clients x texts a request)": {
            one: median(found[head]) for one, found in rates.items() if head in found
        }
        for head in heads
    }
    report.plot(bars(panels, x="texts/s (higher is better)", title="Throughput"), "throughput", "Throughput")
    report.keep("texts_per_second", rates)
    report.keep("latency_ms", latency)
    report.keep("memory_mb", memory)
    report.keep("least_cosine", same)
    report.keep("left_out", notes)
    report.write()


def _ratios(
    report: Report,
    rates: Results,
    latency: dict[str, dict[str, list[float]]],
    precisions: Sequence[str],
    bare: Sequence[str],
    peers: Sequence[str],
) -> None:
    heads = [kind.name for kind in KINDS]
    rows = []
    for precision in precisions:
        one = f"Millpond {precision}"
        bares = {head: _best(rates, [b for b in bare if precision in b], head) for head in heads}
        against = {
            f"the best bare {precision} loop": bares,
            **{peer: {head: rates[peer][head] for head in heads} for peer in peers},
        }
        for other, base in against.items():
            cells = [number(ratio(rates[one][head], base[head])) if base[head] else "" for head in heads]
            rows.append([f"{one} / {other}", *cells])
    report.say("Ratios of texts a second (above 1 Millpond is faster), each the median of the rounds' ratios:")
    report.table(["ratio", *heads], rows)
    report.keep("ratios", {row[0]: dict(zip(heads, row[1:], strict=True)) for row in rows})


def _best(rates: Results, bare: Sequence[str], head: str) -> list[float]:
    """The rounds of the bare loop with the largest median over a load; none where no bare loop runs it."""
    return max((rates[one][head] for one in bare if head in rates[one]), key=median, default=[])


def _by_wrk(settings: Settings, servers: Sequence[Server], texts: dict[Kind, list[str]], folder: Path) -> list[str]:
    if not wrk.installed():
        return ["wrk is not installed (`apt-get install wrk`), so there is no second opinion."]
    progress("throughput: asking wrk")
    notes = []
    for kind in KINDS[:2]:
        found = {
            server.name: wrk.rate(
                server.load(texts[kind], clients=kind.clients, each=kind.each), folder, settings.some(6, 2)
            )
            for server in servers
        }
        notes.append(
            f"wrk, {kind.name}: " + ", ".join(f"{one} {rate:.0f} texts/s" for one, rate in found.items()) + "."
        )
    return notes


if __name__ == "__main__":
    run(from_command_line(__doc__))

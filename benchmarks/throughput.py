"""Texts a second over HTTP against a bare loop over the same tokens, and against Infinity, interleaved in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from benchmarks.load import HOW, Client, Outcome, percentiles
from benchmarks.loop import seconds
from benchmarks.millpond import millponds, millponds_in
from benchmarks.peers.infinity import infinities
from benchmarks.plots import rows
from benchmarks.report import Report, medians_by_column, nested, ratios, spread
from benchmarks.servers import Field, Target, field_of
from benchmarks.texts import cranfield, sentences, sts, unit
from service.cores import available_cores

STS: Final = "STS-B"
CRANFIELD: Final = "Cranfield"


@dataclass(frozen=True)
class Kind:
    """A kind of load: texts of one data set, `each` a request, by `clients` at once; and how many texts in all."""

    data: str
    clients: int
    each: int
    full: int
    quick: int

    @property
    def name(self) -> str:
        """The heading in tables: clients x texts a request."""
        return f"{self.data} {self.clients} x {self.each}"


KINDS: Final = (
    Kind(STS, 8, 32, 1280, 256),
    Kind(STS, 64, 1, 512, 128),
    Kind(STS, 1, 1, 200, 30),
    Kind(CRANFIELD, 4, 16, 96, 64),
    Kind(CRANFIELD, 16, 1, 64, 32),
)
BATCHED: Final = (KINDS[0], KINDS[3])
"""The kinds over whose texts the bare loops run too."""
ALONE: Final = KINDS[2]
"""The kind whose latency is reported."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    source = {STS: sentences(sts()), CRANFIELD: list(cranfield().documents.values())}
    texts = {kind: source[kind.data][: report.size(kind.full, kind.quick)] for kind in KINDS}
    with field_of([*millponds(), *infinities()]) as field, Client() as client:
        for server in field.servers:
            server.warm_up(client, [*source[STS][-64:], *source[CRANFIELD][-16:]])

        def over_http(server: Target, kind: Kind) -> Outcome:
            return client.run(server.load(texts[kind], clients=kind.clients, each=kind.each))

        def in_a_loop(words: Sequence[str], kind: Kind) -> Outcome:
            return Outcome(seconds("benchmarks.bare", *words, texts=texts[kind]), len(texts[kind]))

        loops = bare_loops(field)
        outcomes = nested(
            report.interleave(
                {(one, kind.name): partial(in_a_loop, loops[one], kind) for kind in BATCHED for one in loops}
                | {(one.name, kind.name): partial(over_http, one, kind) for kind in KINDS for one in field.servers}
            )
        )
        rates = {one: {kind: [o.rate for o in found] for kind, found in by.items()} for one, by in outcomes.items()}
        latency = {server.name: percentiles(outcomes[server.name][ALONE.name]) for server in field.servers}
        memory = {server.name: server.memory for server in field.servers}
        counts = ", ".join(f"{kind.name}: {len(texts[kind])}" for kind in KINDS)
        report.say(
            f"Texts a second, median of {report.rounds} (least-most). A load is *clients x texts a request*; "
            f"texts of each: {counts}. STS-B is sentences, Cranfield abstracts cut to 256 tokens. A bare loop runs "
            "the encoder in one process over texts already tokenized, sorted by length and batched by tokens."
        )
        heads = [kind.name for kind in KINDS if kind is not ALONE]
        report.table("texts/s", rates, spread, heads)
        report.say(
            f"One client, one sentence a request ({len(texts[ALONE])} of them), milliseconds; memory afterwards:"
        )
        middles = {one: {p: median(found) for p, found in by.items()} for one, by in latency.items()}
        table = {one: by | {"memory, MB": memory[one]} for one, by in middles.items()}
        report.table("latency", table, "{:.1f}".format)
        report.say("Ratios of texts a second (above 1 Millpond is faster), each the median of the rounds' ratios:")
        compared = compare(rates, field)
        report.table("ratio", compared, heads=[kind.name for kind in KINDS])
        cosines = agreement(field.servers, source[STS][:64])
        busiest = max(outcome.cpu for by in outcomes.values() for found in by.values() for outcome in found)
        report.say(
            f"{HOW} It used at most {busiest:.0%} of one core. The least cosine of 64 sentences' vectors to those of "
            f"{field.servers[0].name}: {', '.join(f'{cosine:.4f} ({one})' for one, cosine in cosines.items())}."
        )
        report.servers(field)
    panels = {f"{kind}\n(clients x texts)": by for kind, by in medians_by_column(rates, heads).items()}
    report.plot(rows(panels, "Throughput in texts/s (higher is better)"), "throughput", "Throughput")
    report.keep(ratios=compared, texts_per_second=rates, latency_ms=latency, memory_mb=memory, least_cosine=cosines)


def bare_loops(field: Field) -> dict[str, tuple[str, str]]:
    """Give the loops to compare with, by name: arguments of `benchmarks.bare`."""
    found = {}
    for streams in sorted({1, available_cores()}):
        shown = "1 stream over all cores" if streams == 1 else f"{streams} streams"
        found[f"bare, transformers fp32, {shown}"] = ("torch", str(streams))
    for server in millponds_in(field):
        found[f"bare, as the service runs {server.runs_on}"] = ("service", server.precision)
    return found


def agreement(servers: Sequence[Target], texts: Sequence[str]) -> dict[str, float]:
    """Give the least cosine of each server's vectors with the first one's: do they serve the same model?"""
    vectors = {server.name: unit(server.embed(texts)) for server in servers}
    reference = vectors[servers[0].name]
    return {name: float((found * reference).sum(axis=1).min()) for name, found in vectors.items()}


def compare(rates: Mapping[str, Mapping[str, list[float]]], field: Field) -> dict[str, dict[str, str]]:
    """Divide Millpond's texts a second by those of the best bare loop of its precision, and of each peer."""
    ours = millponds_in(field)
    peers = {server.name: rates[server.name] for server in field.servers if server not in ours}
    found = {}
    for server in ours:
        loops = [by for name, by in rates.items() if name.startswith("bare") and f" {server.precision}" in name]
        best = {kind.name: max((by[kind.name] for by in loops), key=median) for kind in BATCHED}
        for other, base in {f"the best bare {server.precision} loop": best, **peers}.items():
            found[f"{server.name} / {other}"] = ratios(rates[server.name], base)
    return found

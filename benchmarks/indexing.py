"""Indexing and searching Cranfield, and vectors as JSON: against txtai and the library, interleaved in one run.

Both servers' documents are searchable when the clock stops; those of Millpond are on disk as well. The library only
makes vectors. Every round has other texts.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Final

from benchmarks.encoder import MAX_TOKENS, minilm
from benchmarks.load import HOW, Client, Load, Outcome
from benchmarks.loop import seconds
from benchmarks.machine import Usage, usage_of
from benchmarks.millpond import Millpond, millponds
from benchmarks.peers import MissingPeer
from benchmarks.peers.infinity import infinity_python, quantized_folder
from benchmarks.peers.txtai import Txtai
from benchmarks.plots import rows
from benchmarks.report import Report, medians_by_column, nested, number, ratio, ratios, spread
from benchmarks.servers import Measured, by_round, field_of, memory_cells
from benchmarks.texts import cranfield, fresh, fresh_abstracts, fresh_sentences

BATCH: Final = 64
IN_FLIGHT: Final = 2
"""As `millpond index` sends documents."""
SEARCHERS: Final = 16
HITS: Final = 10
LIBRARY: Final = "SentenceTransformer.encode, defaults"
FASTEST: Final = "SentenceTransformer.encode, ONNX int8"

Engine = Millpond | Txtai
"""A server that indexes documents and searches them by text."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    count, sentences = report.size(192, 64), report.size(1024, 256)
    asked = list(cranfield().queries.values())
    abstracts: dict[str, Iterator[str]] = defaultdict(fresh_abstracts)  # each contestant has the same
    singles: dict[str, Iterator[str]] = defaultdict(fresh_sentences)
    queries: dict[str, Iterator[str]] = defaultdict(partial(fresh, asked))
    with field_of([*millponds(), Txtai()]) as field, Client() as client:
        servers = [server for server in field.servers if isinstance(server, Millpond | Txtai)]
        libraries, notes = find_libraries()

        def encode(name: str) -> Measured:
            spent = seconds(*libraries[name], texts=list(islice(abstracts[name], count)))
            return Measured(Outcome(spent, count), Usage())

        def index(server: Engine, texts: Iterator[str], count: int) -> Measured:
            documents = [{"id": str(place), "text": text} for place, text in enumerate(islice(texts, count))]
            with usage_of(server.running.process.pid) as usage:
                spent = server.index(client, documents, each=BATCH, clients=IN_FLIGHT)
            return Measured(Outcome(spent, count), usage)

        def search(server: Engine) -> Measured:
            searches = [server.search_request(query, HITS) for query in islice(queries[server.name], len(asked))]
            return server.measure(client, Load(server.running.port, searches, SEARCHERS))

        def embed(server: Engine) -> Measured:
            texts = list(islice(singles[server.name], sentences))
            requests = [server.json_request(texts[at : at + 32]) for at in range(0, len(texts), 32)]
            return server.measure(client, Load(server.running.port, requests, 8, vectors=True))

        for server in servers:
            server.warm_up(client, list(islice(singles[server.name], 256)))
            index(server, singles[server.name], BATCH)
        rounds = nested(
            report.interleave(
                {(name, "indexed"): partial(encode, name) for name in libraries}
                | {(one.name, "indexed"): partial(index, one, abstracts[one.name], count) for one in servers}
                | {(server.name, "searched"): partial(search, server) for server in servers}
                | {(server.name, "embedded"): partial(embed, server) for server in servers}
            )
        )
        rates = by_round(rounds, lambda each: each.outcome.rate)
        cpu = by_round(rounds, lambda each: each.cpu_ms)
        report.say(
            f"{count} Cranfield abstracts, cut to {MAX_TOKENS} tokens, sent as {BATCH} a request by {IN_FLIGHT} "
            f"clients; median of {report.rounds} (least-most). CPU is the server's milliseconds of processor time a "
            "document; memory is resident, in MB, at the end and at most."
        )
        table = {
            one: {
                "documents/s": spread(found["indexed"]),
                "ratio to the library's defaults": number(ratio(found["indexed"], rates[LIBRARY]["indexed"])),
            }
            | ({"CPU": number(used)} if (used := median(cpu[one]["indexed"])) else {})
            | memory_cells(rounds[one]["indexed"])
            for one, found in rates.items()
        }
        report.table("indexing", table)
        report.say(
            f"Searching those by text: {len(asked)} queries by {SEARCHERS} clients, {HITS} hits with their texts. "
            f"And vectors as JSON, Millpond's `/embed` against txtai's `/batchtransform`: {sentences} STS-B "
            "sentences, 8 clients x 32. Queries and texts a second, and the server's milliseconds of processor time "
            "for each:"
        )
        heads = {"searched": "searches/s", "embedded": "texts to JSON vectors/s"}
        both = {
            server.name: {head: spread(rates[server.name][kind]) for kind, head in heads.items()}
            | {f"{kind}, CPU": number(median(cpu[server.name][kind])) for kind in heads}
            for server in servers
        }
        report.table("servers", both)
        notes += compare_to_txtai(report, servers, rates, asked[:20])
        report.say(HOW)
        report.servers(field, notes)
    heads = {"indexed": "abstracts indexed/s", **heads}
    panels = {heads[kind]: by for kind, by in medians_by_column(rates, heads).items()}
    report.plot(rows(panels, "Indexing and search (higher is better)"), "indexing", "Indexing")
    by_kind = {kind: {one: by[kind] for one, by in rates.items() if kind in by} for kind in heads}
    report.keep(per_second=by_kind)


def find_libraries() -> tuple[dict[str, list[str | Path]], list[str]]:
    """Give interpreter and arguments of `benchmarks.loop` by name, and a note where the fastest is left out."""
    found: dict[str, list[str | Path]] = {LIBRARY: [sys.executable, minilm()]}
    try:
        found[FASTEST] = [infinity_python(), quantized_folder(), "model_quantized.onnx"]
    except MissingPeer as error:
        return found, [f"SentenceTransformer's ONNX backend is left out, run in Infinity's environment: {error}"]
    return found, []


def compare_to_txtai(
    report: Report, servers: Sequence[Engine], rates: Mapping[str, Mapping[str, list[float]]], queries: Sequence[str]
) -> list[str]:
    """Add Millpond's rates over those of txtai; gives a note on how far their hits agree. Nothing without txtai."""
    txtai = next((server for server in servers if isinstance(server, Txtai)), None)
    if txtai is None:
        return []
    ours = [server for server in servers if server is not txtai]
    report.say("Ratios to txtai, each the median of the rounds' ratios:")
    report.table("ratio", {f"{one.name} / txtai": ratios(rates[one.name], rates["txtai"]) for one in ours})
    hits = {one: [set(one.found(one.search_request(query, HITS))) for query in queries] for one in servers}
    shared = {one: mean(len(a & b) for a, b in zip(hits[one], hits[txtai], strict=True)) for one in ours}
    same = ", ".join(f"{count:.1f} ({one.name})" for one, count in shared.items())
    return [f"Of {HITS} hits, txtai and Millpond share on average {same}, over {len(queries)} queries."]

"""Indexing and searching Cranfield, and vectors as JSON: against txtai and the library, interleaved in one run.

Both servers' documents are searchable when the clock stops; those of Millpond are on disk as well. The library only
makes vectors.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Final

from benchmarks.encoder import MAX_TOKENS, gigaflop_of, gigaflops, minilm, token_ids
from benchmarks.load import HOW, Client, Load
from benchmarks.loop import seconds
from benchmarks.millpond import Millpond, millponds
from benchmarks.peers import MissingPeer
from benchmarks.peers.infinity import infinity_python, quantized_folder
from benchmarks.peers.txtai import Txtai
from benchmarks.plots import rows
from benchmarks.report import Report, medians_by_column, nested, number, ratio, ratios, spread
from benchmarks.servers import field_of
from benchmarks.texts import cranfield, sentences, sts

BATCH: Final = 64
IN_FLIGHT: Final = 2
"""As `millpond index` sends documents."""
SEARCHERS: Final = 16
HITS: Final = 10
LIBRARY: Final = "SentenceTransformer.encode, defaults"
FASTEST: Final = "SentenceTransformer.encode, ONNX int8"
LIMIT: Final = "limit of fp32 matrix products here"

Engine = Millpond | Txtai
"""A server that indexes documents and searches them by text."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    data = cranfield()
    documents = [{"id": key, "text": text} for key, text in data.documents.items()][: report.size(192, 64)]
    texts = [document["text"] for document in documents]
    queries = list(data.queries.values())
    single = sentences(sts())[: report.size(1024, 256)]
    with field_of([*millponds(), Txtai()]) as field, Client() as client:
        servers = [server for server in field.servers if isinstance(server, Millpond | Txtai)]
        libraries, notes = find_libraries()

        def encode(name: str) -> float:
            python, *words = libraries[name]
            return len(texts) / seconds("benchmarks.loop", *words, texts=texts, python=python)

        def index(server: Engine) -> float:
            return len(documents) / server.index(client, documents, each=BATCH, clients=IN_FLIGHT)

        def search(server: Engine) -> float:
            searches = [server.search_request(query, HITS) for query in queries]
            return client.run(Load(server.running.port, searches, SEARCHERS)).rate

        def embed(server: Engine) -> float:
            requests = [server.json_request(single[at : at + 32]) for at in range(0, len(single), 32)]
            return client.run(Load(server.running.port, requests, 8, vectors=True)).rate

        for server in servers:
            server.warm_up(client, single[:256])
            server.index(client, documents[:64], each=BATCH, clients=IN_FLIGHT)
        rates = nested(
            report.interleave(
                {(name, "indexed"): partial(encode, name) for name in libraries}
                | {(server.name, "indexed"): partial(index, server) for server in servers}
                | {(server.name, "searched"): partial(search, server) for server in servers}
                | {(server.name, "embedded"): partial(embed, server) for server in servers}
                | {(LIMIT, "gigaflops"): gigaflops}
            )
        )
        limits = rates[LIMIT].pop("gigaflops")
        work = gigaflop_of(token_ids(texts))
        rates[LIMIT]["indexed"] = [len(texts) * limit / work for limit in limits]
        report.say(
            f"{len(texts)} Cranfield abstracts, cut to {MAX_TOKENS} tokens, sent as {BATCH} a request by {IN_FLIGHT} "
            f"clients; median of {report.rounds} (least-most):"
        )
        table = {
            one: {
                "documents/s": spread(found["indexed"]),
                "ratio to the library's defaults": number(ratio(found["indexed"], rates[LIBRARY]["indexed"])),
            }
            for one, found in rates.items()
        }
        report.table("indexing", table)
        report.say(
            f"Searching those by text: {len(queries)} queries by {SEARCHERS} clients, {HITS} hits with their texts. "
            f"And vectors as JSON, Millpond's `/embed` against txtai's `/batchtransform`: {len(single)} STS-B "
            "sentences, 8 clients x 32. Queries and texts a second:"
        )
        report.table("servers", {one.name: rates[one.name] for one in servers}, spread, ["searched", "embedded"])
        notes += compare_to_txtai(report, servers, rates, queries[:20])
        report.say(HOW)
        report.servers(field, notes)
    heads = {"indexed": "abstracts indexed/s", "searched": "searches/s", "embedded": "texts to JSON vectors/s"}
    panels = {heads[kind]: by for kind, by in medians_by_column(rates, heads).items()}
    report.plot(rows(panels, "Indexing and search (higher is better)"), "indexing", "Indexing")
    del rates[LIMIT]
    by_kind = {kind: {one: by[kind] for one, by in rates.items() if kind in by} for kind in heads}
    report.keep(per_second=by_kind, fp32_gigaflops=limits)


def find_libraries() -> tuple[dict[str, tuple[str | Path, ...]], list[str]]:
    """Give interpreter and arguments of `benchmarks.loop` by name, and a note where the fastest is left out."""
    found: dict[str, tuple[str | Path, ...]] = {LIBRARY: (sys.executable, minilm())}
    try:
        found[FASTEST] = (infinity_python(), quantized_folder(), "model_quantized.onnx")
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

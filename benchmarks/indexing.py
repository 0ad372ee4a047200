"""Indexing and searching Cranfield, and vectors as JSON: against txtai and the library, interleaved in one run.

    python -m benchmarks.indexing

Both servers' documents are searchable when the clock stops; those of Millpond are on disk as well. The library only
makes vectors.
"""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import orjson
from transformers import AutoTokenizer

from benchmarks import datasets
from benchmarks.bare import MAX_TOKENS
from benchmarks.limit import gigaflop_of, gigaflops
from benchmarks.load import HOW, Client, Load, LoadFailed, Request
from benchmarks.loop import Loop, bundled
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.peers import MissingPeer, Txtai, infinity, quantized_folder
from benchmarks.peers.environment import environment
from benchmarks.plots import bars
from benchmarks.report import Report, ratio, spread
from benchmarks.servers import NotStarted, Server
from benchmarks.service import Millpond, runnable

BATCH: Final = 64
IN_FLIGHT: Final = 2
"""As `millpond index` sends documents."""
SEARCHERS: Final = 16
HITS: Final = 10

Document = Mapping[str, str]


class Engine(ABC):
    """A server that indexes documents and searches them by text."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = server.name

    @abstractmethod
    def index(self, client: Client, documents: Sequence[Document]) -> float:
        """Seconds until all documents, and no others, are searchable."""

    @abstractmethod
    def search(self, query: str) -> Request:
        """A search for the `HITS` best."""

    @abstractmethod
    def found(self, query: str) -> list[str]:
        """Ids of the hits, the best first."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Request:
        """Vectors of texts as JSON numbers."""

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        """The answer to a request that is not measured.

        Raises:
            LoadFailed: it was refused.

        """
        status, answer = self.server.ask(method, path, body)
        if status >= 300:
            raise LoadFailed(f"{self.name}: {method} {path}: {status} {answer[:300]!r}")
        return orjson.loads(answer) if answer else None

    def check_count(self, count: int, expected: int) -> None:
        """Raise LoadFailed where not all documents are there."""
        if count != expected:
            raise LoadFailed(f"{self.name} holds {count} documents of {expected}")


class MillpondEngine(Engine):
    """A collection of Millpond; each round makes it anew."""

    def index(self, client: Client, documents: Sequence[Document]) -> float:
        """Upserts."""
        if "bench" in [each["name"] for each in self.ask("GET", "/collections")["collections"]]:
            self.ask("DELETE", "/collections/bench")
        self.ask("PUT", "/collections/bench")
        requests = [
            Request(
                "POST", "/collections/bench/documents", json.dumps({"documents": some, "truncate": True}), len(some)
            )
            for some in _batches(documents)
        ]
        seconds = client.run(Load(self.server.port, requests, IN_FLIGHT)).seconds
        self.check_count(self.ask("GET", "/collections/bench")["count"], len(documents))
        return seconds

    def search(self, query: str) -> Request:
        """With texts, as the other gives them."""
        body = {"query": query, "k": HITS, "include": ["text"], "truncate": True}
        return Request("POST", "/collections/bench/search", json.dumps(body), 1)

    def found(self, query: str) -> list[str]:
        """Ids of the hits."""
        request = self.search(query)
        return [hit["id"] for hit in self.ask(request.method, request.path, request.body)["hits"]]

    def embed(self, texts: Sequence[str]) -> Request:
        """`/embed`."""
        return Request("POST", "/embed", json.dumps({"inputs": list(texts), "truncate": True}), len(texts))


class TxtaiEngine(Engine):
    """txtai's index; indexing replaces what was there."""

    server: Txtai

    def index(self, client: Client, documents: Sequence[Document]) -> float:
        """Add all, then index."""
        add = [self.server.add_request(some) for some in _batches(documents)]
        seconds = client.run(Load(self.server.port, add, IN_FLIGHT)).seconds
        seconds += client.run(Load(self.server.port, [self.server.index_request()], 1)).seconds
        self.check_count(self.ask("GET", "/count"), len(documents))
        return seconds

    def search(self, query: str) -> Request:
        """`/search`."""
        return self.server.search_request(query, HITS)

    def found(self, query: str) -> list[str]:
        """Ids of the hits."""
        request = self.search(query)
        return [hit["id"] for hit in self.ask(request.method, request.path)]

    def embed(self, texts: Sequence[str]) -> Request:
        """`/batchtransform`."""
        return self.server.embed_request(texts)


def engines(stack: ExitStack, folder: Path) -> tuple[dict[str, Millpond], list[Engine], list[str]]:
    """Millpond by precision, all engines, and notes on what is left out."""
    ours, notes = runnable(stack, folder)
    found: list[Engine] = [MillpondEngine(server) for server in ours.values()]
    try:
        server = Txtai(folder)
        progress("starting txtai")
        found.append(TxtaiEngine(stack.enter_context(server)))
    except (MissingPeer, NotStarted) as error:
        notes.append(f"txtai is left out: {error}")
    return ours, found, notes


def libraries(stack: ExitStack, texts: Sequence[str]) -> tuple[dict[str, Loop], list[str]]:
    """sentence-transformers with its defaults, and with its fastest backend on a CPU; notes on what is left out."""
    sets = {"documents": texts}
    found = {"SentenceTransformer.encode, defaults": Loop("benchmarks.library", texts=sets)}
    notes = []
    try:
        folder = quantized_folder()
        python = environment(infinity.VARIABLE, "python") / "python"
        file = "model_quantized.onnx"
        loop = Loop("benchmarks.library", str(folder), file, texts=sets, python=python)
        found["SentenceTransformer.encode, ONNX int8"] = loop
    except MissingPeer as error:
        notes.append(
            f"SentenceTransformer's ONNX backend is left out, for it runs in Infinity's environment: {error}"
        )
    for loop in found.values():
        stack.enter_context(loop)
    return found, notes


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("indexing", "Indexing and search", settings)
    data = datasets.cranfield()
    documents = [{"id": key, "text": text} for key, text in data.documents.items() if text]
    documents = documents[: settings.some(192, 64)]
    texts = [document["text"] for document in documents]
    queries = list(data.queries.values())
    sentences = datasets.sts_sentences()[: settings.some(1024, 256)]
    tokenizer = AutoTokenizer.from_pretrained(bundled())
    work = gigaflop_of([len(ids) for ids in tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]])
    limits: list[float] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ours, all_engines, notes = engines(stack, Path(name))
        progress("starting the library")
        loops, left_out = libraries(stack, texts)
        notes += left_out
        client = stack.enter_context(Client())
        for engine in all_engines:
            progress(f"warming {engine.name} up")
            engine.server.warm_up(client, sentences[:256])
            engine.index(client, documents[:64])
        indexed: dict[str, list[float]] = {one: [] for one in (*loops, *(engine.name for engine in all_engines))}
        searched: dict[str, list[float]] = {engine.name: [] for engine in all_engines}
        embedded: dict[str, list[float]] = {engine.name: [] for engine in all_engines}
        for number in range(settings.rounds):
            limits.append(gigaflops())
            for one, loop in loops.items():
                indexed[one].append(loop.round("documents"))
            for engine in all_engines:
                indexed[engine.name].append(len(documents) / engine.index(client, documents))
            for engine in all_engines:
                load = Load(engine.server.port, [engine.search(query) for query in queries], SEARCHERS)
                searched[engine.name].append(client.run(load).rate)
            for engine in all_engines:
                requests = [engine.embed(sentences[at : at + 32]) for at in range(0, len(sentences), 32)]
                embedded[engine.name].append(client.run(Load(engine.server.port, requests, 8, "list")).rate)
            progress(f"indexing: round {number + 1} of {settings.rounds}")
        some = queries[:20]
        hits = {engine.name: [engine.found(query) for query in some] for engine in all_engines}
        runs_on = [f"{server.name} ran {server.runs_on}." for server in ours.values()]
        versions = [f"txtai: {one.server.versions}." for one in all_engines if isinstance(one, TxtaiEngine)]
        commands = {engine.name: engine.server.command() for engine in all_engines}

    base = indexed["SentenceTransformer.encode, defaults"]
    report.say(
        f"{len(texts)} Cranfield abstracts, cut to {MAX_TOKENS} tokens, sent as {BATCH} a request by {IN_FLIGHT} "
        f"clients; median of {settings.rounds} (least-most):"
    )
    limit = [len(texts) * each / work for each in limits]
    rows = [[one, spread(rates), f"{ratio(rates, base):.2f}"] for one, rates in indexed.items()]
    bound = f"limit of fp32 matrix products here, {median(limits):.0f} GFLOP/s"
    report.table(
        ["indexing", "documents/s", "ratio to the library's defaults"],
        [*rows, [bound, spread(limit), f"{ratio(limit, base):.2f}"]],
    )
    report.say(
        f"Searching those by text: {len(queries)} queries by {SEARCHERS} clients, {HITS} hits with their texts. And "
        f"vectors as JSON, Millpond's `/embed` against txtai's `/batchtransform`: {len(sentences)} STS-B sentences, "
        "8 clients x 32."
    )
    report.table(
        ["servers", "searched, queries/s", "embedded, texts/s"],
        [[one, spread(searched[one]), spread(embedded[one])] for one in searched],
    )
    kinds = {"indexed": indexed, "searched": searched, "embedded": embedded}
    if versions:
        report.say("Ratios to txtai, each the median of the rounds' ratios:")
        report.table(
            ["ratio", *kinds],
            [
                [
                    f"{one.name} / txtai",
                    *(f"{ratio(rates[one.name], rates['txtai']):.2f}" for rates in kinds.values()),
                ]
                for one in ours.values()
            ],
        )
        shared = {
            one.name: mean(len(set(a) & set(b)) for a, b in zip(hits[one.name], hits["txtai"], strict=True))
            for one in ours.values()
        }
        same = ", ".join(f"{count:.1f} ({one})" for one, count in shared.items())
        notes.append(f"Of {HITS} hits, txtai and Millpond share on average {same}, over {len(some)} queries.")
    report.say(HOW)
    report.note([*notes, *runs_on, *versions])
    report.commands(commands)
    panels = {
        "Cranfield abstracts indexed, documents/s": indexed,
        f"searched by text, {SEARCHERS} clients, queries/s": searched,
        "vectors of STS-B sentences as JSON, 8 clients x 32, texts/s": embedded,
    }
    shown = {heading: {one: median(rates) for one, rates in each.items()} for heading, each in panels.items()}
    report.plot(bars(shown, x="a second (higher is better)", title="Indexing and search"), "indexing", "Indexing")
    report.keep("per_second", kinds)
    report.keep("fp32_gigaflops", limits)
    report.keep("left_out", notes)
    report.write()


def _batches(documents: Sequence[Document]) -> list[Sequence[Document]]:
    return [documents[start : start + BATCH] for start in range(0, len(documents), BATCH)]


if __name__ == "__main__":
    run(from_command_line(__doc__))

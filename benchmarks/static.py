"""A static model without a server, beside the tokenizer alone and sentence-transformers, and through HTTP.

The table is that of the embeddings of all-MiniLM-L6-v2: 30,522 tokens of 384 dimensions, and its tokenizer.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from tokenizers import Tokenizer

from benchmarks.encoder import minilm
from benchmarks.load import Client
from benchmarks.millpond import Millpond
from benchmarks.parity import EMBEDDED
from benchmarks.report import Report, progress
from benchmarks.servers import Measured, by_round, field_of
from benchmarks.texts import sentences, sts
from service.embedding.embedder import Embedder
from tests.support.checkpoints import reference
from tests.support.servers import Launcher

_BLOCK: Final = 1_024
_LOADS: Final = {"32 x 1": (32, 1), "8 x 16": (8, 16), "4 x 64": (4, 64), "2 x 512": (2, 512)}
"""Clients, and texts a request."""

Rows = dict[str, dict[str, float]]


class Hollow(Millpond):
    """The same server, without an encoder."""

    def launcher(self, folder: Path) -> Launcher:
        """Start the module that serves so."""
        found = super().launcher(folder)
        found.command = [word if word != "service" else "benchmarks.hollow" for word in found.command]
        return found


def run(report: Report) -> None:
    """Measure, and fill the report."""
    texts = distinct(report.size(20_000, 500))
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name:
        folder = Path(name) / "model"
        EMBEDDED["StaticEmbedding"](folder)
        bare = without_server(report, folder, texts)
        served = through_http(report, str(folder), texts)
    report.say(
        f"{len(texts)} different sentences of STS-B, in fp32, in this process; medians of the rounds, each of which "
        f"loads the model anew. The tokenizer has blocks of {_BLOCK} and all cores."
    )
    report.table("without a server", bare, "{:,.1f}".format)
    report.say(
        "Through `/v1/embeddings` in base64, by clients and texts a request; the load takes its share of the same "
        "cores. `HTTP alone` is the same service with vectors that were made before, so without a tokenizer too."
    )
    for title, rows in served.items():
        report.table(title, rows, "{:,.2f}".format if title == "a share of HTTP alone" else "{:,.0f}".format)
    report.keep(bare=bare, served=served)


def distinct(most: int) -> list[str]:
    """Give sentences of STS-B, none twice."""
    found = dict.fromkeys(text for split in ("train", "test") for text in sentences(sts(split=split)))
    return list(found)[:most]


def without_server(report: Report, folder: Path, texts: Sequence[str]) -> Rows:
    """Measure texts a second and microseconds of processor time a text."""
    tokenizer: Any = Tokenizer.from_file(f"{minilm()}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    theirs = reference(folder)
    found: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began, used = time.perf_counter(), time.process_time()
        work()
        spent = (time.perf_counter() - began, time.process_time() - used)
        found.setdefault(name, []).append(spent)

    half = len(texts) // 2
    blocks = [list(texts[start : start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
    for turn in range(report.rounds):
        progress(f"static: without a server, round {turn + 1}")
        timed("tokenizers", lambda: [tokenizer.encode_batch_fast(block) for block in blocks])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            timed("sentence-transformers", partial(theirs.encode, list(texts), batch_size=_BLOCK))
        with Embedder.load(str(folder)) as ours:
            timed("Millpond, nothing seen before", partial(ours.encode, texts))
            timed("Millpond, again", partial(ours.encode, texts))
        with Embedder.load(str(folder)) as ours:
            ours.encode(texts[:-half])
            timed("Millpond, the second half after the first", partial(ours.encode, texts[-half:]))
    sizes = dict.fromkeys(found, len(texts)) | {"Millpond, the second half after the first": half}
    return {
        name: {
            "texts/s": sizes[name] / median(wall for wall, _ in each),
            "processor, µs a text": 1e6 * median(cpu for _, cpu in each) / sizes[name],
        }
        for name, each in found.items()
    }


def through_http(report: Report, folder: str, texts: Sequence[str]) -> dict[str, Rows]:
    """Measure loads on the service, and on the same without an encoder."""
    model = {"encoder": folder}
    servers = [Millpond("Millpond", model=model), Hollow("HTTP alone", model=model)]
    seconds = report.size(5, 1)
    with field_of(servers) as field, Client() as client:
        for server in field.servers:  # which knows all words from then on
            progress(f"static: warming {server.name} up")
            client.run(server.load(texts, clients=2, each=512, seconds=seconds))
        rounds = report.interleave(
            {
                (server.name, load): partial(
                    server.measure,
                    client,
                    server.load(texts, clients=clients, each=each, seconds=seconds),
                )
                for load, (clients, each) in _LOADS.items()
                for server in field.servers
            }
        )
    by_name: dict[str, dict[str, list[Measured]]] = {}
    for (name, load), measured in rounds.items():
        by_name.setdefault(name, {})[load] = measured
    speeds = _medians(by_round(by_name, lambda each: each.outcome.rate))
    costs = _medians(by_round(by_name, lambda each: 1000 * each.cpu_ms))
    share = {
        "by the clock": {load: speeds["Millpond"][load] / speeds["HTTP alone"][load] for load in _LOADS},
        "by processor time": {load: costs["HTTP alone"][load] / costs["Millpond"][load] for load in _LOADS},
    }
    return {"texts/s": speeds, "µs of the server's processor time a text": costs, "a share of HTTP alone": share}


def _medians(rounds: dict[str, dict[str, list[float]]]) -> Rows:
    return {name: {load: median(each) for load, each in by.items()} for name, by in rounds.items()}

"""The same vectors in Millpond, Chroma and Qdrant's local mode: storing, opening, searching with and without filters.

Millpond is asked over HTTP by a client in another process; the other two run in the process that asks them, from
Python, which is how they are used without a server.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.load import Client
from benchmarks.millpond import Millpond
from benchmarks.peers import MissingPeer, environment, versions_in
from benchmarks.report import Report, number, progress
from benchmarks.stored import K, Stored, disk_mb
from benchmarks.texts import Vectors
from benchmarks.vectors import BATCH, PARTS, SPREAD_OUT, Corpus, Nearest, recall

VARIABLE: Final = "MILLPOND_STORES"
PEERS: Final = {"Chroma": ("chroma", "chromadb"), "Qdrant, local mode": ("qdrant", "qdrant-client")}
"""The name that the script has for each, and its package."""
SHARES: Final = {"all": None, "50 %": 500, "10 %": 100, "1 %": 10, "0.1 %": 1}
"""How many of the `PARTS` values of a field match."""
INDEX: Final = "auto"
_SCRIPT: Final = Path(__file__).parent / "peers" / "stores.py"

Searches = Mapping[int | None, list[tuple[float, set[str]]]]
"""By what must match: the seconds of each query, and the ids that it found."""


def run(report: Report) -> None:
    """Measure, and fill the report; it takes some six minutes."""
    count = report.vectors(50_000, 2_000)
    corpus = Corpus(count)
    queries = corpus.queries(report.size(50, 10))
    truths = {part: Nearest(queries, K) for part in SHARES.values()}
    batches = []
    for start, vectors, _ in corpus.batches():
        places = np.arange(start, start + len(vectors))
        for part, nearest in truths.items():
            chosen = places % PARTS < (PARTS if part is None else part)
            nearest.show(places[chosen], vectors[chosen])
        batches.append(vectors)
    contestants: dict[str, Callable[[Path], dict[str, Any]]] = {"Millpond": partial(millpond, corpus, queries)}
    contestants |= {name: partial(peer, script) for name, (script, _) in PEERS.items()}
    rows, figures, notes = {}, {}, []
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name:
        folder = Path(name)
        np.save(folder / "vectors.npy", np.concatenate(batches))
        np.save(folder / "queries.npy", queries)
        for name, measure in contestants.items():
            progress(f"stores: {name}")
            try:
                found = measure(folder)
                if name in PEERS:
                    notes.append(f"{name}: {versions_in(python(), [PEERS[name][1]])}.")
            except MissingPeer as error:
                notes.append(f"{name} is left out: {error}")
                continue
            searches: Searches = found.pop("searches")
            cells = {"vectors/s": number(count / found["stored"])}
            for share, part in SHARES.items():
                p50 = 1000 * median(seconds for seconds, _ in searches[part])
                share_found = recall([ids for _, ids in searches[part]], truths[part].ids)
                cells[share] = f"{number(p50)} at {share_found:.3f}"
                found[share] = {"p50": p50, "recall": share_found}
            rows[name] = cells | {head: number(found[head]) for head in ("memory", "disk", "opened")}
            figures[name] = found
    report.say(
        f"{corpus}, with a number or two as metadata, stored in batches of {BATCH:,}, once. Then each store is "
        f"opened anew and searched for {K} by {len(queries)} other vectors of the same clusters, one by one: the "
        "median in milliseconds at the recall, of all vectors and where a share matches a filter. Memory is resident "
        "after the searches, in MB, for Millpond with its model; disk in MB; seconds until it is open. Millpond is a "
        "server that is asked over HTTP, the others run in the process that asks."
    )
    report.table("store", rows)
    report.note(notes)
    report.keep(stores=figures)


def millpond(corpus: Corpus, queries: Vectors, folder: Path) -> dict[str, Any]:
    """Measure Millpond."""
    server = Millpond("Millpond", store=folder / "millpond")
    stored = Stored(server, corpus)
    with server.serving(), Client() as client:
        stored.create(INDEX)
        filled = stored.fill(client)
    with server.serving():
        searches = {}
        for part in SHARES.values():
            more = {} if part is None else {"filter": {SPREAD_OUT: {"$lt": part}}}
            searches[part] = [timed(partial(stored.found, query[None], **more)) for query in queries]
        return {
            "stored": filled.built,
            "opened": server.running.ready_after,
            "memory": server.memory,
            "disk": disk_mb(server.store),
            "searches": searches,
        }


def timed(call: Callable[[], list[set[str]]]) -> tuple[float, set[str]]:
    """Give the seconds of a search, and what it finds."""
    began = time.perf_counter()
    (found,) = call()
    return time.perf_counter() - began, found


def peer(script: str, folder: Path) -> dict[str, Any]:
    """Measure another store, in its environment; raises `MissingPeer`."""
    parts = [f"{part}" for part in SHARES.values() if part is not None]
    stored = _run(script, "store", folder)
    found = _run(script, "search", folder, *parts)
    searches = {
        int(part) if part else None: [(seconds, set(ids)) for seconds, ids in answers]
        for part, answers in found.pop("searches").items()
    }
    return found | {"stored": stored["seconds"], "disk": disk_mb(folder / script), "searches": searches}


def python() -> Path:
    """Give the interpreter of the environment with the other stores; raises `MissingPeer`."""
    return environment(VARIABLE, "chroma") / "python"


def _run(*words: str | Path) -> dict[str, Any]:
    done = subprocess.run([python(), _SCRIPT, *words], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found

"""Memory and latency under requests in random shapes, for every kind of model: as `soak`, for shorter.

All have the weights of all-MiniLM-L6-v2, and random ones where it has none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.encoder import MINILM
from benchmarks.load import Request
from benchmarks.machine import usage_of
from benchmarks.millpond import Millpond
from benchmarks.parity import EMBEDDED, classifier, sparse_encoder
from benchmarks.report import Report, progress
from benchmarks.soak import CLIENTS, EVERY, SETTLED, Soak, fill, requests
from tests.support.servers import Launcher

Body = Callable[[Sequence[str]], tuple[str, dict[str, Any]]]
"""From texts to a path and what is sent there."""


class Asked(Millpond):
    """Millpond with a model of some kind, and the requests that are sent to it.

    Args:
        name: what tables call it.
        sections: of the config.
        body: makes a request.

    """

    def __init__(self, name: str, sections: Mapping[str, Any], body: Body) -> None:
        super().__init__(name, precision="fp32")
        self._sections, self._body = sections, body

    def launcher(self, folder: Path) -> Launcher:
        """Add the sections to the config."""
        self._config |= self._sections
        return super().launcher(folder)

    def embed_request(self, texts: Sequence[str]) -> Request:
        """Make a request of another kind, with so many texts."""
        path, body = self._body(texts)
        return Request("POST", path, json.dumps(body | {"truncate": True}), len(texts))


def run(report: Report) -> None:
    """Measure, and fill the report."""
    seconds = report.size(60, 20)
    found: dict[str, Soak] = {}
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name:
        for server in kinds(Path(name)):
            progress(f"starting {server.name}")
            soak = found[server.name] = Soak()
            texts, words = (16, 60) if server.name == "sparse" else (16, 120)
            with server.serving(), usage_of(server.running.process.pid) as soak.usage:
                uvloop.run(fill(soak, server, requests(server, texts, words), seconds))
    report.say(
        f"{CLIENTS} clients in a closed loop, {seconds} s each: 1 to 16 texts of 1 to 120 words a request, for "
        "sparse vectors of 1 to 60, random passages of Cranfield, cut to 256 tokens; all in fp32. Resident "
        f"memory in MB, early being after {SETTLED * seconds:.0f} s; latency of requests in milliseconds, and the "
        "server's milliseconds of processor time a text."
    )
    early = max(1, round(SETTLED * seconds / EVERY))
    rows = {one: soak.row(early) for one, soak in found.items()}
    report.table("", rows)
    report.keep(rows=rows, every_seconds=EVERY, memory_mb={one: soak.memory for one, soak in found.items()})


def kinds(folder: Path) -> list[Asked]:
    """Save a model of each kind, and give its server."""
    for name in ("WeightedLayerPooling", "PEFT adapter", "StaticEmbedding"):
        EMBEDDED[name](folder / name)
    scores, weights = classifier(folder / "plain", folder / "scores", 1), sparse_encoder(folder, "max")
    queries: Final = "what is the lift of a wing"
    return [
        *(
            Asked(name, {"models": {"default": {"encoder": str(folder / name)}}}, _embed)
            for name in ("WeightedLayerPooling", "PEFT adapter", "StaticEmbedding")
        ),
        Asked("layers: {last: 4}", {"models": {"default": {"encoder": MINILM, "layers": {"last": 4}}}}, _embed),
        Asked(
            "reranker",
            {"rerankers": {"default": {"encoder": str(scores)}}},
            lambda texts: ("/rerank", {"query": queries, "texts": list(texts)}),
        ),
        Asked(
            "sparse",
            {"sparse": {"default": {"encoder": str(weights)}}},
            lambda texts: ("/embed_sparse", {"inputs": list(texts)}),
        ),
    ]


def _embed(texts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    return "/embed", {"inputs": list(texts)}

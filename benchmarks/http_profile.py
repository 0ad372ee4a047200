"""Where the event loop's time goes: cProfile over the thread that serves HTTP, under small loads of fresh texts."""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import re
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import uvicorn
import uvloop

from benchmarks.load import Client, Load, Request
from benchmarks.report import Report, progress
from benchmarks.texts import fresh_sentences
from service.api import create_app
from service.config import load_config
from service.deployment import open_deployment
from tests.support.servers import ROOT

SHOWN: Final = 12
LOADS: Final = {
    "One client, one text, `/embed`": ("/embed", 1, 1, 300),
    "64 clients, one text each, `/v1/embeddings` in base64": ("/v1/embeddings", 64, 1, 1024),
    "8 clients, 32 texts each, `/v1/embeddings` in base64": ("/v1/embeddings", 8, 32, 64),
    "One request of 4,000 texts, `/embed`": ("/embed", 1, 4000, 1),
}
"""By title: path, clients, texts a request, requests."""
HEADS: Final = ("calls a request", "by itself, µs", "with what it calls, µs")


def load(port: int, path: str, clients: int, each: int, count: int, texts: Iterator[str]) -> Load:
    """Make a load of texts that are taken from many."""
    requests = []
    for _ in range(count):
        some = list(islice(texts, each))
        openai = {"model": "default", "input": some, "encoding_format": "base64"}
        requests.append(Request("POST", path, json.dumps({"inputs": some} if path == "/embed" else openai), each))
    return Load(port, requests, clients, vectors=True)


def run(report: Report) -> None:
    """Measure, and fill the report."""
    report.say(
        "Each table has the functions that kept the event loop's thread the longest by themselves, in microseconds a "
        "request as the profiler sees them: it makes small Python functions look some two times slower than they "
        "are, and counts a call each time that an `async` function goes on. The forward pass and pooling run on "
        "other threads and are in no table, but the wait for a core that they keep busy is, most of all in `release` "
        "and `put`, which wake another thread, and in `send`."
    )
    uvloop.run(profile_loop(report))


async def profile_loop(report: Report) -> None:
    """Serve on this event loop, as `millpond serve` does, and profile its thread under loads from another process."""
    with tempfile.TemporaryDirectory() as store, Client() as client:
        app = create_app(open_deployment(load_config(ROOT / "configs/mean.yaml", overrides={"store.path": store})))
        server = uvicorn.Server(uvicorn.Config(app, port=0, http="httptools", access_log=False, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        try:
            port, texts = server.servers[0].sockets[0].getsockname()[1], fresh_sentences()
            for title, kind in list(LOADS.items())[: report.size(4, 3)]:
                progress(title)
                first, second = (load(port, *kind, texts) for _ in range(2))
                await asyncio.to_thread(client.run, first)  # warm up
                with cProfile.Profile() as profile:
                    await asyncio.to_thread(client.run, second)
                report.say(f"## {title}")
                show(report, profile, kind[-1])
        finally:
            server.should_exit = True
            await serving


def show(report: Report, profile: cProfile.Profile, requests: int) -> None:
    """Add the table of functions."""
    found: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    micro = 1e6 / requests
    table = {}
    for place, (_, calls, own, whole, _) in sorted(found.items(), key=lambda item: -item[1][2])[:SHOWN]:
        cells = (f"{calls / requests:.1f}", f"{own * micro:.0f}", f"{whole * micro:.0f}")
        table[f"`{_name(*place)}`"] = dict(zip(HEADS, cells, strict=True))
    total = sum(own for _, _, own, _, _ in found.values())
    report.table("function", table | {f"all {len(found)}": {HEADS[1]: f"{total * micro:.0f}"}}, heads=HEADS)


def _name(file: str, line: int, function: str) -> str:
    """Name a function by its module's file, below whichever folder that was found in."""
    if file == "~":  # built in
        return function.strip("<>")
    return f"{re.sub(rf'^({ROOT}|.*(site-packages|python[0-9.]+))/', '', file)}:{function}"

"""Where the event loop's time goes: cProfile over the thread that serves HTTP, under three small loads."""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import re
import tempfile
from typing import Any, Final

import uvicorn
import uvloop

from benchmarks.load import Client, Load, Request
from benchmarks.report import Report, progress
from service.api import create_app
from service.config import load_config
from service.deployment import open_deployment
from tests.support.servers import ROOT

SHOWN: Final = 12
HEADS: Final = ("calls a request", "by itself, µs", "with what it calls, µs")


def loads(port: int) -> dict[str, Load]:
    """Give the loads by their titles: clients that each send the same request of some texts, again and again."""

    def load(path: str, texts: int, clients: int, each: int, **more: str) -> Load:
        sent = [f"A man is playing harp number {number} and nobody listens." for number in range(texts)]
        body = {"inputs" if path == "/embed" else "input": sent, **more}
        return Load(port, [Request("POST", path, json.dumps(body), texts)] * (clients * each), clients, vectors=True)

    base64 = {"model": "default", "encoding_format": "base64"}
    return {
        "One client, one text, `/embed`": load("/embed", 1, 1, 300),
        "8 clients, 32 texts each, `/v1/embeddings` in base64": load("/v1/embeddings", 32, 8, 8, **base64),
        "One request of 4,000 texts, `/embed`": load("/embed", 4000, 1, 1),
    }


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
            port = server.servers[0].sockets[0].getsockname()[1]
            for title, load in list(loads(port).items())[: report.size(3, 2)]:
                progress(title)
                await asyncio.to_thread(client.run, load)  # warm up
                with cProfile.Profile() as profile:
                    await asyncio.to_thread(client.run, load)
                report.say(f"## {title}")
                show(report, profile, len(load.requests))
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

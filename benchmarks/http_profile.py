"""Where the event loop's time goes: cProfile over the thread that serves HTTP, under three small loads.

python -m benchmarks.http_profile
"""

from __future__ import annotations

import asyncio
import cProfile
import multiprocessing
import pstats
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = Path(__file__).with_name("http-profile.md")
SHOWN: Final = 12
INTRODUCTION: Final = (
    "Each table has the functions that kept the event loop's thread the longest by themselves, in microseconds a "
    "request as the profiler sees them: it makes small Python functions look some two times slower than they are, "
    "and counts a call each time that an `async` function goes on. The forward pass and pooling run on other threads "
    "and are in no table, but the wait for a core that they keep busy is, most of all in `release` and `put`, which "
    "wake another thread, and in `send`."
)


@dataclass(frozen=True)
class Load:
    """Some clients, each sending the same request one after the other."""

    title: str
    path: str
    texts: int
    clients: int
    each: int
    more: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """What a request says."""
        texts = [f"A man is playing harp number {number} and nobody listens." for number in range(self.texts)]
        return {"inputs" if self.path == "/embed" else "input": texts, **dict(self.more)}


LOADS: Final = (
    Load("One client, one text, `/embed`", "/embed", texts=1, clients=1, each=300),
    Load(
        "8 clients, 32 texts each, `/v1/embeddings` in base64",
        *("/v1/embeddings", 32, 8, 8),
        more=(("model", "default"), ("encoding_format", "base64")),
    ),
    Load("One request of 4,000 texts, `/embed`", "/embed", texts=4000, clients=1, each=1),
)


def main() -> None:
    from benchmarks.machine import machine

    parts = [
        "# The event loop under load",
        f"{machine()}.",
        "```\npython -m benchmarks.http_profile\n```",
        INTRODUCTION,
    ]
    with tempfile.TemporaryDirectory() as store, _service(Path(store)) as (port, loop):
        for load in LOADS:
            print(load.title, file=sys.stderr)
            _ask(load, port, each=1)  # what is made at the first request is no part of the others
            profile = cProfile.Profile()
            _on(loop, profile.enable)
            _ask(load, port, each=load.each)
            _on(loop, profile.disable)
            parts += [f"## {load.title}", _table(profile, load.clients * load.each)]
    page = "\n\n".join(parts) + "\n"
    print(page)
    PAGE.write_text(page)


@contextmanager
def _service(store: Path) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """The service in a thread of this process: its port and its loop."""
    import uvicorn

    from service.api import create_app
    from service.config import load_config
    from service.deployment import open_deployment

    settings = load_config(ROOT / "configs/mean.yaml", overrides={"store.path": str(store)})
    app = create_app(open_deployment(settings))
    started: Future[asyncio.AbstractEventLoop] = Future()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set_result(asyncio.get_running_loop())

    # As `millpond serve` runs it.
    server = Server(uvicorn.Config(app, port=0, http="httptools", access_log=False, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        loop = started.result(timeout=60)
        yield server.servers[0].sockets[0].getsockname()[1], loop
    finally:
        server.should_exit = True
        thread.join()


def _on(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Do it on the loop's thread, the only one that cProfile then sees."""

    async def act() -> None:
        action()

    asyncio.run_coroutine_threadsafe(act(), loop).result()


def _ask(load: Load, port: int, *, each: int) -> None:
    """Load the service from a process of its own, which takes none of the loop's time."""
    process = multiprocessing.get_context("spawn").Process(target=_clients, args=(load, port, each))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{load.title}: the clients failed; see above")


def _clients(load: Load, port: int, each: int) -> None:
    import httpx

    def one(_: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            for _ in range(each):
                client.post(load.path, json=load.body).raise_for_status()

    with ThreadPoolExecutor(load.clients) as pool:
        list(pool.map(one, range(load.clients)))


def _table(profile: cProfile.Profile, requests: int) -> str:
    found: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = sorted(found.items(), key=lambda item: -item[1][2])
    micro = 1e6 / requests
    lines = ["| function | calls a request | by itself, µs | with what it calls, µs |", "|---|---:|---:|---:|"]
    for place, (_, calls, own, whole, _) in rows[:SHOWN]:
        lines.append(f"| `{_name(*place)}` | {calls / requests:.1f} | {own * micro:.0f} | {whole * micro:.0f} |")
    lines.append(f"| all {len(rows)} | | {sum(own for _, (_, _, own, _, _) in rows) * micro:.0f} | |")
    return "\n".join(lines)


def _name(file: str, line: int, function: str) -> str:
    """A function by its module's file, below whichever folder that was found in."""
    if file == "~":
        return function.strip("<>")
    path = Path(file)
    if path.is_relative_to(ROOT):
        return f"{path.relative_to(ROOT)}:{function}"
    return f"{re.sub(r'^.*(site-packages|python[0-9.]+)/', '', file)}:{function}"


if __name__ == "__main__":
    main()

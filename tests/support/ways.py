"""The ways of requests through the service: which of its files run for a text, a document, a query and a reindex.

`python -m tests.support.ways` prints them as docs/architecture.md has them. It needs a process of its own, because a
thread can be traced only if it starts after the tracer.
"""

from __future__ import annotations

import ast
import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
LAYERS = (
    "api",
    "collections",
    "access",
    "embedding",
    "encoder",
    "store",
    "index",
    "deadline.py",
    "similarity.py",
    "observation",
    "exact_json.py",
    "errors.py",
)
"""The rooms of `service/` that requests go through, from top to bottom."""
CHECKPOINT = ROOT / "tests" / "fixtures" / "v0_1" / "exported"


def layer(file: str) -> int:
    """Return how far below the top the room of a file is."""
    return LAYERS.index(file.split("/")[1])


class Tracer:
    """Records the files of `service/` whose functions are called, in any thread that starts after the tracer."""

    def __init__(self) -> None:
        self._folder = f"{ROOT}/service/"
        self._called: dict[str, None] | None = None  # in order
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Yield a list of files, by layer and order of first use, that is complete when the block ends."""
        self._called, files = {}, list[str]()
        yield files
        files += sorted((name.removeprefix(f"{ROOT}/") for name in self._called), key=layer)
        self._called = None

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and self._called is not None and frame.f_code.co_filename.startswith(self._folder):
            self._called[frame.f_code.co_filename] = None


async def requests(http: httpx.AsyncClient, turn: int, tracer: Tracer) -> dict[str, list[str]]:
    """Send one request of each kind and return the files that it runs."""

    async def send(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    notes, text = f"/collections/notes-{turn}", f"The wheel turns, time {turn}."
    await send("PUT", notes)
    with tracer.recording() as embed:
        await send("POST", "/embed", {"inputs": text})
    with tracer.recording() as upsert:
        await send("POST", f"{notes}/documents", {"documents": [{"id": f"{turn}", "text": text, "metadata": {}}]})
    with tracer.recording() as search:
        await send("POST", f"{notes}/search", {"query": text})
    with tracer.recording() as reindex:
        await send("POST", f"{notes}/reindex", {"force": True})
        while (state := (await send("GET", f"{notes}/reindex"))["state"]) == "running":
            await asyncio.sleep(0.01)
    assert state == "complete", state
    return {"text": embed, "document": upsert, "query": search, "reindex": reindex}


def trace() -> dict[str, list[str]]:
    """Return the files of `service/` that the way of a text, a document, a query and a reindex run."""
    tracer = Tracer()
    from service.api.app import create_app
    from service.config import Config
    from service.deployment import open_deployment

    async def twice(http: httpx.AsyncClient) -> dict[str, list[str]]:
        async with http:
            await requests(http, 1, tracer)  # what is done once, such as an import, is no part of a way
            return await requests(http, 2, tracer)

    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {
                "models": {"default": {"encoder": str(CHECKPOINT)}},
                "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
                "store": {"path": folder},
            }
        )
        with open_deployment(config) as served:
            transport = httpx.ASGITransport(create_app(served))
            return asyncio.run(twice(httpx.AsyncClient(transport=transport, base_url="http://ways")))


def summary(file: str) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    for way, files in trace().items():
        print(f"### The way of a {way}\n")
        print(*(f"{number}. `{file}`: {summary(file)}" for number, file in enumerate(files, 1)), "", sep="\n")

"""Deployments of a tiny encoder in this process, for tests of what a config changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI

from service.api import create_app
from service.config import make_config
from service.deployment import open_deployment
from tests.support.servers import ROOT

TINY: Final = ROOT / "tests" / "fixtures" / "v0_1" / "exported"


class Deployed:
    """Asks an application, a request at a time."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request and return its response."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://deployed") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        """Send a GET request."""
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> httpx.Response:
        """Send a POST request with JSON."""
        return self.request("POST", path, json=body)


@contextmanager
def deployed(store: Path, *, server: dict[str, Any] | None = None, **model: Any) -> Iterator[Deployed]:
    """Serve one tiny model, with its settings and those of the server; the store is made in the folder `store`."""
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
    values = {
        "models": {"tiny": {"encoder": str(TINY), **model}},
        "runtime": runtime,
        "store": {"path": str(store)},
        "server": server or {},
    }
    with open_deployment(make_config(values, "a test", env={})) as served:
        yield Deployed(create_app(served))

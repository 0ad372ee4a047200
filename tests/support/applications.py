"""The application of a deployment in this process, under various settings, and requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI

from service.access import Keyring
from service.api import create_app
from service.config import Config
from service.deployment import Deployment, open_deployment
from tests.support.servers import ROOT

EXPORTED: Final = ROOT / "tests" / "fixtures" / "v0_1" / "exported"
"""A tiny checkpoint."""


@contextmanager
def tiny_deployment(store: Path) -> Iterator[Deployment]:
    """Open a deployment of a tiny model, called `default`."""
    config = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "store": {"path": str(store)},
    }
    with open_deployment(Config.model_validate(config)) as served:
        yield served


def application(served: Deployment, **sections: Any) -> FastAPI:
    """Return an application of the same models and store, with other sections of the config."""
    config = Config.model_validate(served.config.model_dump() | sections)
    return create_app(replace(served, config=config, keys=Keyring(config.access)))


def ask(
    app: FastAPI,
    method: str,
    path: str,
    key: str | None = None,
    *,
    headers: dict[str, str] | None = None,
    host: str = "here",
    **options: Any,
) -> httpx.Response:
    """Send one request, which shows a key if one is given, to an application that is called `host`."""
    shown = {"authorization": f"Bearer {key}"} if key is not None else {}

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            return await http.request(method, path, headers=shown | (headers or {}), **options)

    return asyncio.run(send())

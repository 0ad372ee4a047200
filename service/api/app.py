"""The ASGI application: routes over a deployment, and the middleware around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.api import errors
from service.api.lean import LeanPaths
from service.api.middleware import around
from service.api.routes import (
    collections,
    doctor,
    documents,
    embed,
    explain,
    export,
    names,
    openai,
    status,
    store,
    tei,
)
from service.deployment import Deployment
from service.process import freeze_and_trim

DESCRIPTION = """Sentence embeddings and semantic search in which pooling is a visible, verified choice.

Errors are problem documents (RFC 9457); under `/v1` they have OpenAI's shape.
"""

_ROUTERS: Final[tuple[APIRouter, ...]] = (
    embed.router,
    explain.router,
    openai.router,
    openai.models_router,
    tei.router,
    tei.status_router,
    collections.router,
    documents.router,
    documents.reading_router,
    names.router,
    export.router,
    status.router,
    doctor.router,
    store.router,
    collections.search_router,
)


class _Application(FastAPI):
    """FastAPI within the middleware of every request; `add_middleware` would add to FastAPI's own routes alone."""

    def __init__(self, served: Deployment) -> None:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            freeze_and_trim()
            try:
                yield
            finally:
                await served.examinations.close()
                served.close()

        super().__init__(title="Millpond", version=__version__, description=DESCRIPTION, lifespan=lifespan)
        self.state.deployment = served
        errors.install(self)
        for router in _ROUTERS:
            self.include_router(router)
        errors.document(self)
        app: ASGIApp = LeanPaths(super().__call__, self, (route for router in _ROUTERS for route in router.routes))
        self._outermost = around(app, served.config.server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)


def create_app(served: Deployment) -> FastAPI:
    """Return the ASGI application; its shutdown closes the deployment."""
    return _Application(served)

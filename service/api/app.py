"""The ASGI application: routes over a deployment, and the middleware around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.api import document, errors
from service.api.access_log import log_access
from service.api.lean import LeanPaths
from service.api.metrics import RequestFigures, registry_of
from service.api.middleware import around
from service.api.middleware.observe import Observer
from service.api.middleware.open_requests import OpenRequests
from service.api.needs import Needs
from service.api.routes import (
    admin,
    collections,
    compare,
    docs,
    doctor,
    documents,
    embed,
    evaluate,
    explain,
    export,
    lab,
    metrics,
    names,
    openai,
    perturb,
    pool,
    project,
    ranking,
    sparse,
    status,
    store,
    tei,
)
from service.api.routing import Routes
from service.deployment import Deployment
from service.process import freeze_and_trim

DESCRIPTION = """Sentence embeddings and semantic search in which pooling is a visible, verified choice.

Errors are problem documents (RFC 9457); under `/v1` they have OpenAI's shape.
"""

_ROUTERS: Final[tuple[APIRouter, ...]] = (
    embed.router,
    explain.router,
    compare.router,
    perturb.router,
    pool.router,
    project.router,
    evaluate.router,
    openai.router,
    openai.models_router,
    tei.router,
    ranking.router,
    sparse.router,
    tei.status_router,
    collections.router,
    documents.router,
    documents.reading_router,
    names.router,
    export.router,
    status.router,
    metrics.router,
    doctor.router,
    store.router,
    admin.router,
    collections.search_router,
    docs.router,
    lab.router,
)


class _Application(FastAPI):
    """FastAPI within the middleware of every request; `add_middleware` would add to FastAPI's own routes alone."""

    def __init__(self, served: Deployment, observers: Sequence[Observer]) -> None:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await asyncio.to_thread(served.encoders.warm_up)
            freeze_and_trim()
            dropping = asyncio.create_task(served.collections.idle.run(), context=Context())
            try:
                yield
            finally:
                dropping.cancel()
                await served.end()

        super().__init__(
            title="Millpond",
            version=__version__,
            description=DESCRIPTION,
            lifespan=lifespan,
            docs_url=None,  # FastAPI's own pages load their scripts from other hosts
            redoc_url=None,
        )
        self.state.deployment = served
        self.state.requests = OpenRequests(served)
        errors.install(self)
        for router in _ROUTERS:
            self.include_router(router)
        self.state.routes = routes = Routes(each.original_route for each in iter_route_contexts(self.routes))
        access = served.config.access
        document.complete(self, Needs(routes, open_metrics=access.open_metrics) if access.needs_key else None)
        app: ASGIApp = LeanPaths(super().__call__, self, routes)
        self.state.figures = figures = RequestFigures()
        self.state.metrics = registry_of(served, figures)
        logs = [log_access] if served.config.server.access_log else []
        self._outermost = around(app, served, routes, self.state.requests, [figures, *logs, *observers])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)


def create_app(served: Deployment, *observers: Observer) -> FastAPI:
    """Return the ASGI application; its shutdown closes the deployment.

    `observers` are told of each request after its end, beside the metrics and the access log.
    """
    return _Application(served, observers)

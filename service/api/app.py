"""The ASGI application: routes over a deployment, and the middleware around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry
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
from service.api.serving import Serving
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


Life = Callable[[FastAPI], AbstractAsyncContextManager[None]]
"""What is begun with an application, and ended with it."""


class Application(FastAPI):
    """FastAPI within the middleware of every request; `add_middleware` would add to FastAPI's own routes alone.

    Args:
        served: the deployment.
        life: what is begun and ended with it.
        requests: the figures of its requests, which metrics tell.
        metrics: what Prometheus reads.
        observers: are told of each request after its end, beside the figures and the access log.
    """

    def __init__(
        self,
        served: Serving,
        life: Life,
        requests: RequestFigures,
        metrics: CollectorRegistry,
        observers: Sequence[Observer],
    ) -> None:
        super().__init__(
            title="Millpond",
            version=__version__,
            description=DESCRIPTION,
            lifespan=life,
            docs_url=None,  # FastAPI's own pages load their scripts from other hosts
            redoc_url=None,
        )
        self.state.deployment = served
        self.state.requests = OpenRequests(served)
        errors.install(self)
        for router in _ROUTERS:
            self.include_router(router)
        self.state.figures, self.state.metrics = requests, metrics
        self.state.routes = routes = Routes(each.original_route for each in iter_route_contexts(self.routes))
        access = served.config.access
        document.complete(self, Needs(routes, open_metrics=access.open_metrics) if access.needs_key else None)
        logs = [log_access] if served.config.server.access_log else []
        self.inner = self.innermost(super().__call__, routes)
        """What serves requests within all middleware."""
        self._outermost = around(self.inner, served, routes, self.state.requests, [requests, *logs, *observers])

    def innermost(self, app: ASGIApp, routes: Routes) -> ASGIApp:
        """Return what serves requests within all middleware; `app` is FastAPI's own."""
        return LeanPaths(app, self, routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        await self._outermost(scope, receive, send)


def create_app(served: Deployment, *observers: Observer) -> Application:
    """Return the ASGI application; its shutdown closes the deployment.

    `observers` are told of each request after its end, beside the metrics and the access log.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(served.encoders.warm_up)
        freeze_and_trim()
        dropping = asyncio.create_task(served.collections.idle.run(), context=Context())
        try:
            yield
        finally:
            dropping.cancel()
            await served.end()

    figures = RequestFigures()
    return Application(served, life, figures, registry_of(served, figures), observers)

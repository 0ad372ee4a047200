"""The edge of a cluster: HTTP as one machine speaks it, whose requests replicas answer.

All that holds for every request is done here, by the middleware of one machine: keys and their limits, sizes, time,
drain, ids, logs and figures. So the contract is the same by construction, and the limits of a key are counted in one
place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Protocol

from fastapi import FastAPI, Request
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import errors
from service.api.app import Application
from service.api.lean import content
from service.api.metrics import RequestFigures, registry_with
from service.api.middleware.observe import Observer
from service.api.routing import Routes, path_below_root
from service.api.serving import Serving
from service.cluster.messages import Answered, Asked
from service.deadline import require_time
from service.encoder.metering import count_tokens
from service.observation import Observed, Phase, observed

_HERE: Final = frozenset(
    {
        *("/", "/health", "/ping", "/metrics", "/admin/reload"),
        *("/openapi.json", "/docs", "/docs/{file}", "/redoc", "/lab", "/lab/{file}"),
    }
)
"""GET routes of these templates, and the reload, are answered by the edge itself."""
_READY: Final = "/ready"


class Fleet(Serving, Protocol):
    """The replicas of a deployment, whose config can change while it is served."""

    async def answer(self, asked: Asked) -> Answered:
        """Have a request answered by one replica, another one if that dies meanwhile.

        Raises:
            Unavailable: there is none.
            DeadlineExceeded: it took too long.
        """

    def metrics(self) -> Iterable[tuple[str, Sequence[Metric]]]:
        """Return what each replica tells, by its name; waits for them."""

    def close(self) -> None:
        """Look no more after the replicas."""


class Edge(Application):
    """The application of a cluster; its shutdown closes the fleet.

    Args:
        fleet: what answers.
        observers: are told of each request after its end, beside the metrics and the access log.
    """

    def __init__(self, fleet: Fleet, *observers: Observer) -> None:
        @asynccontextmanager
        async def life(_: FastAPI) -> AsyncIterator[None]:
            try:
                yield
            finally:
                fleet.close()

        self._fleet = fleet
        figures = RequestFigures()
        super().__init__(fleet, life, figures, registry_with(figures, _OfReplicas(fleet)), observers)

    def innermost(self, app: ASGIApp, routes: Routes) -> ASGIApp:
        """Return what asks replicas, but for what the edge answers itself."""
        return _Forward(app, self._fleet, routes, self)


class _Forward:
    """Passes requests on to replicas; those of its own routes, and of no route, to FastAPI here."""

    def __init__(self, app: ASGIApp, fleet: Fleet, routes: Routes, owner: FastAPI) -> None:
        self._app = app
        self._fleet = fleet
        self._routes = routes
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] != "http" or self._is_here(scope):
            await self._app(scope, receive, send)
            return
        scope["app"] = self._owner
        try:
            answered = await self._answered(scope, receive)
        except Exception as error:
            response = await errors.respond(Request(scope, receive), error)
            await response(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": answered.status, "headers": list(answered.headers)})
        await send({"type": "http.response.body", "body": answered.body})

    def _is_here(self, scope: Scope) -> bool:
        route = self._routes.find(scope)
        if route is None:
            return True
        scope["route"] = route
        if route.path == _READY:
            return bool(self._owner.state.requests.draining)  # the route says so
        return route.path in _HERE and (scope["method"] == "GET" or route.path == "/admin/reload")

    async def _answered(self, scope: Scope, receive: Receive) -> Answered:
        body = await content(receive)
        require_time()
        request = observed()
        asked = Asked(
            request.id if request else "",
            scope["method"],
            path_below_root(scope),
            scope["query_string"],
            [header for header in scope["headers"] if header[0] != b"authorization"],
            body,
        )
        begun = perf_counter()
        found = await self._fleet.answer(asked)
        count_tokens(found.noted.paid)
        if request is not None:
            _note(request, found, begun)
        return found


def _note(request: Observed, found: Answered, begun: float) -> None:
    """Note of a request what its replica did, as if that had begun when it was asked."""
    noted = found.noted
    request.texts, request.characters, request.tokens = noted.texts, noted.characters, noted.tokens
    for name, start, end, attributes in noted.phases:
        request.phases.append(Phase(name, begun + start, begun + end, attributes))


class _OfReplicas(Collector):
    """What replicas tell, each series with the label `replica`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that none is asked when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all replicas by name."""
        by_name: dict[str, Metric] = {}
        for replica, metrics in self._fleet.metrics():
            for told in metrics:
                metric = by_name.setdefault(told.name, Metric(told.name, told.documentation, told.type, told.unit))
                for sample in told.samples:
                    metric.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
        yield from by_name.values()

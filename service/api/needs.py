"""What each route needs where the service has keys: a key of one scope, any key, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from starlette.routing import Route
from starlette.types import Scope

from service import config
from service.api.routing import Routes

Need = config.Scope | Literal["key", "nothing"]
"""A scope, a key whatever its scopes, or nothing at all."""

_ROUTES: Final[Mapping[Need, tuple[str, ...]]] = {
    "nothing": (
        *("GET /", "GET /health", "GET /ready", "GET /ping"),
        *("GET /docs", "GET /docs/{file}", "GET /redoc", "GET /openapi.json"),
        *("GET /lab", "GET /lab/", "GET /lab/{file}"),
    ),
    "key": ("GET /info", "GET /metrics", "GET /v1/models", "GET /v1/models/{name:path}"),
    "embed": (
        *("POST /embed", "POST /embed_all", "POST /embed_spans", "POST /explain", "POST /compare", "POST /pool"),
        *("POST /perturb", "POST /project", "POST /v1/embeddings", "POST /evaluate"),
        *("POST /", "POST /embeddings", "POST /similarity", "POST /tokenize", "POST /decode", "POST /invocations"),
        *("POST /rerank", "POST /predict", "POST /embed_sparse"),
    ),
    "search": (
        *("GET /collections", "GET /collections/{name}", "GET /aliases", "GET /aliases/{alias}"),
        *("POST /search", "POST /collections/{name}/search", "POST /collections/{name}/recommend"),
        "POST /collections/{name}/project",
        *("POST /collections/{name}/documents/list", "POST /collections/{name}/documents/count"),
        *("POST /collections/{name}/documents/get", "GET /collections/{name}/documents/{document_id:id}"),
        *("GET /collections/{name}/export", "GET /collections/{name}/reindex"),
    ),
    "write": (
        *("PUT /collections/{name}", "DELETE /collections/{name}"),
        *("POST /collections/{name}/rename", "POST /collections/{name}/copy"),
        *("PUT /aliases/{alias}", "DELETE /aliases/{alias}"),
        *("POST /collections/{name}/documents", "DELETE /collections/{name}/documents/{document_id:id}"),
        *("POST /collections/{name}/documents/delete", "POST /collections/{name}/documents/metadata"),
        *("POST /collections/{name}/reindex", "DELETE /collections/{name}/reindex"),
    ),
    "admin": ("POST /compact", "GET /doctor", "POST /admin/reload"),
}
_OF_ROUTE: Final = {route: need for need, routes in _ROUTES.items() for route in routes}


class Needs:
    """What requests to an application need.

    Args:
        routes: its routes.
        open_metrics: whether `/metrics` needs nothing.
    """

    def __init__(self, routes: Routes, *, open_metrics: bool) -> None:
        self._routes = routes
        self._of_route: dict[str, Need] = {**_OF_ROUTE, **({"GET /metrics": "nothing"} if open_metrics else {})}

    def of(self, scope: Scope) -> Need:
        """Return what a request needs: what its route does; without one a key, but where a GET needs nothing."""
        method = scope["method"]
        if method == "OPTIONS":
            return "nothing"
        route = self._routes.find(scope)
        if route is not None:
            return self.of_route("GET" if method == "HEAD" else method, route)
        other = self._routes.find({**scope, "method": "GET"})  # a method that an open path does not take is a 405
        return "nothing" if other is not None and self.of_route("GET", other) == "nothing" else "key"

    def of_route(self, method: str, route: Route) -> Need:
        """Return what one method of a route needs: admin where none is listed."""
        return self._of_route.get(f"{method} {route.path}", "admin")

    @staticmethod
    def is_listed(method: str, route: Route) -> bool:
        """Whether it has been decided what one method of a route needs."""
        return f"{method} {route.path}" in _OF_ROUTE

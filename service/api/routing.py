"""Routes of an application, found as its routers find them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")


class Routes:
    """The routes of an application, in the order in which its routers try them."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._found = {
            (method, route.path): self._first({"type": "http", "method": method, "path": route.path})
            for route in self._routes
            if not route.param_convertors
            for method in route.methods or ()
        }

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, scope: Scope) -> Route | None:
        """Return the route that a request is for, a HEAD for that of its GET; None if none has path and method."""
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        return self._found.get((scope["method"], path_below_root(scope))) or self._first(scope)

    def methods(self, scope: Scope) -> list[str]:
        """Return the methods that the path of a request takes; none where there is no such path."""
        taken = {
            method
            for route in self._routes
            if route.matches(scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
        if "GET" in taken:
            taken.add("HEAD")
        if taken:
            taken.add("OPTIONS")
        return [method for method in _METHODS if method in taken]

    def _first(self, scope: Scope) -> Route | None:
        return next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)


def path_below_root(scope: Scope) -> str:
    """Return the path of a request without the prefix under which a proxy serves the application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path

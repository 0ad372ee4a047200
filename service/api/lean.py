"""Lean routes: from a JSON body to a response with little in between, ahead of FastAPI's router."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import errors
from service.api.middleware.observe import EMBEDDING, RANKING, SPARSE
from service.api.requests import NotJSON, ReadingRoute, declared_length, is_json, read
from service.api.routing import path_below_root
from service.deployment import Deployment
from service.encoder import Encoders


class LeanRoute(ReadingRoute):
    """The route of a function `(body, served)` from a model and the deployment to a response.

    Parameters of its path are further, named arguments, and texts.

    FastAPI describes it in the OpenAPI document and answers for its other methods and spellings. Its requests do not
    pass through FastAPI: `LeanPaths` finds the route, and `respond` does all that is left.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the one handler, for requests that only FastAPI's router finds, such as those below a root path."""
        return self.respond

    async def respond(self, request: Request) -> Response:
        """Return the function's response to a request.

        Raises:
            RequestValidationError: the body is not what the function takes.
            HTTPException: the body is too large, or its client went away.
        """
        assert self.body_field is not None
        sent = await content(request.receive)
        if not sent:
            raise RequestValidationError([{"type": "missing", "loc": ("body",)}])
        value: Any = sent
        if is_json(request.headers.get("content-type", "")):
            try:
                value = await read(sent, self.body_field)
            except NotJSON as error:
                problem = {"type": "json_invalid", "loc": ("body",), "ctx": {"error": error.msg}}
                raise RequestValidationError([problem]) from error
        body, problems = self.body_field.validate(value, loc=("body",))
        if problems:
            raise RequestValidationError(problems)
        response: Response = await self.endpoint(
            body=body, served=request.app.state.deployment, **request.path_params
        )
        return response


class LeanPaths:
    """Middleware that serves lean routes, found by method and path, and passes other requests on.

    A path without parameters is looked up, and the few others are tried one by one. Requests to embed or to rank are
    refused before their body is read where the queues are full.

    Args:
        app: what serves other requests.
        owner: the application that the routes belong to.
        routes: its routes, of which the lean ones are served.
    """

    def __init__(self, app: ASGIApp, owner: FastAPI, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._owner = owner
        lean = [route for route in routes if isinstance(route, LeanRoute)]
        self._with_parameters = [route for route in lean if route.param_convertors]
        self._routes: dict[tuple[Any, Any], LeanRoute] = {
            (method, route.path): route
            for route in lean
            if not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._routes.get((scope["method"], path_below_root(scope))) or self._matching(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._owner, route
        request = Request(scope, receive)
        try:
            if (encoders := self._encoders_for(route.path)) is not None:
                encoders.require_room(declared_length(scope))
            response = await route.respond(request)
        except Exception as error:
            response = await errors.respond(request, error)
        await response(scope, receive, send)

    def _encoders_for(self, path: str) -> Encoders | None:
        """Return the encoders that requests to a route need; None where they need none."""
        served: Deployment = self._owner.state.deployment
        if path in RANKING:
            return served.rerankers.encoders
        if path in SPARSE:
            return served.sparse.encoders
        return served.models.encoders if path in EMBEDDING else None

    def _matching(self, scope: Scope) -> LeanRoute | None:
        """Return the route with parameters that a connection is for, and note them in its scope."""
        for route in self._with_parameters:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        return None


async def content(receive: Receive) -> bytes:
    """Return the whole body of a request; raises `HTTPException` where its client goes away before."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the client went away before the body was complete.")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)

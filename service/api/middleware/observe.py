"""Observes every request: gives it an id, times it, and tells observers of it once it is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.routing import Routes
from service.observation import Observed, observing

Observer = Callable[[Observed], None]
"""Is told of each request after its end."""

RANKING: Final = frozenset({"/predict", "/rerank"})
"""Routes that score texts."""
SPARSE: Final = frozenset({"/embed_sparse"})
"""Routes to sparse vectors."""
EMBEDDING: Final = frozenset(
    {
        "/",
        "/embed",
        "/embed_all",
        "/embed_spans",
        "/embeddings",
        "/invocations",
        "/similarity",
        "/v1/embeddings",
    }
)
"""Routes that embed texts for a client; their answers say what that took, as text-embeddings-inference's do."""
UNKNOWN: Final = "unknown"
"""The route of requests that are for none."""
LEFT: Final = 499
"""The status of requests that were given up before an answer began, since their client left or the service ends."""
_MOST_ID: Final = 128
_PREFIX: Final = os.urandom(8).hex()
"""Tells the ids of this process from those of others."""
_NUMBERS: Final = count(1)
_PRINTABLE: Final = bytes(range(0x21, 0x7F))


class Observe:
    """Makes the `Observed` of each request, which the rooms below fill.

    Args:
        app: what serves the requests.
        routes: the application's, for requests that are refused before they reach theirs.
        device: what `x-compute-type` says.
        observers: told of each request after its end.
    """

    def __init__(self, app: ASGIApp, routes: Routes, device: str, observers: Sequence[Observer]) -> None:
        self._app = app
        self._routes = routes
        self._device = device.encode()
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection and tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Observed(_request_id(scope["headers"]), scope["method"], scope["headers"])

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                request.route = self._route(scope)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request.id.encode())]
                if request.texts and request.status == 200 and request.route in EMBEDDING | RANKING | SPARSE:
                    message["headers"] += self._times(request)
            await send(message)

        try:
            with observing(request):
                await self._app(scope, receive, told)
        except asyncio.CancelledError:
            request.status = request.status or LEFT
            raise
        except Exception:
            request.status = request.status or 500
            raise
        finally:
            request.status = request.status or LEFT
            request.route = request.route or self._route(scope)
            request.end()
            for observer in self._observers:
                observer(request)

    def _route(self, scope: Scope) -> str:
        """Return the template of a request's path: bounded in number, whatever paths are asked for."""
        if template := getattr(scope.get("route"), "path_format", None):
            return str(template)
        # A route that FastAPI adds for itself, such as `/docs`, is not named; without parameters it is its template.
        if "endpoint" in scope and not scope.get("path_params"):
            return str(scope["path"])
        route = self._routes.find(scope)
        return UNKNOWN if route is None else route.path_format

    def _times(self, request: Observed) -> list[tuple[bytes, bytes]]:
        durations = request.durations()
        total = _milliseconds(request.duration)
        return [
            (b"x-compute-type", self._device),
            (b"x-compute-time", total),
            (b"x-compute-characters", b"%d" % request.characters),
            (b"x-compute-tokens", b"%d" % request.tokens),
            (b"x-total-time", total),
            (b"x-tokenization-time", _milliseconds(durations.get("tokenize", 0.0))),
            (b"x-queue-time", _milliseconds(durations.get("queue", 0.0))),
            (b"x-inference-time", _milliseconds(durations.get("inference", 0.0))),
        ]


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % (seconds * 1000)


def _request_id(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the id that a client gave, if it is printable and short enough to be logged, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and 0 < len(value) <= _MOST_ID and not value.translate(None, _PRINTABLE):
            return value.decode()
    return f"{_PREFIX}{next(_NUMBERS):08x}"

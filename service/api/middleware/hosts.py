"""Requests by another name than the service has: those of a web page that has made its own name lead here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import errors
from service.api.routing import path_below_root

_PROBES: Final = ("/health", "/ready")
"""What orchestrators ask by an address that no configuration knows; it tells nothing."""
_PORT: Final = re.compile(r":\d*$")


class AllowedHosts:
    """Refuses requests whose header Host has another name than those of a list.

    Args:
        app: what serves the others.
        allowed: names in lower case without ports; `*.example.com` is each name below one, and `*` any.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._names = {name for name in allowed if not name.startswith("*.")}
        self._below = tuple(name.removeprefix("*") for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] != "http" or self._allows(host := _host(scope)) or path_below_root(scope) in _PROBES:
            await self._app(scope, receive, send)
            return
        detail = f"this service is not called {host!r}. Ask it by a name that it has (server.allowed_hosts)."
        refusal = HTTPException(400, detail)
        response = await errors.respond(Request(scope), refusal)
        await response(scope, receive, send)

    def _allows(self, host: str) -> bool:
        return host in self._names or host.endswith(self._below) or "*" in self._names


def _host(scope: Scope) -> str:
    """Return the name that a request asks for, without the port and in lower case; empty where it gives none."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    return _PORT.sub("", named[0].decode("latin-1")).lower() if len(named) == 1 else ""

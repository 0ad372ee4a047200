"""Middleware around the whole application, in pure ASGI: what holds for every request, whichever route takes it."""

from __future__ import annotations

from starlette.types import ASGIApp

from service.api.middleware.disconnect import CancelOnDisconnect
from service.api.middleware.limit import BodyLimit
from service.api.middleware.unknown import IgnoreUnknownFields
from service.config import ServerConfig


def around(app: ASGIApp, server: ServerConfig) -> ASGIApp:
    """Return an application within all middleware; the last is the outermost, which a request meets first."""
    if server.unknown_fields == "ignore":
        app = IgnoreUnknownFields(app)
    app = CancelOnDisconnect(app)
    return BodyLimit(app, server.max_body_bytes)

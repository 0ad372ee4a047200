"""Middleware around the whole application, in pure ASGI: what holds for every request, whichever route takes it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp

from service.api.middleware.disconnect import CancelOnDisconnect
from service.api.middleware.limit import BodyLimit
from service.api.middleware.observe import Observe, Observer
from service.api.middleware.open_requests import OpenRequests, TrackRequests
from service.config import Config


def around(app: ASGIApp, config: Config, requests: OpenRequests, observers: Sequence[Observer]) -> ASGIApp:
    """Return an application within all middleware; the last is the outermost, which a request meets first."""
    app = CancelOnDisconnect(app)
    app = BodyLimit(app, config.server.max_body_bytes)
    app = TrackRequests(app, requests)
    return Observe(app, config.runtime.device, observers)

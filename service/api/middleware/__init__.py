"""Middleware around the whole application, in pure ASGI: what holds for every request, whichever route takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.api.middleware.disconnect import CancelOnDisconnect
from service.api.middleware.hosts import AllowedHosts
from service.api.middleware.inflate import Inflate
from service.api.middleware.keys import KeyCheck
from service.api.middleware.limit import BodyLimit
from service.api.middleware.methods import OtherMethods
from service.api.middleware.observe import Observe, Observer
from service.api.middleware.open_requests import OpenRequests, TrackRequests
from service.api.middleware.prefix import RootPath
from service.api.middleware.unknown import IgnoreUnknownFields
from service.api.needs import Needs
from service.api.routing import Routes
from service.api.serving import Serving

_ANY: Final = ("*",)


def around(
    app: ASGIApp, served: Serving, routes: Routes, requests: OpenRequests, observers: Sequence[Observer]
) -> ASGIApp:
    """Return an application within all middleware; the last is the outermost, which a request meets first.

    What is not configured is left out.

    Args:
        app: the application.
        served: the deployment that it serves.
        routes: the routes that it has.
        requests: those that are under way.
        observers: what is told of each request that has ended.
    """
    server, access = served.config.server, served.config.access
    app = OtherMethods(app, routes)
    if server.unknown_fields == "ignore":
        app = IgnoreUnknownFields(app)
    app = CancelOnDisconnect(app)
    app = BodyLimit(app, server.max_body_bytes)
    app = Inflate(app, server.max_body_bytes)
    app = TrackRequests(app, requests)
    if access.needs_key:
        app = KeyCheck(app, served.keys, Needs(routes, open_metrics=access.open_metrics))
    if server.cors_origins:
        # Such pages may do what other clients may. Cookies are none of it.
        app = CORSMiddleware(app, server.cors_origins, allow_methods=_ANY, allow_headers=_ANY, expose_headers=_ANY)
    if server.allowed_hosts:
        app = AllowedHosts(app, server.allowed_hosts)
    if server.root_path:
        app = RootPath(app, server.root_path)
    return Observe(app, routes, served.config.runtime.device, observers)

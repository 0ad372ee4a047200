"""Leaving out what a request body should not have."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.requests import ignoring_unknown_fields


class IgnoreUnknownFields:
    """Reads bodies without the fields that they do not have here, which are errors otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        token = ignoring_unknown_fields.set(True)
        try:
            await self._app(scope, receive, send)
        finally:
            ignoring_unknown_fields.reset(token)

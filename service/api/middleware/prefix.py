"""A path prefix under which a proxy serves the application."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Tells the application its prefix, whether the proxy in front of it leaves the prefix in paths or strips it."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] != "lifespan":
            path = scope["path"]
            scope["root_path"] = self._prefix
            if path != self._prefix and not path.startswith(f"{self._prefix}/"):
                scope["path"] = self._prefix + path
        await self._app(scope, receive, send)

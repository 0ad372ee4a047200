"""HEAD where GET is, and OPTIONS for what a path takes."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.routing import Routes


class OtherMethods:
    """Answers HEAD as GET without its body, and OPTIONS with the methods of the path."""

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        method = scope.get("method")
        if method not in ("HEAD", "OPTIONS") or not (methods := self._routes.methods(scope)):
            await self._app(scope, receive, send)
        elif method == "OPTIONS":
            await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, send)
        else:
            await self._app({**scope, "method": "GET"} if "HEAD" in methods else scope, receive, _head_only(send))


def _head_only(send: Send) -> Send:
    """Return what sends the head of a response and, at once, its end, whatever is sent after it."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head

"""The limit on the size of a body."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.requests import declared_length


class BodyLimit:
    """Refuses bodies over a number of bytes with 413: by their declared length before they are read, else meanwhile.

    The error is raised where the body is read, and becomes a response as all errors there do.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection whose body is counted as it is received."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = declared_length(scope)
        received = 0

        async def limited() -> Message:
            nonlocal received
            if declared > self._most:
                raise HTTPException(413)
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)

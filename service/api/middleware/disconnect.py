"""Requests that change nothing end when their client is gone."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.requests import ReadingRoute

_WATCH_DELAY: Final = 0.05
"""Seconds before a pending request is watched; most are done earlier, at no cost."""


class CancelOnDisconnect:
    """Cancels requests that change nothing (`ReadingRoute`) whose client disconnects before the response begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection until it is done or its client is gone."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(scope, receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        except asyncio.CancelledError:
            if not watch.disconnected or watch.task.uncancel():  # cancelled by others too, such as a shutdown
                raise
        finally:
            watch.stop()


class _Watch:
    """Keeps listening after the body of a request, and cancels its task when the client disconnects."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.disconnected = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._timer = asyncio.get_running_loop().call_later(_WATCH_DELAY, self._listen)
        return message

    async def send(self, message: Message) -> None:
        self.stop()  # once a response is complete, servers report a disconnect to those who still listen
        await self._send(message)

    def stop(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None

    def _listen(self) -> None:
        if isinstance(self._scope.get("route"), ReadingRoute):
            self._listener = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.task.cancel()

"""Cancellation of requests whose client has disconnected, so that nothing is computed in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from starlette.types import Message, Receive

from service.api.json import JSONRoute

_WATCH_DELAY: Final = 0.05
"""Seconds before a pending request is watched; most are done earlier, at no cost."""

_CLIENT_CLOSED_REQUEST: Final = 499
"""The status that nginx logs in this case; no client receives it."""


class ReadingRoute(JSONRoute):
    """A JSONRoute that is cancelled when its client disconnects; for routes that change nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that is cancelled when the client disconnects."""
        handle = super().get_route_handler()

        async def cancellable(request: Request) -> Response:
            watch = _DisconnectWatch(request.receive)
            try:
                return await handle(Request(request.scope, watch))
            except asyncio.CancelledError:
                if not watch.disconnected:
                    raise
                watch.task.uncancel()
                return Response(status_code=_CLIENT_CLOSED_REQUEST)
            finally:
                watch.stop()

        return cancellable


class _DisconnectWatch:
    """A `receive` that keeps listening after the body and cancels its task when the client disconnects."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.disconnected = False
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._timer = asyncio.get_running_loop().call_later(_WATCH_DELAY, self._listen)
        return message

    def stop(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def _listen(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.task.cancel()

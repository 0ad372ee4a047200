"""Gives a request up when its client goes away, so that what it waits for is not computed for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from starlette.types import Message, Receive

from service.api.json import JSONRoute

PATIENCE: Final = 0.05
"""Seconds after which a request that waits is watched; most are answered before, and cost nothing."""

_CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's status for it. Nobody receives it."""


class ReadingRoute(JSONRoute):
    """A JSONRoute that ends when its client goes. For routes that change nothing: a write goes on to its end."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, cancelled when the client goes."""
        handle = super().get_route_handler()

        async def while_there(request: Request) -> Response:
            watch = _Watch(request.receive)
            try:
                return await handle(Request(request.scope, watch))
            except asyncio.CancelledError:
                if not watch.gone:
                    raise
                watch.task.uncancel()
                return Response(status_code=_CLIENT_CLOSED_REQUEST)
            finally:
                watch.stop()

        return while_there


class _Watch:
    """A `receive` that listens on, some time after the body has come, and cancels its task on a disconnect."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.gone = False
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._listen)
        return message

    def stop(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def _listen(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.task.cancel()

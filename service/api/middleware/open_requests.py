"""Requests under way: how many there may be, when each has to be answered, and how the last ones end."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from typing import Final

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import errors
from service.api.routing import path_below_root
from service.api.serving import Serving
from service.deadline import answered_within
from service.errors import InvalidInput, Place, ServiceError, Unavailable, shortened

ALWAYS: Final = frozenset({"/health", "/ready", "/ping", "/metrics"})
"""Paths of what looks after the service: answered however much is under way, and until the end."""
_TIMEOUT: Final = b"x-request-timeout"
_COME_BACK: Final = 5
"""Seconds after which a service that stops should be there again, or another one in its place."""


class OpenRequests:
    """The requests that a service is at, apart from those of `ALWAYS`.

    Args:
        served: the deployment, whose limits may change meanwhile.
    """

    def __init__(self, served: Serving) -> None:
        self._served = served
        self._open: set[_Request] = set()
        self.draining = False
        """Whether further requests are refused, so that none is left in the end."""

    def __len__(self) -> int:
        return len(self._open)

    def drain(self) -> None:
        """Refuse further requests from now on."""
        self.draining = True

    def end(self) -> None:
        """End the requests whose body has not come yet, with 503."""
        for request in self._open:
            request.end(stopping())

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it before its body is read."""
        try:
            if self.draining:
                raise stopping()
            limit = self._served.config.server.max_requests
            if len(self._open) >= limit:
                pause = self._served.encoders.pause
                raise Unavailable(
                    f"{limit} requests are under way, and server.max_requests is {limit}. Send the request again in "
                    f"{pause} s, with fewer clients at once.",
                    retry_after=pause,
                )
            seconds = _seconds(scope, self._served.config.server.request_timeout)
        except ServiceError as error:
            await _answer(error, scope, receive, send, close=self.draining)
            return
        request = _Request(self, scope, receive, send)
        self._open.add(request)
        try:
            await request.serve(app, seconds)
        finally:
            self._open.discard(request)


class TrackRequests:
    """Middleware that serves requests as `OpenRequests` has it."""

    def __init__(self, app: ASGIApp, requests: OpenRequests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] != "http" or path_below_root(scope) in ALWAYS:
            await self._app(scope, receive, send)
        else:
            await self._requests.serve(self._app, scope, receive, send)


def stopping() -> Unavailable:
    """Return what a request comes to that a service which is being stopped does not serve."""
    return Unavailable("the service is stopping; send the request again in a moment.", retry_after=_COME_BACK)


class _Request:
    """A request under way. Until its body is whole it can be ended; then it ends by itself.

    What waits for an encoder sees the deadline there, and that a queue is closed. What is being stored is stored, and
    answered.
    """

    def __init__(self, requests: OpenRequests, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._requests = requests
        self._scope, self._receive, self._send = scope, receive, send
        self._reading = self._whole = self._responding = False
        self._over: ServiceError | None = None

    async def serve(self, app: ASGIApp, seconds: float | None) -> None:
        with nullcontext() if seconds is None else answered_within(seconds) as deadline:
            timer = deadline and asyncio.get_running_loop().call_at(deadline.at, self.end, deadline.error())
            try:
                await app(self._scope, self.receive, self.send)
            except asyncio.CancelledError:
                # At the end of its patience the server cancels what is left of a service that stops.
                error = self._over or (stopping() if self._requests.draining else None)
                if error is None or self._responding or self._task.uncancel():
                    raise
                await _answer(error, self._scope, self._receive, self.send, close=not self._requests.draining)
            finally:
                if timer:
                    timer.cancel()

    def end(self, error: ServiceError) -> None:
        """Answer with an error if the body has not come yet; at once, or when more of it is waited for."""
        if not self._whole and not self._responding:
            self._over = error
            if self._reading:
                self._task.cancel()

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        if self._over is not None and not self._responding:
            self._task.cancel()
        self._reading = True
        try:
            message = await self._receive()
        finally:
            self._reading = False
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._responding = True
        if message["type"] == "http.response.start" and self._requests.draining:
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await self._send(message)


def _seconds(scope: Scope, most: float | None) -> float | None:
    """Return how many seconds a request has, by its header and the config; raises `InvalidInput`."""
    asked = next((value for name, value in scope["headers"] if name == _TIMEOUT), None)
    if asked is None:
        return most
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput(
            f"X-Request-Timeout is {shortened(asked.decode('latin-1'))}, and must be a number of seconds above 0.",
            where=Place("X-Request-Timeout"),
        )
    return seconds if most is None else min(seconds, most)


async def _answer(error: ServiceError, scope: Scope, receive: Receive, send: Send, *, close: bool) -> None:
    response = await errors.respond(Request(scope, receive), error)
    if close:
        response.headers["connection"] = "close"
    await response(scope, receive, send)

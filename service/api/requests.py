"""How requests are read: strictly, within limits, and no longer than their client stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Final

import orjson
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from service.deployment import Deployment
from service.errors import InvalidInput, Place, TooLarge, did_you_mean, shortened

MOST_NESTED: Final = 100
"""Nesting levels of a request body; code that recurses over one relies on this limit."""


_WATCH_DELAY: Final = 0.05
"""Seconds before a pending request is watched; most are done earlier, at no cost."""

_CLIENT_CLOSED_REQUEST: Final = 499
"""The status that nginx logs in this case; no client receives it."""


async def _deployment(request: Request) -> Deployment:  # FastAPI runs plain functions in a thread pool
    deployment: Deployment = request.app.state.deployment
    return deployment


Served = Annotated[Deployment, Depends(_deployment)]


def check_count(served: Deployment, count: int, field: str) -> None:
    """Check the number of items in a request.

    Raises:
        InvalidInput: there are none.
        TooLarge: more than `server.max_texts`.
    """
    limit = served.config.server.max_texts
    if count == 0:
        raise InvalidInput(f"{field} is empty; send at least one.", where=Place(field))
    if count > limit:
        raise TooLarge(
            f"{field} holds {count} and one request takes {limit} (server.max_texts); send them in parts.",
            where=Place(field),
            limit=limit,
        )


def places(field: str, *, several: bool) -> Callable[[int], Place]:
    """Return the function from an index to the place of that item: `field[index]`, or `field` for a single item."""
    return partial(Place, field) if several else lambda _: Place(field)


class Body(BaseModel):
    """A request body; unknown fields and other types are errors, so that a mistake never goes unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.keys() <= cls.__pydantic_fields__.keys():
            key = next(key for key in data if key not in cls.__pydantic_fields__)
            raise PydanticCustomError(
                "unknown_field",
                "{key} is not a field here.{hint} Fields are: {known}.",
                {
                    "key": shortened(key),
                    "field": str(key)[:100],
                    "hint": did_you_mean(str(key), cls.__pydantic_fields__),
                    "known": ", ".join(cls.__pydantic_fields__),
                },
            )
        return data


class _StrictRequest(Request):
    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            limit = self.app.state.deployment.config.server.max_body_bytes
            if int(self.headers.get("content-length", 0)) > limit:
                raise HTTPException(413)
            body = bytearray()
            async for part in self.stream():
                body += part
                if len(body) > limit:
                    raise HTTPException(413)
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        # FastAPI turns only a json.JSONDecodeError into a validation error.
        body = await self.body()
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise _with_position(error, body) from None
        # Counting brackets is a hundred times faster than walking the value, and few of them rule out deep nesting.
        if body.count(b"[") + body.count(b"{") > MOST_NESTED and _is_deeper(value, MOST_NESTED):
            raise json.JSONDecodeError(f"it is nested deeper than {MOST_NESTED} levels", "", 0)
        return value


class JSONRoute(APIRoute):
    """A route with strict parsing of the body: no NaN, no lone surrogates, no invalid UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that parses the body strictly."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


def _with_position(error: json.JSONDecodeError, body: bytes) -> json.JSONDecodeError:
    """Return the error with its position, which orjson omits for invalid UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return json.JSONDecodeError(f"{undecodable.reason} in byte {undecodable.start}", "", 0)
    return json.JSONDecodeError(f"{error.msg}, at character {error.pos}", "", 0)


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for item in level
            for inner in (item.values() if type(item) is dict else item)
            if type(inner) in (dict, list)
        ]
        if not level:
            return False
    return True


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

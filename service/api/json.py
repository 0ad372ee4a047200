"""JSON in and out through orjson: strict about UTF-8 and numbers, and straight from numpy arrays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

MOST_NESTED: Final = 100
"""Levels of objects and lists in a body; what walks one by recursion is safe with them."""

_PART: Final = 64 * 1024
"""Bytes of an answer between which other requests get their turn."""
_ROWS: Final = 64
"""Rows of vectors, or entries of a list, that are written without a break: less than a millisecond of work."""


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
        # FastAPI turns a json.JSONDecodeError, and no other error, into a validation error.
        body = await self.body()
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise _clearer(error, body) from None
        # Few brackets cannot be many levels, and counting them is a hundred times faster than to walk the value.
        if body.count(b"[") + body.count(b"{") > MOST_NESTED and _is_deeper(value, MOST_NESTED):
            raise json.JSONDecodeError(f"it is nested deeper than {MOST_NESTED} levels", "", 0)
        return value


class JSONRoute(APIRoute):
    """A route whose body is read strictly: no NaN, no lone surrogates, no invalid UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given the strict request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def _clearer(error: json.JSONDecodeError, body: bytes) -> json.JSONDecodeError:
    """The same error, unless the body is no text at all: orjson does not say where it stops being one."""
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


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response; arrays are written without becoming lists first."""
    return Response(_dumps(content), status, media_type="application/json")


async def answer_in_parts(parts: Iterable[bytes]) -> Response:
    """A JSON response of any size: between the making of its parts other requests get their turn."""
    written = [bytearray()]
    for part in parts:
        if len(written[-1]) >= _PART:
            await asyncio.sleep(0)
            written.append(bytearray())
        written[-1] += part
    return _Parts(written) if len(written) > 1 else Response(bytes(written[0]), media_type="application/json")


def listed(items: Sequence[Any] | NDArray[Any], shown: Callable[[int, Any], Any] | None = None) -> Iterator[bytes]:
    """A JSON list, some entries at a time.

    Args:
        items: what is listed.
        shown: from a place and the item there to what stands in the list; the item itself by default.

    """
    yield b"["
    for start in range(0, len(items), _ROWS):
        some = items[start : start + _ROWS]
        content = [shown(place, item) for place, item in enumerate(some, start)] if shown else some
        text = _dumps(content)
        yield b"," + text[1:-1] if start else text[1:-1]
    yield b"]"


def members(**content: Any) -> bytes:
    """Members of a JSON object, without the braces around them."""
    return _dumps(content)[1:-1]


class _Parts(Response):
    """A response whose body is sent as it was made, without a copy of the whole."""

    media_type = "application/json"

    def __init__(self, parts: Sequence[bytearray]) -> None:
        self._parts = parts
        super().__init__(headers={"content-length": str(sum(map(len, parts)))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _dumps(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

"""JSON in and out through orjson: strict about UTF-8 and numbers, and straight from numpy arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

MOST_NESTED: Final = 100
"""Levels of objects and lists in a body; what walks one by recursion is safe with them."""


class _StrictRequest(Request):
    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            limit = self.app.state.service.config.server.max_body_bytes
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
        if _is_deeper(value, MOST_NESTED):
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
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response; arrays are written without becoming lists first."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")

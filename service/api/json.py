"""JSON in and out through orjson: strict about UTF-8 and numbers, and straight from numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


class _StrictRequest(Request):
    async def json(self) -> Any:
        # Its error is a json.JSONDecodeError, which FastAPI turns into a validation error.
        return orjson.loads(await self.body())


class JSONRoute(APIRoute):
    """A route whose body is read strictly: no NaN, no lone surrogates, no invalid UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given the strict request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response; arrays are written without becoming lists first."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")

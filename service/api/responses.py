"""JSON responses by orjson, directly from NumPy arrays; large ones are encoded and sent in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import Response
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from service.store.filters import Filter

_PART_BYTES: Final = 64 * 1024
"""Size of a part of a response; between parts other requests can run."""
_ITEMS_AT_ONCE: Final = 64
"""Items of a list, such as vectors, encoded in one step: less than a millisecond of work."""


def json_response(content: Any) -> Response:
    """Return a JSON response."""
    return Response(_dumps(content), media_type="application/json")


async def response_in_parts(parts: Iterable[bytes], headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response of any size; other requests can run while its parts are encoded."""
    body = [bytearray()]
    for part in parts:
        if len(body[-1]) >= _PART_BYTES:
            await asyncio.sleep(0)
            body.append(bytearray())
        body[-1] += part
    if len(body) > 1:
        return _Parts(body, headers or {})
    return Response(bytes(body[0]), headers=headers, media_type="application/json")


def json_object(**members: Any) -> Iterator[bytes]:
    """Encode an object in parts; a member that is an iterator provides its own encoding in parts."""
    for number, (name, value) in enumerate(members.items()):
        yield (b"," if number else b"{") + _dumps(name) + b":"
        if isinstance(value, Iterator):
            yield from value
        else:
            yield _dumps(value)
    yield b"}"


def json_list(
    items: Sequence[Any] | NDArray[Any], to_json: Callable[[int, Any], Any] | None = None
) -> Iterator[bytes]:
    """Encode a list, or the rows of an array, in parts; `to_json` converts an index and the item there."""
    yield b"["
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        group = items[start : start + _ITEMS_AT_ONCE]
        text = _dumps([to_json(index, item) for index, item in enumerate(group, start)] if to_json else group)
        yield b"," + text[1:-1] if start else text[1:-1]
    yield b"]"


def json_list_of(items: Iterable[Iterator[bytes]]) -> Iterator[bytes]:
    """Encode a list whose items are themselves encoded in parts."""
    yield b"["
    for index, item in enumerate(items):
        if index:
            yield b","
        yield from item
    yield b"]"


def warnings_of(filter_: Filter | None) -> dict[str, Any]:
    """Return the member `warnings` of a response, where the filter that it was asked with has any."""
    return {"warnings": list(filter_.warnings)} if filter_ and filter_.warnings else {}


class _Parts(Response):
    """A response whose body is sent in parts, without joining them first."""

    media_type = "application/json"

    def __init__(self, parts: Sequence[bytearray], headers: Mapping[str, str]) -> None:
        self._parts = parts
        super().__init__(headers={**headers, "content-length": str(sum(map(len, parts)))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _dumps(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

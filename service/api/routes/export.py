"""A whole collection as JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from threading import Lock
from typing import Any, Final, Literal

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from service.api.requests import ReadingRoute, Served
from service.api.schemas.fields import CollectionName
from service.api.schemas.problem import problem
from service.arrays import Vectors
from service.collections import Definition
from service.deadline import require_time
from service.embedding.chunking import GIVEN
from service.store import Document

_PART_BYTES: Final = 1 << 18
"""About how much is sent at once: no more of a collection is in memory."""
_NDJSON: Final = "application/x-ndjson"

router = APIRouter(tags=["collections"], route_class=ReadingRoute)


@router.get(
    "/collections/{name}/export",
    response_class=StreamingResponse,
    responses={
        200: {"content": {_NDJSON: {}}, "description": "A document a line, as it can be stored again"},
        **problem(404, "Not found"),
    },
)
async def export(
    request: Request, name: CollectionName, served: Served, include: Literal["vectors"] | None = None
) -> StreamingResponse:
    """Every document of a collection, in the order of storing and as of one moment, as JSON lines.

    With `include=vectors` each has its `vector` and the `fingerprint` that it was made under, or in a chunked
    collection its `spans` and their `vectors`: stored in a collection of that fingerprint, none is embedded again.
    """
    await request.body()  # there is none, and it is whole from now on: a deadline does not end what is being sent
    require_time()
    exported = await served.collections.exported(name)
    lines = _Parts(
        _line(definition, document, vectors if include else None) for definition, document, vectors in exported
    )
    first = await asyncio.to_thread(lines.next)  # what fails by now is answered as an error
    return StreamingResponse(_sent(first, lines), media_type=_NDJSON)


async def _sent(first: bytes, lines: _Parts) -> AsyncIterator[bytes]:
    try:
        part = first
        while part:
            yield part
            part = await asyncio.to_thread(lines.next)
    finally:
        # Not awaited, as the client may be gone, and with it this task; a thread may still be at work on a part.
        asyncio.get_running_loop().run_in_executor(None, lines.close)


class _Parts:
    """Lines in parts, made by one thread at a time."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._lock = Lock()

    def next(self) -> bytes:
        """Return the next lines, empty at the end."""
        part = bytearray()
        with self._lock:
            for line in self._lines:
                part += line
                if len(part) >= _PART_BYTES:
                    break
        return bytes(part)

    def close(self) -> None:
        """Let go of what the lines are made of."""
        with self._lock:
            self._lines = iter(())


def _line(definition: Definition, document: Document, vectors: Vectors | None) -> bytes:
    fields: dict[str, Any] = document.to_json()
    if vectors is not None:
        own = {"vector": vectors[0]} if document.spans is None else {"vectors": vectors}
        fields |= own | {"fingerprint": definition.fingerprint}
    elif definition.chunking is not None and definition.chunking.by != GIVEN:
        fields.pop("spans", None)  # what the collection finds by itself is not given to it
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)

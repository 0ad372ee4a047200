"""Bodies that clients have compressed."""

from __future__ import annotations

import asyncio
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import errors

_PIECE: Final = 64 * 1024
"""Most bytes that are inflated before they are counted and other requests can run."""
_SLICE: Final = 256
"""Bytes that are inflated at a time: the library for zstd sets no limit, and makes at most 8 MiB of them."""
_WINDOW: Final = 8 * 2**20
"""The most of what came before that zstd may refer to (RFC 9659)."""


class Corrupt(Exception):
    """A compressed body is not what its coding says."""


class Inflater(ABC):
    """Inflates one stream of bytes, a part at a time."""

    def __init__(self) -> None:
        self.complete = False
        """Whether the end of the stream has come."""

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what a part of the stream inflates to, in pieces; raises `Corrupt`."""
        slices = deque(data[start : start + _SLICE] for start in range(0, len(data), _SLICE))
        parts, size = [], 0
        while slices:
            if self.complete:
                raise Corrupt("bytes follow its end")
            part, rest = self._step(slices.popleft())
            if rest:
                slices.appendleft(rest)
            parts.append(part)
            size += len(part)
            if size >= _PIECE or not slices:
                yield b"".join(parts)
                parts, size = [], 0

    @abstractmethod
    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return some of what a slice inflates to, and what of the slice is left."""


class _Gzip(Inflater):
    """One member (RFC 1952)."""

    def __init__(self) -> None:
        super().__init__()
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            part = self._member.decompress(data, _PIECE)
        except zlib.error as error:
            raise Corrupt(str(error)) from None
        self.complete = self._member.eof
        return part, self._member.unconsumed_tail or self._member.unused_data


class _Zstd(Inflater):
    """One frame (RFC 8878)."""

    def __init__(self) -> None:
        super().__init__()
        import zstandard

        self._error: type[Exception] = zstandard.ZstdError
        self._frame: Any = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            part: bytes = self._frame.decompress(data)
        except self._error as error:
            raise Corrupt(str(error)) from None
        self.complete = self._frame.eof
        return part, self._frame.unused_data


_INFLATERS: Final[dict[str, Callable[[], Inflater]]] = {"gzip": _Gzip, "x-gzip": _Gzip}
if find_spec("zstandard"):
    _INFLATERS["zstd"] = _Zstd
_OF_WHAT_IS_SENT: Final = (b"content-encoding", b"content-length")
_KNOWN: Final = [coding for coding in _INFLATERS if coding != "x-gzip"]


class Inflate:
    """Inflates bodies as they are read; middleware within it sees them as if they had been sent as they are.

    What they inflate to is for the limit of bodies to refuse, within this one; here the same limit is that of what
    was sent, which may inflate to nothing.

    Args:
        app: what serves the requests.
        most: most bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        coding = _coding(scope) if scope["type"] == "http" else None
        if coding is None:
            await self._app(scope, receive, send)
            return
        inflater = _INFLATERS.get(coding)
        if inflater is None:
            refusal = HTTPException(
                415,
                f"bodies in the content-encoding {coding!r} cannot be read here; send them as they are, or in "
                f"{' or '.join(_KNOWN)}.",
                headers={"Accept-Encoding": ", ".join(_KNOWN)},
            )
            response = await errors.respond(Request(scope), refusal)
            await response(scope, receive, send)
            return
        scope["headers"] = [header for header in scope["headers"] if header[0] not in _OF_WHAT_IS_SENT]
        pieces = _inflated(receive, coding, inflater(), self._most)

        async def receive_inflated() -> Message:
            piece = await anext(pieces, None)
            if piece is None:  # the body is complete
                return await receive()
            return piece

        await self._app(scope, receive_inflated, send)


async def _inflated(receive: Receive, coding: str, inflater: Inflater, most: int) -> AsyncIterator[Message]:
    """Yield the messages of a request with its body inflated."""
    received, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            yield message
            return
        data, more = message.get("body", b""), message.get("more_body", False)
        received += len(data)
        if received > most:
            raise HTTPException(413)
        try:
            for piece in inflater.inflate(data):
                yield {"type": "http.request", "body": piece, "more_body": True}
                await asyncio.sleep(0)
        except Corrupt as error:
            raise HTTPException(400, f"the body is no {coding}, as its content-encoding says: {error}.") from None
    if not inflater.complete:
        raise HTTPException(400, f"the body ends within its {coding}; it is not whole.")
    yield {"type": "http.request", "body": b"", "more_body": False}


def _coding(scope: Scope) -> str | None:
    """Return how the body of a request is coded, None if it is as it is."""
    for name, value in scope["headers"]:
        if name == b"content-encoding":
            coding = value.decode("latin-1").strip().lower()
            return None if coding in ("", "identity") else coding
    return None

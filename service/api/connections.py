"""Connections of clients, and what one may hold before it has sent a request."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

MOST_HELD: Final = 64 * 1024
"""Bytes of a request's head, or of what follows its body, that are kept while they are not whole."""
_LEAST_SECONDS: Final = 5.0
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 31\r\nconnection: close\r\n\r\nThe head is larger than 64 KiB."
)
_UPGRADE: Final = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A connection whose client has so much time and so many bytes for the head of a request, and no more.

    The parser keeps what it has of a head without a limit, and copies it for each part that comes. A head is refused
    where it is not whole after `MOST_HELD` bytes and the part that it began in. Where it is not whole in time, which
    is that of an idle connection and at least five seconds, the connection is closed.

    No other protocol is spoken. A client that offers one (Java's offers h2c) is answered in this one, but where the
    parser knew of the offer, it would take a body for the other protocol's.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._held = 0
        self._moved = self._in_head = self._in_body = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless nothing more is known by too much of it."""
        self._moved = False
        super().data_received(data if self._in_body else _without_offer(data))
        self._held = 0 if self._moved else self._held + len(data)
        if self._held > MOST_HELD and not self.transport.is_closing():
            logger.warning("a request's head is larger than %d bytes and was refused", MOST_HELD)
            if self._in_head and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._moved = self._in_head = True
        self._wait_for_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that a head is whole."""
        self._moved, self._in_head, self._in_body = True, False, True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that some of a body has come."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is whole."""
        self._moved, self._in_body = True, False
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        if self._patience is None:
            seconds = max(self.timeout_keep_alive, _LEAST_SECONDS)
            self._patience = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _without_offer(data: bytes) -> bytes:
    """Return the head that data begin with under a header of another name, where it offers another protocol."""
    if _UPGRADE.search(data) is None:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-upgrade", head) + end + rest

"""Connections of clients, and what one may hold before it has sent a request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

MOST_HELD: Final = 64 * 1024
"""Bytes of a request's head, or of what follows its body, that are kept while they are not whole."""
_LEAST_SECONDS: Final = 5.0
_LINGER_SECONDS: Final = 30.0
"""For which the rest of a body is taken and dropped whose request is answered already: as nginx does."""
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 31\r\nconnection: close\r\n\r\nThe head is larger than 64 KiB."
)


class _Parser(HttpRequestParser):
    """A parser that goes on where a client offers another protocol, as if it had offered none.

    httptools ends a request that offers one with its head, and leaves what follows to the other protocol. So the head
    is read once more, without the offer, and then what follows it.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        """Read what has come."""
        try:
            super().feed_data(data)
        except HttpParserUpgrade as offer:
            (end,) = offer.args
            if (head := self._connection.without_offer()) is None:
                raise
            self.feed_data(head + data[end:])


class _Response(asyncio.Transport):
    """What one response is written to. Closed at its end, the connection lingers while the request is still sent."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._connection = connection
        self._cycle = cycle
        self.write = connection.transport.write  # type: ignore[method-assign]
        self.is_closing = connection.transport.is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        """Close the connection, now or when the client has had time to read the response."""
        if self._cycle.response_complete and self._cycle.more_body and not self.is_closing():
            self._connection.linger()
        else:
            self._connection.transport.close()


class Connection(HttpToolsProtocol):
    """A connection whose client has so much time and so many bytes for the head of a request, and no more.

    The parser keeps what it has of a head without a limit, and copies it for each part that comes. A head is refused
    where it is not whole after `MOST_HELD` bytes and the part that it began in. Where it is not whole in time, which
    is that of an idle connection and at least five seconds, the connection is closed.

    No other protocol is spoken. A client that offers one (Java's offers h2c) is answered in this one.

    A request may be answered before its body has come, such as one that is too large. If its connection ends with
    that, what still comes is dropped for a while: a socket that is closed with something unread is reset, and the
    client would see that in place of the answer.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._offer: bytes | None = None
        self._held = 0
        self._moved = self._in_head = False
        self._patience: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless nothing more is known by too much of it."""
        if self._lingering is not None:
            return
        self._moved = False
        super().data_received(data)
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
        self._moved, self._in_head = True, False
        self._stop_waiting()
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offer = self._head_without_offer()
        else:
            super().on_headers_complete()
            self.cycle.transport = _Response(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Note that some of a body has come."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is whole."""
        self._moved = True
        if self._offer is None:
            super().on_message_complete()

    def linger(self) -> None:
        """Send nothing more, and drop what comes until the client ends, or has had enough time."""
        self._lingering = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def without_offer(self) -> bytes | None:
        """Return the head that has just been read, without its offer of another protocol; None if there was none."""
        head, self._offer = self._offer, None
        return head

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        kept = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        return b"".join([self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n", *kept, b"\r\n"])

    def _wait_for_head(self) -> None:
        if self._patience is None:
            seconds = max(self.timeout_keep_alive, _LEAST_SECONDS)
            self._patience = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

"""The cursors that lead from one page of a collection's documents to the next."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Final

from service.errors import InvalidCursor, Place

_LAYOUT: Final = struct.Struct(">qqI")
"""The keys of a collection and of a document, and their checksum."""


def cursor_after(collection: int, key: int) -> str:
    """Return the cursor to the documents of a collection that are behind the one with a key."""
    encoded = _LAYOUT.pack(collection, key, _checksum(collection, key))
    return base64.urlsafe_b64encode(encoded).decode().rstrip("=")


def key_of(cursor: str, collection: int, name: str) -> int:
    """Return the key that a cursor leads on from; raises `InvalidCursor` unless it is of the collection, `name`."""
    try:
        of, key, checksum = _LAYOUT.unpack(base64.b64decode(cursor + "=", altchars=b"-_", validate=True))
    except (ValueError, struct.error):
        of = key = checksum = -1
    if checksum != _checksum(of, key):
        raise InvalidCursor(
            "cursor is none that a page came with; send it as it came, or none to begin from the start.",
            where=Place("cursor"),
        )
    if of != collection:
        raise InvalidCursor(
            f"cursor is of another collection than {name!r}; leave it out to begin from the start.",
            where=Place("cursor"),
        )
    return int(key)


def _checksum(collection: int, key: int) -> int:
    return zlib.crc32(b"%d %d" % (collection, key))

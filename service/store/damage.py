"""What a store that is damaged holds, told as SQLite tells what it finds itself."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from service import exact_json
from service.arrays import Vectors


def damaged(what: str) -> sqlite3.DatabaseError:
    """Return the error that something stored is not as it was written, which no checksum of SQLite's tells."""
    error = sqlite3.DatabaseError(f"the file is damaged: {what}")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def decoded(stored: str, what: str) -> Any:
    """Return the value of JSON that was stored; raises `damaged`."""
    try:
        return exact_json.loads(stored.encode())
    except (AttributeError, ValueError):  # AttributeError: it is no text
        raise damaged(f"{what} cannot be read") from None


def numbers(stored: bytes, count: int, what: str) -> Vectors:
    """Return stored numbers as so many vectors (count, dim) that cannot be changed; raises `damaged`."""
    try:
        return np.frombuffer(stored, "<f4").reshape(count, -1)
    except (TypeError, ValueError):
        raise damaged(f"{what} cannot be read") from None

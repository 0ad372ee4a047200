"""Keys as clients have them, and what the service keeps of them."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

PREFIX: Final = "millpond_"
"""How keys begin, so that people and scanners of leaked secrets know them."""


def new_key() -> str:
    """Return a new key: the prefix and 256 random bits in hexadecimal."""
    return PREFIX + secrets.token_hex(32)


def digest(key: str) -> str:
    """Return what is kept of a key: its SHA-256 in hexadecimal.

    Keys are random, so that none can be found by trying; a slow hash, as passwords need, would only slow requests.
    """
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()

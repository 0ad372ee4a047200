"""JSON whose numbers are what was written: no integer becomes a float on the way."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Final

import orjson

_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * 19
"""Digits of the shortest integers beyond 64 bits, as `_DIGITS` translates them."""
_NO_DIGIT: Final = re.compile(rb"[^0]")
"""In a text that `_DIGITS` has translated."""
_MOST_DIGITS: Final = 400


def loads(text: bytes) -> Any:
    """Parse JSON as strictly as orjson, but for numbers of which it makes others, or which it refuses.

    Integers beyond 64 bits stay integers, of which the first 400 digits count, and other numbers beyond floats are
    infinite, so that a check of the values can say which one is too large. Raises `orjson.JSONDecodeError`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" in error.msg:
            with suppress(ValueError, RecursionError):
                return _strictly(text)
        raise
    # Looking for long integers takes a third of the time of parsing, and texts that have them are rare.
    return _parsed(text) if _has_long_integer(text.translate(_DIGITS)) else value


def _has_long_integer(text: bytes) -> bool:
    """Return whether a text, as `_DIGITS` translates it, has a run of many digits that is no fraction.

    Fractions are as long in nearly every vector of 64-bit floats.
    """
    start = text.find(_LONG)
    while start >= 0:
        if text[start - 1 : start] != b".":
            return True
        end = _NO_DIGIT.search(text, start)
        start = text.find(_LONG, end.start()) if end else -1
    return False


def _strictly(text: bytes) -> Any:
    value = _parsed(text)
    json.dumps(value, ensure_ascii=False).encode()  # which halves of surrogate pairs do not survive
    return value


def _parsed(text: bytes) -> Any:
    return json.loads(text.decode(), parse_int=_integer, parse_constant=_refused)


def _integer(digits: str) -> int:
    return int(digits[:_MOST_DIGITS])  # Python converts no more than some thousands


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")

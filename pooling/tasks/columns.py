"""Parsers for the columns of a data file. What a `ValueError` of theirs says follows the name of the column."""

from __future__ import annotations

import math
import reprlib
import unicodedata
from collections.abc import Callable
from typing import Any, Final

Parser = Callable[[Any], Any]

_BRIEF: Final = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 80

_INVISIBLE: Final = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
"""Categories of Unicode of which no character shows: a zero-width space, say, is Cf."""


def text(value: Any) -> str:
    """Parse a text, which must not be blank, and be valid Unicode."""
    if not (value is None or isinstance(value, str)):
        raise ValueError("is no text")
    if not value or not value.strip():
        raise ValueError("is empty")
    if not is_visible(value):
        raise ValueError("holds nothing but characters that do not show")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start}") from None
    return value


def is_visible(value: str) -> bool:
    """Return whether a text has a character that is neither white space nor for control or format."""
    return any(unicodedata.category(character) not in _INVISIBLE for character in value)


def label(value: Any) -> str:
    """Parse the name of a class, which may be an integer."""
    return str(value) if isinstance(value, int) else text(value)


def number(value: Any) -> float:
    """Parse a finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"is {_BRIEF.repr(value)}, which is no finite number")
    return found


def shown(name: str) -> str:
    """Return a name as messages show it: a long one is cut."""
    return name if len(name) <= _BRIEF.maxstring else f"{name[: _BRIEF.maxstring]}..."

"""Parsers for the columns of a data file. What a `ValueError` of theirs says follows the name of the column."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Parser = Callable[[Any], Any]


def text(value: Any) -> str:
    """Parse a text, which must not be blank."""
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("is empty" if value is None or isinstance(value, str) else "is no text")


def label(value: Any) -> str:
    """Parse the name of a class, which may be an integer."""
    return str(value) if isinstance(value, int) else text(value)


def number(value: Any) -> float:
    """Parse a finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"is {value!r}, which is no finite number")
    return found

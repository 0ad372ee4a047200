"""How documents are to be cut, as the command line says it."""

from __future__ import annotations

from typing import Any, Final

from service.cli.console import Failure
from service.errors import shortened

_LONGEST: Final = 10
"""Digits of a number; one of more is too large, whichever it is."""


def chunking(given: str) -> dict[str, Any] | None:
    """`tokens=64,overlap=16,mode=early`, `sentence`, `given`, `none` -> what the service takes.

    Raises:
        Failure: it is written otherwise. What the words mean, the service knows.

    """
    if given == "none":
        return None
    found: dict[str, Any] = {}
    for part in given.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            key, value = "by", key
        if not key or not value or key in found:
            raise Failure(
                f"--chunking {shortened(given)}: write it as tokens=64,overlap=16 or sentence or given, and with "
                ",mode=early where each span is to be embedded by itself.",
                2,
            )
        found[key] = int(value) if value.isdecimal() and len(value) < _LONGEST else value
    return found

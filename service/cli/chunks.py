"""The `--chunking` option."""

from __future__ import annotations

from typing import Any, Final

from service.cli.console import Failure
from service.errors import shortened

_MAX_DIGITS: Final = 9
"""Numbers with more digits stay text, which the service refuses."""


def parse_chunking(option: str) -> dict[str, Any] | None:
    """Parse `tokens=64,overlap=16,mode=early`, `sentence`, `given` or `none` to the `chunking` of a request.

    Raises:
        Failure: the syntax is wrong. The service checks the names and values.
    """
    if option == "none":
        return None
    chunking: dict[str, Any] = {}
    for part in option.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            key, value = "by", key
        if not key or not value or key in chunking:
            raise Failure(
                f"--chunking {shortened(option)}: write it as tokens=64,overlap=16 or sentence or given, and with "
                ",mode=early where each span is to be embedded by itself.",
                2,
            )
        chunking[key] = int(value) if value.isdecimal() and len(value) <= _MAX_DIGITS else value
    return chunking

"""What every format gives: documents one after the other, and in place of what is none, why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 64 * 2**20
"""Bytes of one document, more than a service takes in one request."""


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it is sent, its place in the source, such as `line 7`, and what is written there."""

    place: str
    number: int
    document: dict[str, Any]
    content: str

    @property
    def id(self) -> str:
        """The document's id."""
        return str(self.document["id"])

    @property
    def size(self) -> int:
        """About how many bytes a request with it has."""
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a place of the source, and what is written there."""

    place: str
    number: int
    reason: str
    content: str


class Source(ABC):
    """Documents of a file or a folder, read as they are asked for.

    `path` is what is read, and `read` how much of it has been, from 0 to 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = 0.0

    @abstractmethod
    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start. Raises `Failure` where it cannot be read further."""

"""What every format of an input gives: blocks of rows, found in one pass, and read again one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.cli.console import Failure
from service.cli.dataset_folder import InputFile
from service.cli.documents import string_field
from service.cli.sources import Problem

MOST_BYTES: Final = 64 * 2**20
"""About how many bytes of the input a block has, which ends there though it has fewer rows than it may."""
PART_BYTES: Final = 1 << 20
"""Bytes that are hashed, or fetched from a file, at once."""
Advance = Callable[[int], object]
"""Called with the number of further bytes, or rows, that are done."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Consecutive rows of a file, from the row `first` on, counted from 0.

    Of lines, `offset` is the first one's place in the (decompressed) bytes, and `line` its number.
    """

    first: int
    rows: int
    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the input. `kind` says, of lines, as what it is written: str, int, float, bool or json."""

    name: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a file has found: its identity, its columns, and where its blocks are."""

    file: InputFile
    columns: Mapping[str, Any]
    extents: Sequence[Extent]


class Rows(ABC):
    """The rows of a block, those at fault among them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def text(self, index: int) -> str:
        """Return a row's text; raises `ValueError` where it has none that is a string."""

    @abstractmethod
    def problem(self, index: int, reason: str) -> Problem:
        """Return what is wrong with a row."""

    @abstractmethod
    def table(self, kept: Sequence[int]) -> Any:
        """Return the wanted columns of some rows, a pyarrow.Table; raises `ValueError`."""


class Reader(ABC):
    """Reads blocks of one file; fastest in the order of the file, since it goes on where it was."""

    @abstractmethod
    def read(self, extent: Extent) -> Rows:
        """Read a block; raises `Failure` where the file is damaged, or ends before."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


def text_of(fields: Mapping[str, Any], column: str) -> str:
    """Return the text of a row; raises `ValueError` where it is null, empty or no string."""
    text = string_field(fields, column)
    if not text.strip():
        raise ValueError("has no text.")
    return text


def changed(path: Path) -> Failure:
    """Return the error of a file that was changed while it was read."""
    return Failure(f"{path} has changed while it was read. Leave the input as it is until all is embedded.", 2)

"""Parquet as the input of a dataset: any columns, of which one is the text."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from service.cli.console import Failure
from service.cli.dataset_folder import InputFile
from service.cli.datasets.base import (
    MOST_BYTES,
    PART_BYTES,
    Advance,
    Column,
    Extent,
    Reader,
    Rows,
    Scan,
    changed,
    text_of,
)
from service.cli.sources import Problem
from service.cli.sources.parquet import content_of
from service.cli.streams import explained, needed

ENDINGS: Final = (".parquet",)
_ROWS: Final = 1024
"""Rows that are read at once."""


def scan(path: Path, name: str, block_rows: int, advance: Advance) -> Scan:
    """Read a file once: its digest, the types of its columns, and where blocks begin."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with explained(path), path.open("rb") as raw:
        while part := raw.read(PART_BYTES):
            digest.update(part)
            size += len(part)
            advance(len(part))
    with _opened(path) as file:
        rows = file.metadata.num_rows
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        total = sum(group.total_byte_size for group in groups)
        step = min(block_rows, max(1, MOST_BYTES * rows // max(total, 1)))
        schema = file.schema_arrow
        twice = next((field for field, count in Counter(schema.names).items() if count > 1), None)
        if twice is not None:
            raise Failure(f"{path} has several columns {twice!r}, of which none can be told from the others.", 2)
        columns = {field: schema.field(field).type for field in schema.names}
    extents = [Extent(first, min(step, rows - first)) for first in range(0, rows, step)]
    return Scan(InputFile(name, size, digest.hexdigest(), rows), columns, extents)


def columns_of(root: Path, scans: Sequence[Scan], text_column: str) -> dict[str, Column]:
    """Return the columns by name; raises `Failure` where those of files differ, or texts are no strings."""
    first = scans[0]
    for other in scans[1:]:
        if dict(other.columns) != dict(first.columns):
            wrong = next(name for name in {**first.columns, **other.columns} if _differ(name, first, other))
            sides = (f"{_type(each.columns.get(wrong))} in {each.file.name}" for each in (first, other))
            raise Failure(
                f"{root}: column {wrong!r} is {' and '.join(sides)}. Files of one dataset have the same columns.", 2
            )
    kind = first.columns.get(text_column)
    if kind is not None and str(getattr(kind, "value_type", kind)) not in ("string", "large_string", "string_view"):
        raise Failure(f"{root}: column {text_column!r} of {first.file.name} holds {kind}, and no strings.", 2)
    return {name: Column(name) for name in first.columns}


def _differ(name: str, first: Scan, other: Scan) -> bool:
    return bool(first.columns.get(name) != other.columns.get(name))


def _type(kind: Any) -> str:
    return "missing" if kind is None else str(kind)


def _opened(path: Path) -> Any:
    parquet = needed("pyarrow.parquet", "pyarrow", path)
    try:
        return parquet.ParquetFile(path, buffer_size=PART_BYTES, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read as Parquet: {error}", 2) from None


class ParquetReader(Reader):
    """Reads blocks of a Parquet file, whose row groups may be of any size."""

    def __init__(self, path: Path, columns: Sequence[Column], text_column: str) -> None:
        self._path = path
        self._columns = [column.name for column in columns]
        self._text_column = text_column
        self._file = _opened(path)
        self._arrow = needed("pyarrow", "pyarrow", path)
        metadata = self._file.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None
        self._at = self._starts[-1]

    def read(self, extent: Extent) -> ParquetRows:
        """Read a block."""
        try:
            table = self._table(extent.first, extent.rows)
        except (OSError, ValueError) as error:
            raise Failure(f"{self._path} is damaged, and cannot be read further: {error}", 2) from None
        return ParquetRows(table, extent.first, self._columns, self._text_column)

    def close(self) -> None:
        """Close the file."""
        self._batches, self._rest = iter(()), None
        self._file.close()

    def _table(self, first: int, rows: int) -> Any:
        group = bisect_right(self._starts, first) - 1
        if not self._starts[group] <= self._at <= first:
            names = list(dict.fromkeys((*self._columns, self._text_column)))
            groups = range(group, len(self._starts) - 1)
            self._batches = self._file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=names)
            self._rest, self._at = None, self._starts[group]
        parts = []
        while rows:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise changed(self._path)
            skipped = min(first - self._at, len(batch))
            taken = min(rows, len(batch) - skipped)
            if taken:
                parts.append(batch.slice(skipped, taken))
            self._at += skipped + taken
            first, rows = first + taken, rows - taken
            self._rest = batch.slice(skipped + taken) if skipped + taken < len(batch) else None
        return self._arrow.Table.from_batches(parts).unify_dictionaries()


class ParquetRows(Rows):
    """The rows of a block."""

    def __init__(self, table: Any, first: int, columns: Sequence[str], text_column: str) -> None:
        self._table = table
        self._first = first
        self._columns = columns
        self._text_column = text_column
        column = table.column(text_column)
        try:
            self._texts: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            self._texts = [_text(cell) for cell in column]

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, index: int) -> str:
        """Return a row's text."""
        if isinstance(text := self._texts[index], ValueError):
            raise text
        return text_of({self._text_column: text}, self._text_column)

    def problem(self, index: int, reason: str) -> Problem:
        """Return what is wrong with a row."""
        number = self._first + index + 1
        try:
            content = content_of(self._table.slice(index, 1).to_pylist()[0])
        except UnicodeDecodeError:
            content = ""
        return Problem(f"row {number}", number, reason, content)

    def table(self, kept: Sequence[int]) -> Any:
        """Return the wanted columns of some rows."""
        table = self._table.select(self._columns)
        return table if len(kept) == len(self) else table.take(kept)


def _text(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return ValueError(f"is not valid UTF-8 at byte {error.start + 1}.")

"""JSON lines as the input of a dataset: an object a line, whose members are columns."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

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
from service.cli.sources.lines import bounded, content_of, parse_line
from service.cli.streams import Stream, explained, needed

ENDINGS: Final = tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst"))
_EXACT: Final = 2**53
"""Up to where a float has every integer."""
_LONGEST: Final = 2**63
_ARROW: Final = {"str": "string", "int": "int64", "float": "float64", "bool": "bool_", "json": "string"}


class _Counted:
    """Lines that are read from a stream of bytes, hashed, and the place `at` which it is."""

    def __init__(self, content: IO[bytes], at: int = 0) -> None:
        self.at = at
        self.digest = hashlib.blake2b(digest_size=16)
        self._content = content

    def readline(self, size: int, /) -> bytes:
        raw = self._content.readline(size)
        self.at += len(raw)
        self.digest.update(raw)
        return raw


def _numbered(lines: _Counted, number: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the place, the number and the bytes of each line that is not blank, of which the next has a number."""
    for raw in _each(lines):
        at, line = raw
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line and not line.isspace():
            yield at, number, line
        number += 1


def _each(lines: _Counted) -> Iterator[tuple[int, bytes]]:
    found = bounded(lines)
    while True:
        at = lines.at
        try:
            yield at, next(found)
        except StopIteration:
            return


def scan(path: Path, name: str, block_rows: int, advance: Advance) -> Scan:
    """Read a file once: its digest, the types of each member of its objects, and where blocks begin."""
    stream = Stream(path)
    size, told = path.stat().st_size, 0
    types: dict[str, set[Any]] = {}
    extents: list[Extent] = []
    rows = offset = line = first = 0
    with stream.opened() as content:
        lines = _Counted(content)
        for at, number, raw in _numbered(lines, 1):
            if first == rows:
                offset, line = at, number
            rows += 1
            _note(raw, types)
            if rows - first == block_rows or lines.at - offset >= MOST_BYTES:
                extents.append(Extent(first, rows - first, offset, line))
                first = rows
            if rows % 1024 == 0:
                advance(int(stream.read * size) - told)
                told = int(stream.read * size)
    if rows > first:
        extents.append(Extent(first, rows - first, offset, line))
    advance(size - told)
    return Scan(InputFile(name, lines.at, lines.digest.hexdigest(), rows), types, extents)


def _note(raw: bytes, types: dict[str, set[Any]]) -> None:
    """Note the types of an object's members; what is no object is told when its block is read."""
    try:
        fields = parse_line(raw)
    except ValueError:
        return
    for name, value in fields.items():
        kinds = types.setdefault(name, set())
        kinds.add(type(value))
        if type(value) is int and not -_EXACT <= value <= _EXACT:
            kinds.add("long" if -_LONGEST <= value < _LONGEST else "longer")


def columns_of(scans: Sequence[Scan], text_column: str) -> dict[str, Column]:
    """Return the columns of all files together, by name, in the order in which they come first."""
    types: dict[str, set[Any]] = {}
    for each in scans:
        for name, kinds in each.columns.items():
            types.setdefault(name, set()).update(kinds)
    return {
        name: Column(name, "str" if name == text_column else _kind(kinds - {type(None)}))
        for name, kinds in types.items()
    }


def without_objects(path: Path) -> str:
    """Say that no line of a file is an object, and what the first one is instead."""
    with Stream(path).opened() as content:
        _, number, raw = next(_numbered(_Counted(content), 1))
    found = _parsed(raw)
    reason = found if isinstance(found, ValueError) else "it is an object without members"
    return f'{path}: no line is an object with a text, such as {{"text": "A mill."}}. Line {number}: {reason}'


def _kind(types: set[Any]) -> str:
    if types <= {str}:
        return "str"
    if types == {bool}:
        return "bool"
    if types <= {int, "long"}:
        return "int"
    return "float" if types <= {int, float} else "json"


class LineReader(Reader):
    """Reads blocks of a file of JSON lines."""

    def __init__(self, path: Path, columns: Sequence[Column], text_column: str) -> None:
        self._path = path
        self._columns = columns
        self._text_column = text_column
        self._opened = ExitStack()
        self._content: IO[bytes] | None = None
        self._at = 0

    def read(self, extent: Extent) -> LineRows:
        """Read a block."""
        found: list[tuple[int, bytes]] = []
        with explained(self._path):
            lines = _Counted(self._from(extent.offset), extent.offset)
            for _, number, raw in _numbered(lines, extent.line):
                found.append((number, raw))
                if len(found) == extent.rows:
                    break
            self._at = lines.at
        if len(found) < extent.rows:
            raise changed(self._path)
        return LineRows(self._path, found, self._columns, self._text_column)

    def close(self) -> None:
        """Close the file."""
        self._content = None
        self._opened.close()

    def _from(self, offset: int) -> IO[bytes]:
        """Return the stream from a place on: of a compressed one, all before is decompressed unless it was read."""
        if self._content is None or offset < self._at:
            self.close()
            self._content = self._opened.enter_context(Stream(self._path).opened())
            self._at = 0
        if self._path.suffix.lower() not in (".gz", ".zst"):
            self._content.seek(offset)
            return self._content
        while self._at < offset:
            part = self._content.read(min(PART_BYTES, offset - self._at))
            if not part:
                raise changed(self._path)
            self._at += len(part)
        return self._content


class LineRows(Rows):
    """The lines of a block."""

    def __init__(
        self, path: Path, lines: Sequence[tuple[int, bytes]], columns: Sequence[Column], text_column: str
    ) -> None:
        self._arrow = needed("pyarrow", "pyarrow", path.with_suffix(".parquet"))
        self._lines = lines
        self._columns = columns
        self._text_column = text_column
        self._fields = [_parsed(raw) for _, raw in lines]

    def __len__(self) -> int:
        return len(self._lines)

    def text(self, index: int) -> str:
        """Return a row's text."""
        fields = self._fields[index]
        if isinstance(fields, ValueError):
            raise fields
        return text_of(fields, self._text_column)

    def problem(self, index: int, reason: str) -> Problem:
        """Return what is wrong with a row."""
        number, raw = self._lines[index]
        return Problem(f"line {number}", number, reason, content_of(raw))

    def table(self, kept: Sequence[int]) -> Any:
        """Return the wanted columns of some rows; a member that an object lacks is null."""
        rows = [fields for index in kept if not isinstance(fields := self._fields[index], ValueError)]
        arrays = {
            column.name: self._arrow.array(
                [_cell(row.get(column.name), column.kind) for row in rows],
                getattr(self._arrow, _ARROW[column.kind])(),
            )
            for column in self._columns
        }
        return self._arrow.table(arrays)


def _parsed(raw: bytes) -> Mapping[str, Any] | ValueError:
    try:
        return parse_line(raw)
    except ValueError as problem:
        return problem


def _cell(value: Any, kind: str) -> Any:
    return json.dumps(value, ensure_ascii=False) if kind == "json" and value is not None else value

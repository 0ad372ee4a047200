"""CSV and TSV: a header that names the columns, and a document a row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from service.cli.console import Failure
from service.cli.documents import document_of, from_columns
from service.cli.sources.base import MOST_BYTES, Problem, Row, Source
from service.cli.streams import Stream
from service.errors import did_you_mean
from service.store.document import has_surrogate

_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,15})?")
"""A number as it is usually written: no plus sign, no leading zeros, so that a post code stays a text."""


class Table(Source):
    """A file of comma-separated values, or of tab-separated ones where its name ends so.

    The columns `id` (or `_id`) and `text` are needed. `title` comes before the text, as in BEIR; `metadata` is a JSON
    object; every other column is a field of the metadata, as a number where all of a cell is one. An empty cell is no
    field.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stream = Stream(path)

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        csv.field_size_limit(MOST_BYTES)
        with self._stream.opened() as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield from self._rows(csv.reader(text, dialect="excel-tab" if self._tabs else "excel", strict=True))
            finally:
                text.detach()

    @property
    def _tabs(self) -> bool:
        return ".tsv" in [suffix.lower() for suffix in self.path.suffixes]

    def _rows(self, reader: Any) -> Iterator[Row | Problem]:
        header: list[str] | None = None
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(f"line {number}", number, f"is no CSV ({error}).", "")
                continue
            self.read = self._stream.read
            if not cells:
                continue
            if header is None:
                header = self._checked(cells)
            else:
                yield _row(number, header, cells)

    def _checked(self, header: list[str]) -> list[str]:
        for alternatives in (("id", "_id"), ("text",)):
            if not set(alternatives) & set(header):
                raise Failure(
                    f"{self.path}: the first line has no column {alternatives[0]!r}."
                    f"{did_you_mean(alternatives[0], header)} It names the columns, 'id' and 'text' among them.",
                    2,
                )
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise Failure(f"{self.path}: the first line names the column {twice!r} twice.", 2)
        return header


def _row(number: int, header: Sequence[str], cells: Sequence[str]) -> Row | Problem:
    place = f"line {number}"
    content = orjson.dumps(
        [cell.encode(errors="surrogateescape").decode(errors="replace") for cell in cells]
    ).decode()
    try:
        if len(cells) != len(header):
            raise ValueError(f"has {len(cells)} cells, and the first line names {len(header)} columns.")
        if wrong := next((name for name, cell in zip(header, cells, strict=True) if has_surrogate(cell)), None):
            raise ValueError(f"{wrong!r} is not valid UTF-8. Save the file as UTF-8.")
        columns = dict(zip(header, cells, strict=True))
        return Row(place, number, document_of(from_columns(columns, _value)), content)
    except ValueError as problem:
        return Problem(place, number, str(problem), content)


def _value(cell: str) -> Any:
    """Return what a cell of metadata stands for; None for nothing."""
    if _NUMBER.fullmatch(cell):
        return float(cell) if "." in cell else int(cell)
    return cell or None

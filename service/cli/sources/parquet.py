"""Parquet, as data sets come, and as `millpond export` writes it. It takes the package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import orjson

from service.cli.console import Failure
from service.cli.dataset_folder import About
from service.cli.documents import document_of, from_columns
from service.cli.sources.base import Problem, Row, Source
from service.cli.streams import needed
from service.errors import did_you_mean

_ROWS: Final = 256
"""Rows that are read at once."""


class Parquet(Source):
    """A file with the columns `id` (or `_id`) and `text`; others as in a table of CSV, and `vector` as a list.

    Of one that `millpond embed-dataset` has written, each vector has the fingerprint that the file names.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        parquet = needed("pyarrow.parquet", "pyarrow", path)
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise Failure(f"{path} cannot be read as Parquet: {error}", 2) from None
        self._about = About.of(self._file.metadata.metadata)
        names = self._file.schema_arrow.names
        for alternatives in (("id", "_id"), ("text", "vector", "vectors")):
            if not set(alternatives) & set(names):
                near = did_you_mean(alternatives[0], names)
                raise Failure(f"{path} has no column {alternatives[0]!r}.{near} It has {', '.join(names)}.", 2)

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        number, total = 0, self._file.metadata.num_rows
        try:
            for batch in self._file.iter_batches(batch_size=_ROWS):
                for columns in batch.to_pylist():
                    number += 1
                    self.read = number / total
                    yield _row(number, columns if self._about is None else _embedded(columns, self._about))
        except (OSError, ValueError) as error:
            raise Failure(f"{self.path} is damaged, and cannot be read further: {error}", 2) from None


def _row(number: int, columns: dict[str, Any]) -> Row | Problem:
    place = f"row {number}"
    content = content_of(columns)
    try:
        return Row(place, number, document_of(from_columns(columns, _value)), content)
    except ValueError as problem:
        return Problem(place, number, str(problem), content)


def _embedded(columns: dict[str, Any], about: About) -> dict[str, Any]:
    """Return a row of `millpond embed-dataset` with the fingerprint of its vector, and the text that this is of.

    That is the text alone: a title, which a BEIR corpus has before it, is metadata here.
    """
    if "text" not in columns and about.text_column in columns:
        columns = {"text": columns.pop(about.text_column), **columns}
    if "id" not in columns and "_id" in columns:
        columns = {"id": columns.pop("_id"), **columns}
    return columns | {"fingerprint": about.fingerprint}


def content_of(columns: dict[str, Any]) -> str:
    """Return a row as what is written there."""
    return orjson.dumps(columns, default=repr).decode()


def _value(cell: Any) -> Any:
    """Return a cell as JSON has it."""
    match cell:
        case datetime() | date() | time():
            return cell.isoformat()
        case Decimal():
            return str(cell)
        case list():
            return [_value(item) for item in cell]
        case dict():
            return {key: _value(item) for key, item in cell.items()}
        case bytes():
            raise ValueError("holds bytes, which JSON has no form for. Leave that column out.")
        case _:
            return cell

"""Where `millpond export` writes documents: JSON lines, compressed or not, or Parquet."""

from __future__ import annotations

import gzip
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import orjson

from service.cli.console import Failure, emit
from service.cli.streams import needed

_ROWS: Final = 4096
"""Documents of a row group, which are in memory at once."""


class Sink(ABC):
    """Takes documents as lines of JSON."""

    @abstractmethod
    def write(self, line: bytes) -> None:
        """Write a document, given as JSON without a line break."""


class StandardOutput(Sink):
    """JSON lines on standard output."""

    def write(self, line: bytes) -> None:
        """Write a document."""
        emit(line + b"\n")


class _Lines(Sink):
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, line: bytes) -> None:
        self._file.write(line + b"\n")


class _Parquet(Sink):
    """Row groups of documents, whose metadata are JSON in a string, since they differ from one to the next."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._arrow = needed("pyarrow", "pyarrow", path)
        self._parquet = needed("pyarrow.parquet", "pyarrow", path)
        self._file = file
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        fields = orjson.loads(line)
        self._rows.append(fields | {"metadata": orjson.dumps(fields["metadata"]).decode()})
        if len(self._rows) == _ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        arrow = self._arrow
        if self._writer is None:
            first = self._rows[0] if self._rows else {}
            of = {
                "spans": arrow.list_(arrow.list_(arrow.int64())),
                "vector": arrow.list_(arrow.float32()),
                "vectors": arrow.list_(arrow.list_(arrow.float32())),
            }
            names = ("id", "text", "metadata", *(name for name in (*of, "fingerprint") if name in first))
            schema = arrow.schema([(name, of.get(name, arrow.string())) for name in names])
            self._writer = self._parquet.ParquetWriter(self._file, schema)
        self._writer.write_table(arrow.Table.from_pylist(self._rows, self._writer.schema))
        self._rows = []


@contextmanager
def open_sink(file: Path, partial: Path) -> Iterator[Sink]:
    """Open what writes a file in the format of its name, for now as `partial`, which is on disk in the end."""
    suffix = file.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".json", ".gz", ".zst", ".parquet"):
        raise Failure(f"{file}: give it a name that ends in .jsonl, .jsonl.gz, .jsonl.zst or .parquet.", 2)
    with partial.open("wb") as raw:
        if suffix == ".parquet":
            sink = _Parquet(raw, file)
            yield sink
            sink.close()
        elif suffix == ".gz":
            with gzip.open(raw, "wb", compresslevel=6) as content:
                yield _Lines(content)
        elif suffix == ".zst":
            with needed("zstandard", "zstandard", file).ZstdCompressor().stream_writer(raw, closefd=False) as content:
                yield _Lines(content)
        else:
            yield _Lines(raw)
        raw.flush()
        os.fsync(raw.fileno())

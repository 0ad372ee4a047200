"""JSON lines: Millpond's own, which `millpond export` writes, and those of a BEIR corpus."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from service.cli.documents import document_of, parse_object
from service.cli.sources.base import MOST_BYTES, Problem, Row, Source
from service.cli.streams import Stream


class JSONLines(Source):
    """A file with a JSON object a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stream = Stream(path)

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        with self._stream.opened() as lines:
            for number, raw in enumerate(_bounded(lines), 1):
                self.read = self._stream.read
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                if not raw or raw.isspace():
                    continue
                yield _row(number, raw)


def _row(number: int, raw: bytes) -> Row | Problem:
    content = raw.decode(errors="replace").rstrip("\r\n")
    place = f"line {number}"
    if len(raw) > MOST_BYTES:
        return Problem(
            place, number, f"has more than {MOST_BYTES >> 20} MiB. Each line is one document.", content[:1000]
        )
    try:
        return Row(place, number, document_of(parse_object(raw)), content)
    except ValueError as problem:
        return Problem(place, number, str(problem), content)


def _bounded(lines: IO[bytes]) -> Iterator[bytes]:
    """Yield lines, and of one that is too long its beginning alone."""
    while raw := lines.readline(MOST_BYTES + 1):
        yield raw
        while len(raw) > MOST_BYTES and not raw.endswith(b"\n") and raw:
            raw = lines.readline(MOST_BYTES + 1)

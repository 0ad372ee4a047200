"""JSON lines: Millpond's own, which `millpond export` writes, and those of a BEIR corpus."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from service.cli.documents import document_of, parse_object
from service.cli.sources.base import MOST_BYTES, Problem, Row, Source
from service.cli.streams import Stream


class Readable(Protocol):
    """What lines are read from."""

    def readline(self, size: int, /) -> bytes:
        """Return what is left of a line, or so many bytes of it."""


class JSONLines(Source):
    """A file with a JSON object a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stream = Stream(path)

    def __iter__(self) -> Iterator[Row | Problem]:
        """Read from the start."""
        with self._stream.opened() as lines:
            for number, raw in enumerate(bounded(lines), 1):
                self.read = self._stream.read
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                if not raw or raw.isspace():
                    continue
                yield _row(number, raw)


def _row(number: int, raw: bytes) -> Row | Problem:
    place, content = f"line {number}", content_of(raw)
    try:
        return Row(place, number, document_of(parse_line(raw)), content)
    except ValueError as problem:
        return Problem(place, number, str(problem), content)


def parse_line(raw: bytes) -> dict[str, Any]:
    """Parse a line, as `bounded` yields it, as a JSON object; raises `ValueError`."""
    if len(raw) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 20} MiB. Each line is one document.")
    return parse_object(raw)


def content_of(raw: bytes) -> str:
    """Return a line as what is written there, of one that is too long its beginning."""
    content = raw.decode(errors="replace").rstrip("\r\n")
    return content[:1000] if len(raw) > MOST_BYTES else content


def bounded(lines: Readable) -> Iterator[bytes]:
    """Yield lines, and of one that is too long its beginning alone."""
    while raw := lines.readline(MOST_BYTES + 1):
        rest = raw
        while len(rest) > MOST_BYTES and not rest.endswith(b"\n"):
            rest = lines.readline(MOST_BYTES + 1)
        yield raw

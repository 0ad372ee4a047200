"""What a command leaves out: counted, told, and written to a file where one is given."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import orjson

from service.cli.console import Failure, err, warn

if TYPE_CHECKING:
    from service.cli.sources import Problem, Row

_MOST_TOLD: Final = 10


def entry(row: Row | Problem, reason: str, **more: Any) -> bytes:
    """Return the line of a file of rejects for what is left out, with further members before those of each."""
    told = {**more, "line": row.number, "reason": reason, "content": row.content}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


class Rejects:
    """Documents of a source that are not stored; those without text are counted apart.

    Args:
        source: the file that they are in.
        file: where each is written, as a JSON object with its line, its reason and what is written there.
        strict: whether the first of them ends the command.
    """

    def __init__(self, source: Path, file: Path | None, *, strict: bool) -> None:
        self.refused = 0
        self.empty = 0
        self._source = source
        self._path = file
        self._file: IO[bytes] | None = None
        self.strict = strict
        self._invisible: Row | None = None
        self._invisibles = 0

    def __enter__(self) -> Self:
        if self._path is not None:
            if self._path.exists() and self._path.samefile(self._source):
                raise Failure(f"--rejects {self._path} is the file that is read. Name another one.", 2)
            try:
                self._file = self._path.open("wb")
            except OSError as error:
                raise Failure(f"--rejects {self._path}: {error.strerror}.", 2) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # it tries to write once more what it could not write, which was told
                self._file.close()

    def add(self, row: Row | Problem, reason: str) -> None:
        """Leave a document out; raises `Failure` where the first of them is to end the command."""
        self._note(row, reason)
        self.refused += 1
        if self.refused <= _MOST_TOLD:
            warn(f"{self._source}: {row.place}: {reason}")

    def skip(self, row: Row, reason: str) -> None:
        """Leave a document out whose text has nothing to embed, as `add` does."""
        self._note(row, reason)
        self.empty += 1
        if row.document["text"].strip():
            self._invisibles += 1
            if self._invisible is None or row.number < self._invisible.number:  # answers come in any order
                self._invisible = row

    def tell(self) -> None:
        """Tell of what was left out and not told yet."""
        if self.refused > _MOST_TOLD:
            warn(f"{self.refused - _MOST_TOLD} others are left out too.")
        if self.refused and self._path is None:
            err.print("--rejects FILE writes what is left out to a file, each with its reason.")
        if self._invisible:
            warn(
                f"{self._invisibles} documents are skipped, as the model knows no token of their text (invisible "
                f"characters, say); the first is in {self._invisible.place}: {self._invisible.id!r}."
            )

    def _note(self, row: Row | Problem, reason: str) -> None:
        if self.strict:
            raise Failure(f"{self._source}: {row.place}: {reason}")
        if self._file is not None:
            try:
                self._file.write(entry(row, reason))
                self._file.flush()
            except OSError as error:
                raise Failure(f"--rejects {self._path}: {error.strerror}.") from None

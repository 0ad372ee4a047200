"""What happened to each request: written by the process that sends, read by the one that reports."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

OK: Final = "ok"
BACKPRESSURE: Final = "backpressure"
FAILURE: Final = "failure"
LOOKS: Final = ("/health", "/ready")
"""The requests of who looks after the service, which are no load."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Args:
        at: when its answer was complete, in seconds of the clock.
        name: the kind of request.
        milliseconds: from sending it to the end of its answer.
        texts: how many it brought to be embedded.
        users: how many users there were by then.
        outcome: `OK`, `BACKPRESSURE` or `FAILURE`.
        detail: what was wrong; empty where nothing was.

    """

    at: float
    name: str
    milliseconds: float
    texts: int
    users: int
    outcome: str
    detail: str


class Writer:
    """Appends records to a file, each at once, so that a reader can follow and nothing is lost at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._file.write(json.dumps(time.time()) + "\n")

    def add(self, record: Record) -> None:
        """Write a record."""
        self._file.write(json.dumps(astuple(record)) + "\n")


class Reader:
    """Follows the file of a `Writer`, which may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.started: float | None = None
        """When the load began, in seconds of the clock; None before."""
        self.records: list[Record] = []

    def update(self) -> None:
        """Read what was written since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            if self.started is None:
                self.started = json.loads(line)
            else:
                self.records.append(Record(*json.loads(line)))

"""Space on disk: what a store takes, what of it is free, and how that is given back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import NoSpace

_INCREMENTAL: Final = 2
_STEP: Final = 128
"""Pages that one step gives back: some milliseconds, for which other changes wait."""
_TEMPORARY: Final = ("/var/tmp", "/usr/tmp", "/tmp")
"""Where SQLite puts temporary files, unless a variable says so."""


@dataclass(frozen=True, slots=True)
class Space:
    """The bytes that a store takes on disk, how many of them hold nothing, and whether those can be given back alone.

    In a file of an earlier release they cannot: it has to be rebuilt once.
    """

    bytes: int
    free: int
    incremental: bool


def read_space(connection: sqlite3.Connection, path: Path) -> Space:
    """Return the space of a store."""
    page, free, mode = (_pragma(connection, name) for name in ("page_size", "freelist_count", "auto_vacuum"))
    files = (path, path.with_name(f"{path.name}-wal"))
    return Space(sum(file.stat().st_size for file in files if file.exists()), page * free, mode == _INCREMENTAL)


def release(connection: sqlite3.Connection) -> bool:
    """Give some free pages at the end of the file back, moving others there first; return whether more are free."""
    connection.executescript(f"PRAGMA incremental_vacuum({_STEP})")  # `execute` would give a single page back
    return _pragma(connection, "freelist_count") > 0


def rebuild(connection: sqlite3.Connection, path: Path) -> None:
    """Write the whole file anew, without free pages and so that later ones can be given back alone.

    Readers go on meanwhile; writers wait. Raises `NoSpace`, before it begins, where the disk has no room for it.
    """
    used = _pragma(connection, "page_size") * (
        _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    )
    _require_room(path.parent, used)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("VACUUM")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Bring the log into the file and shorten both, as far as no reader is in the way."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def _require_room(folder: Path, used: int) -> None:
    """Require room for the new file in the temporary folder, and again in the log of the old one."""
    temporary = _temporary_folder()
    shared = temporary.stat().st_dev == folder.stat().st_dev
    needed = {folder: 2 * used} if shared else {folder: used, temporary: used}
    for place, most in needed.items():
        free = shutil.disk_usage(place).free
        if free < most:
            elsewhere = "" if shared else " SQLITE_TMPDIR names another folder for temporary files."
            raise NoSpace(
                f"writing the store anew takes {most / 1e6:.1f} MB of free disk in {place}, and there are "
                f"{free / 1e6:.1f} MB. Free some space; nothing was changed.{elsewhere}",
                needed=most,
                free=free,
            )


def _temporary_folder() -> Path:
    return next(folder for folder in _candidates() if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK))


def _candidates() -> Iterator[Path]:
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        if value := os.environ.get(name):
            yield Path(value)
    yield from map(Path, _TEMPORARY)
    yield Path()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)

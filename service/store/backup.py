"""Copies of a store: made while a service uses it, checked, and put back."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from service.durable import sync_folder
from service.errors import BadBackup, NoSpace
from service.store.schema import SCHEMA_VERSION
from service.store.store import BEGUN, FILE, LOCK, explained, process_lock

CHECKSUM: Final = f"{FILE}.sha256"
"""The checksum beside a copy, as `sha256sum -c` reads it."""
SNAPSHOTS: Final = "indexes"
"""The folder of what is made of a store and read faster than it; of another store it would be wrong."""
_PAGES: Final = 4096
"""Pages that are copied between two reports of progress."""
_LEFT_BY_SQLITE: Final = tuple(f"{FILE}{ending}" for ending in ("-wal", "-shm", "-journal"))

Advance = Callable[[int, int], object]
"""Called with the pages that are copied, and with all."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The bytes of a copy, and its SHA-256 in hex digits."""

    bytes: int
    sha256: str


def back_up(store: Path, destination: Path, advance: Advance = lambda done, total: None) -> Copied:
    """Copy a store, which may be in use, into a new folder: all that is committed now, and nothing of what follows.

    The folder appears once the copy is whole, checked and on disk.

    Raises:
        BadBackup: there is no store, or the folder cannot be its copy's.
        NoSpace: the disk has no room for it.
        StoreUnavailable: the store cannot be read, or the copy not be written.
    """
    if not (store / FILE).is_file():
        raise BadBackup(f"{store} holds no store: there is no {store / FILE}.")
    _require_free(destination, store)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        copied = _copy(store / FILE, partial / FILE, advance)
        _write_durably(partial / CHECKSUM, f"{copied.sha256}  {FILE}\n")
        sync_folder(partial)
        partial.rename(destination)
        sync_folder(destination.parent)
    except OSError as error:
        raise _unwritable(destination, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copied


def restore(backup: Path, store: Path, *, force: bool = False, advance: Advance = lambda done, total: None) -> Copied:
    """Put a copy back as a store; with `force` in place of the one that is there, which is lost.

    Whatever goes wrong before the copy is whole leaves the folder as it was.

    Raises:
        BadBackup: there is no copy, it is damaged, or the folder is not empty.
        NoSpace: the disk has no room for it beside what is there.
        StoreUnavailable: a service has the store open, or a file cannot be read or written.
    """
    _check_sum(backup)
    if backup.resolve() == store.resolve():
        raise BadBackup(f"{store} is the backup itself. Name the folder of the store.")
    names = {entry.name for entry in store.iterdir()} if store.is_dir() else set()
    present = {name for name in names if name != LOCK and not name.startswith(BEGUN)}
    if present and not force:
        what = "a store" if FILE in present else "files"
        raise BadBackup(f"{store} holds {what}. Name an empty folder, or give --force to replace a store.")
    if present and FILE not in present:
        raise BadBackup(f"{store} holds files that are no store, which is never replaced. Name another folder.")
    with _locked(store):
        fresh = store / f"{FILE}.restored"
        try:
            copied = _copy(backup / FILE, fresh, advance)
            if FILE in present:
                _settle(store)
            fresh.replace(store / FILE)
            sync_folder(store)
        except OSError as error:
            raise _unwritable(store, error) from error
        finally:
            for left in (fresh, *(Path(f"{fresh}{ending}") for ending in ("-wal", "-shm", "-journal"))):
                left.unlink(missing_ok=True)
    return copied


def _copy(source: Path, target: Path, advance: Advance) -> Copied:
    """Copy the database as it is at this moment, check it, and bring it to the disk."""
    with explained(source), closing(_reading(source)) as old:
        old.execute("BEGIN")  # others may write to it: this fixes what is read
        (version,) = old.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in old.execute("SELECT name FROM sqlite_schema")}
        if "collections" not in tables or not 1 <= version <= SCHEMA_VERSION:
            raise BadBackup(f"{source} is no store that this version of Millpond can read.")
        (pages,), (page) = old.execute("PRAGMA page_count").fetchone(), old.execute("PRAGMA page_size").fetchone()[0]
        if (free := shutil.disk_usage(target.parent).free) < pages * page:
            raise NoSpace(
                f"the copy has {pages * page / 1e6:.1f} MB, and {target.parent} has {free / 1e6:.1f} MB free. Free "
                "some space or choose another disk; nothing was written.",
                needed=pages * page,
                free=free,
            )
        with explained(target), closing(sqlite3.connect(target, isolation_level=None)) as new:
            new.execute("PRAGMA synchronous = OFF")  # the file is synchronized once, below
            old.backup(new, pages=_PAGES, progress=lambda _, left, total: advance(total - left, total))
            new.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
            found = [line for (line,) in new.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        raise BadBackup(f"{source} is damaged: {found[0]}. Keep an earlier backup.")
    with target.open("rb") as file:
        os.fsync(file.fileno())
        return Copied(target.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _reading(file: Path) -> sqlite3.Connection:
    """Open a database to read it only, beside others who use it, or on a disk that cannot be written."""
    uri = f"file:{quote(str(file.resolve()))}"
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if file.with_name(f"{FILE}-wal").exists():
            raise
        return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return connection


def _check_sum(backup: Path) -> None:
    if not (backup / FILE).is_file():
        raise BadBackup(f"{backup} holds no backup: there is no {backup / FILE}.")
    try:
        expected = (backup / CHECKSUM).read_text().split()
    except (OSError, UnicodeDecodeError):
        return  # a folder that was copied by other means; what is in it is checked all the same
    with (backup / FILE).open("rb") as file:
        if expected[:1] != [hashlib.file_digest(file, "sha256").hexdigest()]:
            raise BadBackup(
                f"{backup / FILE} is not what {CHECKSUM} says: it is damaged, or was served. Use another."
            )


def _require_free(destination: Path, store: Path) -> None:
    """Require that a destination is a folder to be made, or an empty one, and not the store's."""
    if destination.resolve() == store.resolve():
        raise BadBackup(f"{destination} is the store itself. Name another folder.")
    if store.resolve() in destination.resolve().parents:
        raise BadBackup(f"{destination} lies in the store's folder. Name a folder outside of it.")
    if destination.is_dir():
        if (destination / FILE).exists():
            raise BadBackup(
                f"{destination} holds a store or a backup already. Name another folder, or delete it first."
            )
        if any(destination.iterdir()):
            raise BadBackup(f"{destination} is not empty. Name a folder that is, or one to be made.")
    elif destination.exists():
        raise BadBackup(f"{destination} is a file. Name a folder.")


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    lock = process_lock(store)
    try:
        yield
    finally:
        os.close(lock)


def _settle(store: Path) -> None:
    """Bring a store's log into its file, and leave nothing beside it that would be read as the next file's."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(store / FILE, isolation_level=None)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for name in _LEFT_BY_SQLITE:
        (store / name).unlink(missing_ok=True)
    shutil.rmtree(store / SNAPSHOTS, ignore_errors=True)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _unwritable(folder: Path, error: OSError) -> BadBackup:
    return BadBackup(f"{folder}: {error.strerror or error}. Choose a folder that this user can write in.")

"""The durable half: one SQLite file that holds every collection, its documents and their vectors."""

import fcntl
import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.collections.document import Document
from service.collections.errors import StoreUnavailable
from service.collections.index import Keys, Vectors

SCHEMA_VERSION = 1
# Keys are never used twice (AUTOINCREMENT): what an index says of a key is true of one version of a document.
# The vector comes last, so that reading metadata for a filter does not drag it from the disk.
_SCHEMA = (
    """
    CREATE TABLE collections (
        key        INTEGER PRIMARY KEY AUTOINCREMENT,
        name       TEXT NOT NULL UNIQUE,
        definition TEXT NOT NULL,
        dim        INTEGER NOT NULL,
        index_kind TEXT NOT NULL,
        created    TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE documents (
        key        INTEGER PRIMARY KEY AUTOINCREMENT,
        collection INTEGER NOT NULL REFERENCES collections(key) ON DELETE CASCADE,
        id         TEXT NOT NULL,
        text       TEXT NOT NULL,
        metadata   TEXT NOT NULL,
        vector     BLOB NOT NULL,
        UNIQUE (collection, id)
    ) STRICT
    """,
    "CREATE INDEX documents_in_order ON documents (collection, key)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_BLOCK = 4096  # rows

_REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space. Nothing stored was lost",
    sqlite3.SQLITE_IOERR: "The disk refused (full, over quota or failing). Nothing stored before was lost",
    sqlite3.SQLITE_READONLY: "Make the folder and its files writable for this user",
    sqlite3.SQLITE_CANTOPEN: "Make the folder and its files readable and writable for this user",
    sqlite3.SQLITE_NOTADB: "Restore the file from a backup, or move it away and index the documents again",
    sqlite3.SQLITE_CORRUPT: "Restore the file from a backup, or move it away and index the documents again",
    sqlite3.SQLITE_BUSY: "Another program holds the database: close it",
}


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A row of the table of collections."""

    key: int
    name: str
    definition: dict[str, Any]
    dim: int
    index_kind: str
    created: datetime


class Transaction:
    """Changes that become durable together, by `commit`, or not at all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create(self, name: str, definition: dict[str, Any], dim: int, index_kind: str) -> CollectionRow:
        """Insert a collection under a name that must be free."""
        created = datetime.now(UTC)
        encoded = json.dumps(definition)
        cursor = self._connection.execute(
            "INSERT INTO collections (name, definition, dim, index_kind, created) VALUES (?, ?, ?, ?, ?)",
            (name, encoded, dim, index_kind, created.isoformat()),
        )
        assert cursor.lastrowid is not None
        return CollectionRow(cursor.lastrowid, name, json.loads(encoded), dim, index_kind, created)

    def drop(self, collection: int) -> None:
        """Delete a collection and all its documents."""
        self._connection.execute("DELETE FROM collections WHERE key = ?", (collection,))

    def put(self, collection: int, rows: Sequence[tuple[str, str, str]], vectors: Vectors) -> tuple[Keys, Keys]:
        """Store rows of (id, text, metadata) with their vectors, in place of those with the same ids.

        Returns the keys of the replaced rows and the keys of the new ones, in order.
        """
        replaced = self._delete(collection, [row[0] for row in rows])
        keys = [
            self._connection.execute(
                "INSERT INTO documents (collection, id, text, metadata, vector) VALUES (?, ?, ?, ?, ?)",
                (collection, *row, vector.astype("<f4").tobytes()),
            ).lastrowid
            for row, vector in zip(rows, vectors, strict=True)
        ]
        return replaced, np.array(keys, np.int64)

    def delete(self, collection: int, document_id: str) -> Keys:
        """Delete a document; returns its key, or nothing if there was none."""
        return self._delete(collection, [document_id])

    def commit(self) -> None:
        """Make the changes durable: once this returns, no crash undoes them."""
        self._connection.execute("COMMIT")

    def _delete(self, collection: int, ids: list[str]) -> Keys:
        rows = self._connection.execute(
            "DELETE FROM documents WHERE collection = ? AND id IN (SELECT value FROM json_each(?)) RETURNING key",
            (collection, json.dumps(ids, ensure_ascii=False)),
        ).fetchall()
        return np.array([key for (key,) in rows], np.int64)


class Store:
    """The file `millpond.sqlite3` in a folder, held by one process; every method is thread-safe.

    Reads run beside each other and beside the one write under way, each on a connection of its own.
    Raises `StoreUnavailable` from every method when the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "millpond.sqlite3"
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._write_lock = Lock()
        self._closed = False
        with ExitStack() as opened:
            opened.callback(os.close, _process_lock(folder))
            with self._explained():
                self._writer = self._connect()
                opened.callback(self._writer.close)
                self._prepare()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Wait for the write under way, close the file and let other processes have it."""
        with self._write_lock:
            self._closed = True
            self._close_idle_readers()
            self._opened.close()

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Begin a transaction; whatever leaves the block without a commit is rolled back."""
        with self._write_lock, self._explained():
            self._require_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._writer)
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def collections(self) -> list[CollectionRow]:
        """Return every collection."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, name, definition, dim, index_kind, created FROM collections ORDER BY key"
            ).fetchall()
        return [
            CollectionRow(key, name, json.loads(definition), dim, kind, datetime.fromisoformat(created))
            for key, name, definition, dim, kind, created in rows
        ]

    def vectors(self, collection: int, dim: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield a collection's keys (n,), ascending, and vectors (n, dim) in blocks."""
        with self._reading() as connection:
            cursor = connection.execute(
                "SELECT key, vector FROM documents WHERE collection = ? ORDER BY key", (collection,)
            )
            while rows := cursor.fetchmany(_BLOCK):
                if any(len(vector) != 4 * dim for _, vector in rows):
                    raise StoreUnavailable(
                        f"{self._path}: a stored vector does not have its collection's {dim} numbers. "
                        f"{_REMEDIES[sqlite3.SQLITE_CORRUPT]}."
                    )
                block = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(-1, dim)
                yield np.array([key for key, _ in rows], np.int64), block.astype(np.float32)

    def matching(self, collection: int, condition: str, parameters: Sequence[str | int]) -> Keys:
        """Return the keys, ascending, of the documents whose metadata meet a compiled filter."""
        with self._reading() as connection:
            cursor = connection.execute(
                f"SELECT key FROM documents WHERE collection = ? AND {condition} ORDER BY key",
                (collection, *parameters),
            )
            return np.fromiter((key for (key,) in cursor), np.int64)

    def by_keys(self, keys: NDArray[np.int64]) -> dict[int, Document]:
        """Return the documents stored under these keys."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, id, text, metadata FROM documents WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(keys.tolist()),),
            ).fetchall()
        return {key: Document(document_id, text, json.loads(metadata)) for key, document_id, text, metadata in rows}

    def by_ids(self, collection: int, ids: Sequence[str]) -> dict[str, Document]:
        """Return those of a collection's documents that have these ids."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, text, metadata FROM documents "
                "WHERE collection = ? AND id IN (SELECT value FROM json_each(?))",
                (collection, json.dumps(ids, ensure_ascii=False)),
            ).fetchall()
        return {
            document_id: Document(document_id, text, json.loads(metadata)) for document_id, text, metadata in rows
        }

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._require_open()
        with self._explained():
            try:
                connection = self._idle_readers.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                self._idle_readers.append(connection)
                if self._closed:
                    self._close_idle_readers()

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: transactions begin and end where the code says so, not where the module guesses.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self) -> None:
        """Check that the file is ours and of a schema we know; lay out a new one."""
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path} was written by a newer Millpond "
                f"(schema {version}; this one knows {SCHEMA_VERSION}). "
                "Upgrade Millpond, or choose another folder."
            )
        if version == 0 and tables:
            raise StoreUnavailable(f"{self._path} holds tables of another program. Choose another folder.")
        (mode,) = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(
                f"{self._path}: the file system cannot keep a write-ahead log. Put the store on a local disk."
            )
        if version == 0:
            self._writer.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._writer.execute(statement)
            self._writer.execute("COMMIT")

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self._path}: the store is closed. Open it again.")

    def _close_idle_readers(self) -> None:
        while self._idle_readers:
            self._idle_readers.pop().close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into `StoreUnavailable` with the file and a remedy."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest is detail
            remedy = _REMEDIES.get(code, "See SQLite's documentation of this error")
            raise StoreUnavailable(f"{self._path}: {error}. {remedy}.") from error


def _process_lock(folder: Path) -> int:
    """Take the folder for this process; the kernel lets go of it however the process ends."""
    path = folder / "millpond.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreUnavailable(
            f"store folder {folder}: {error.strerror} ({error.filename}). "
            "Choose a folder that this user can create and write in."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            reason = "another process has this store open. Stop it, or choose another folder."
        else:
            reason = f"{error.strerror}. Put the store on a disk that supports locks."
        raise StoreUnavailable(f"{path}: {reason}") from error
    return descriptor

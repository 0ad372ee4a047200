"""One SQLite file that holds every collection, its documents and their vectors."""

import errno
import fcntl
import json
import os
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock, local
from typing import Any, Final, TypeVar

import numpy as np

from service.arrays import Floats, Keys, Vectors
from service.durable import sync_folder
from service.errors import StoreDamaged, StoreUnavailable
from service.observation import DURATIONS, Histogram
from service.store import keyword, space
from service.store.damage import damaged, decoded, numbers
from service.store.document import Document, Stored, decoded_spans
from service.store.filters import Filter
from service.store.metadata import Selection
from service.store.schema import begin, prepare
from service.store.space import Space
from service.store.tokenizers import TOKENIZERS
from service.store.transaction import (
    UNBUILT,
    CollectionRow,
    RebuildRow,
    SharedTransaction,
    Transaction,
    read_keys,
    read_keys_of,
    read_rebuild,
    read_vectors,
    read_version,
)

T = TypeVar("T")
LOCK: Final = "millpond.lock"
FILE: Final = "millpond.sqlite3"
"""The file of a store, in its folder."""
BEGUN: Final = f"{FILE}.begun"
"""The file of a store until it has its first page."""
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space. Nothing stored was lost",
    sqlite3.SQLITE_IOERR: "The disk refused (full, over quota or failing). Nothing stored before was lost",
    sqlite3.SQLITE_READONLY: "Make the folder and its files writable for this user",
    sqlite3.SQLITE_CANTOPEN: "Make the folder and its files readable and writable for this user",
    sqlite3.SQLITE_NOTADB: "Restore the file from a backup, or move it away and index the documents again",
    sqlite3.SQLITE_CORRUPT: "Restore the file from a backup, or move it away and index the documents again",
    sqlite3.SQLITE_BUSY: "Another program holds the database: close it",
}
_MOST_PAGES: Final = 1000
"""Pages in the log after which it is brought into the file, as SQLite has it by default."""
_FOLDER_REMEDIES: Final = {
    errno.EROFS: "Mount it writable, or copy the store to a disk that is: `millpond backup` reads it as it is",
    errno.ENOSPC: "The disk is full: free some space. Nothing stored was lost",
    errno.EDQUOT: "The quota is used up: free some space. Nothing stored was lost",
}
_DOCUMENTS: Final = "SELECT key, id, text, metadata, spans FROM documents LEFT JOIN chunks ON chunks.document = key"

_EXPORTED: Final = _DOCUMENTS.replace("spans FROM", "spans, vector FROM")


class Store:
    """The file `millpond.sqlite3` in a folder, which one process can have open; every method is thread-safe.

    Reads run concurrently with each other and with the one write in progress, each on a connection of its own. Every
    method raises `StoreUnavailable` where the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._pinned = local()
        self._write_lock = Lock()
        self._closed = False
        self._log_index: int | None = None
        self.commits = Histogram(DURATIONS)
        """Seconds that each commit took."""
        with ExitStack() as opened:
            opened.callback(os.close, process_lock(folder))
            opened.callback(self._close_log_index)  # after the last connection, see `_checkpoint`
            with self._explained():
                self._require_content()
                self._writer = self._connect(self._path)
                opened.callback(self._writer.close)
                prepare(self._writer, self._path)
                self._writer.execute("PRAGMA wal_autocheckpoint = 0")  # `_checkpoint` has its place
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Wait for the write in progress, close the file and release the folder to other processes."""
        with self._write_lock:
            self._closed = True
            self._close_idle_readers()
            self._opened.close()

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Begin a transaction, which is rolled back where the block ends without a commit.

        What this thread reads within the block has the changes so far. Within `sharing`, it is a part of that one.
        """
        shared: SharedTransaction | None = getattr(self._pinned, "shared", None)
        if shared is None:
            with self._beginning():
                yield Transaction(self._writer, self.commits)
        else:
            with self._explained(), shared.part() as part:
                yield part

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Let all transactions that this thread begins within the block become durable together at its end."""
        with self._beginning():
            self._pinned.shared = shared = SharedTransaction(self._writer, self.commits)
            try:
                yield
                shared.commit()
            finally:
                self._pinned.shared = None

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        with self._write_lock, self._explained():
            self._require_open()
            self._writer.execute("BEGIN IMMEDIATE")
            outer = getattr(self._pinned, "connection", None)
            self._pinned.connection = self._writer
            try:
                yield
            finally:
                self._pinned.connection = outer
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                self._checkpoint()

    def _checkpoint(self) -> None:
        """Bring the log into the file once it is long; SQLite would do it in a commit, which is to be short."""
        with suppress(sqlite3.Error, OSError, struct.error):  # nothing is lost, and there will be another
            if self._log_index is None:
                # Kept open: whoever closes a file loses the locks of its process on it, those of SQLite too, and then
                # a process that makes a backup would take the index for nobody's, and cut it under this one.
                self._log_index = os.open(self._path.with_name(f"{FILE}-shm"), os.O_RDONLY)
            header = os.pread(self._log_index, 100, 0)
            # The log's index: pages in the log, and how many of them are in the file (sqlite.org/walformat.html).
            (pages,), (copied,) = struct.unpack_from("=I", header, 16), struct.unpack_from("=I", header, 96)
            if pages - copied >= _MOST_PAGES:
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _close_log_index(self) -> None:
        if self._log_index is not None:
            os.close(self._log_index)

    @contextmanager
    def snapshot(self, collection: int) -> Iterator[int | None]:
        """Let whatever this thread reads within the block see the store as it is at its beginning.

        Within a transaction of this thread, it sees that. Yields how many changes of its vectors a collection has
        seen, None where there is no such collection.
        """
        if getattr(self._pinned, "connection", None) is self._writer:
            yield read_version(self._writer, collection)
            return
        with self._explained(), self._connection() as connection:
            connection.execute("BEGIN")
            outer = getattr(self._pinned, "connection", None)
            try:
                version = read_version(connection, collection)  # the first read decides
                self._pinned.connection = connection
                yield version
            finally:
                self._pinned.connection = outer
                connection.execute("ROLLBACK")

    def space(self) -> Space:
        """Return the space that the store takes, and what of it is free."""
        with self._reading() as connection:
            return space.read_space(connection, self._path)

    def release(self) -> bool:
        """Give some of the free space back to the disk, in a few milliseconds; return whether there is more."""
        return self._maintaining(space.release)

    def checkpoint(self) -> None:
        """Bring the log of changes into the file and shorten both, as far as no reader is in the way."""
        self._maintaining(space.checkpoint)

    def rebuild_file(self) -> None:
        """Write the whole file anew without free space; no change is made meanwhile. Raises `NoSpace`."""
        self._maintaining(partial(space.rebuild, path=self._path))

    def _maintaining(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._write_lock, self._explained():
            self._require_open()
            return work(self._writer)

    def collections(self) -> list[CollectionRow]:
        """Return every collection."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, name, definition, dim, index_kind, created, recall, snapshot, tokenizer, idle_timeout "
                "FROM collections LEFT JOIN keywords ON collection = key ORDER BY key"
            ).fetchall()
            return [_collection(row) for row in rows]

    def vectors(self, collection: int, dim: int, after: int = 0) -> Generator[tuple[Keys, Vectors], None, None]:
        """Yield the vectors (n, dim) of a collection and the key of each (n,), in blocks, by ascending key.

        They are those of keys above `after`.
        """
        with self._reading() as connection:
            yield from read_vectors(connection, collection, dim, after)

    def matching(self, collection: int, filter_: Filter, everything: Callable[[], Keys] | None = None) -> Keys:
        """Return the keys, ascending, of the documents that match a filter, and leave its warnings in it.

        `everything` returns those of all documents, where that is known.
        """
        with self._reading_as_it_is() as connection:
            selection = Selection(connection, collection, everything)
            filter_.warnings = selection.warnings(filter_.condition)
            return selection.keys(filter_.condition)

    def documents(self, collection: int) -> Iterator[Document]:
        """Yield the documents of a collection, in the order of storing."""
        with self._reading() as connection:
            for row in connection.execute(f"{_DOCUMENTS} WHERE collection = ? ORDER BY key", (collection,)):
                yield _document(row)[1]

    def exported(self, collection: int) -> Iterator[tuple[dict[str, Any], Document, Vectors]]:
        """Yield the definition of a collection with each document and its numbers, all in one row, as of one moment.

        Others may write meanwhile; the log of changes grows until it ends or is closed.
        """
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                found = connection.execute(
                    "SELECT definition FROM collections WHERE key = ?", (collection,)
                ).fetchone()
                definition = decoded(found[0], f"the definition of collection {collection}") if found else {}
                for *row, vector in connection.execute(
                    f"{_EXPORTED} WHERE collection = ? ORDER BY key", (collection,)
                ):
                    _, document = _document(tuple(row))
                    yield definition, document, _vectors(vector, document).ravel()
            finally:
                connection.execute("ROLLBACK")

    def by_keys(self, keys: Keys) -> dict[int, Document]:
        """Return the documents with these keys, which there are, by key."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{_DOCUMENTS} WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(keys.tolist()),)
            ).fetchall()
            if len(rows) != len(keys):
                raise damaged(f"{len(keys) - len(rows)} documents that an index has are missing")
            return dict(map(_document, rows))

    def by_ids(self, collection: int, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents of a collection with these ids, by id."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{_DOCUMENTS} WHERE collection = ? AND id IN (SELECT value FROM json_each(?))",
                (collection, json.dumps(ids, ensure_ascii=False)),
            ).fetchall()
            return {document.id: document for _, document in map(_document, rows)}

    def has_keywords(self, collection: int) -> bool:
        """Return whether a collection's texts can be searched by terms now."""
        with self._reading() as connection:
            return keyword.current(connection, collection)

    def by_terms(
        self, collection: int, terms: Sequence[str], k: int, allowed: Keys | None = None
    ) -> tuple[Keys, Floats]:
        """Return the keys and BM25 scores of the best documents that have any of the terms; see `keyword.search`."""
        with self._reading() as connection:
            return keyword.search(connection, collection, terms, k, allowed)

    def vectors_at(self, dim: int, places: Sequence[tuple[int, int | None]]) -> list[Vectors | None]:
        """Return the vectors (n, dim) at places, which are a document's key and the ordinal of one or None for all.

        None stands for a document that there is no more.
        """
        width = 4 * dim
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT CASE WHEN json_extract(place.value, '$[1]') IS NULL THEN vector "
                "ELSE substr(vector, 1 + ? * json_extract(place.value, '$[1]'), ?) END "
                "FROM json_each(?) AS place LEFT JOIN documents ON documents.key = json_extract(place.value, '$[0]') "
                "ORDER BY place.key",
                (width, width, json.dumps(places)),
            ).fetchall()
            return [None if own is None else numbers(own, len(own) // width, "a vector") for (own,) in rows]

    def keys(self, collection: int, after: int = 0, most: int = -1) -> Keys:
        """Return the keys of a collection above `after`, ascending, the first `most` or all."""
        with self._reading() as connection:
            return read_keys(connection, collection, after, most)

    def keys_of(self, collection: int, ids: Sequence[str]) -> dict[str, int]:
        """Return the keys of a collection's documents with these ids, by id."""
        with self._reading() as connection:
            return read_keys_of(connection, collection, ids)

    def read(self, keys: Keys, most: int, *, vectors: bool) -> list[tuple[int, Stored]]:
        """Return the documents with these keys, each with its own, by ascending key, and with `vectors` theirs.

        None follow after their texts, metadata and vectors have reached `most` bytes, by and large.
        """
        found: list[tuple[int, Stored]] = []
        columns = f"key, id, text, metadata, spans, {'vector' if vectors else 'NULL'}"
        with self._reading() as connection:
            for *row, vector in connection.execute(
                f"SELECT {columns} FROM documents LEFT JOIN chunks ON chunks.document = key "
                "WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key",
                (json.dumps(keys.tolist()),),
            ):
                key, document = _document(tuple(row))
                own = None if vector is None else _vectors(vector, document)
                found.append((key, Stored(document, own)))
                most -= len(document.text) + len(row[3]) + len(vector or b"")
                if most <= 0:
                    break
        return found

    def version(self, collection: int) -> int | None:
        """Return how many changes of its vectors a collection has seen, None where there is no such collection."""
        with self._reading() as connection:
            return read_version(connection, collection)

    def aliases(self) -> list[tuple[str, int]]:
        """Return every alias and the key of the collection that it stands for."""
        with self._reading() as connection:
            return connection.execute("SELECT name, collection FROM aliases").fetchall()

    def stored_bytes(self, collection: int) -> int:
        """Return the bytes of the texts, metadata and vectors of a collection."""
        with self._reading() as connection:
            (size,) = connection.execute("SELECT bytes FROM collections WHERE key = ?", (collection,)).fetchone()
        return int(size)

    def vectors_by_ids(self, collection: int, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the stored numbers of documents of a collection, all in one row, by id."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, vector FROM documents WHERE collection = ? AND id IN (SELECT value FROM json_each(?))",
                (collection, json.dumps(ids, ensure_ascii=False)),
            ).fetchall()
            return {id_: numbers(vector, 1, f"the vector of {id_!r}").ravel() for id_, vector in rows}

    def precisions(self, collection: int) -> list[str]:
        """Return in which precisions the vectors of a collection were made, as far as that was noted."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT precision FROM precisions WHERE collection = ? AND rebuilt = 0 ORDER BY precision",
                (collection,),
            ).fetchall()
        return [precision for (precision,) in rows]

    def rebuild(self, collection: int) -> RebuildRow | None:
        """Return the rebuild of a collection, if there is one."""
        with self._reading() as connection:
            return read_rebuild(connection, collection)

    def unbuilt(self, collection: int, after: int, most: int, characters: int) -> list[tuple[int, Document]]:
        """Return the next documents that a rebuild has no vectors for, with their keys, which are above `after`.

        There are at most `most` of them, and none after their texts have reached so many characters.
        """
        found: list[tuple[int, Document]] = []
        with self._reading() as connection:
            for row in connection.execute(
                f"{_DOCUMENTS} WHERE {UNBUILT} AND key > ? ORDER BY key LIMIT ?", (collection, after, most)
            ):
                found.append(_document(row))
                characters -= len(found[-1][1].text)
                if characters <= 0:
                    break
        return found

    def count_unbuilt(self, collection: int) -> int:
        """Return the number of a collection's documents that a rebuild has no vectors for."""
        with self._reading() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM documents WHERE {UNBUILT}", (collection,)).fetchone()
        return int(count)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._require_open()
        with self._explained(), ExitStack() as until_read:
            pinned: sqlite3.Connection | None = getattr(self._pinned, "connection", None)
            yield pinned or until_read.enter_context(self._connection())

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self._require_open()
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = self._connect(self._path)
        try:
            yield connection
        finally:
            self._idle_readers.append(connection)
            if self._closed:
                self._close_idle_readers()

    @contextmanager
    def _reading_as_it_is(self) -> Iterator[sqlite3.Connection]:
        """Read with several statements what is stored at one moment."""
        with self._reading() as connection:
            begun = not connection.in_transaction  # by `snapshot`
            if begun:
                connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if begun and connection.in_transaction:
                    connection.execute("COMMIT")

    def _require_content(self) -> None:
        """Begin the file where there is none; raises `StoreDamaged` where it has no bytes.

        SQLite takes such a file for a new database, and throws away the log beside it. None that was made here is
        without a byte at any moment: it gets its name with its first page.
        """
        with suppress(OSError):  # which SQLite tells
            if self._path.stat().st_size:
                return
            raise StoreDamaged(
                f"{self._path} has 0 bytes, which no store has: its content was lost. Restore the file from a "
                "backup, or move it away, with the files that begin with its name, and index the documents again."
            )
        if os.path.lexists(self._path):  # and cannot be read
            return
        begun = self._path.with_name(BEGUN)
        try:
            for ending in ("", "-journal", "-wal", "-shm"):
                begun.with_name(f"{BEGUN}{ending}").unlink(missing_ok=True)  # of a process that was killed
            with closing(self._connect(begun)) as connection:
                begin(connection, self._path)
            begun.rename(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise _unusable(self._path.parent, error) from error

    def _connect(self, path: Path) -> sqlite3.Connection:
        # Autocommit, so that transactions begin and end only where the code says so.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("casefold", 1, str.casefold, deterministic=True)
        return connection

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self._path}: the store is closed. Open it again.")

    def _close_idle_readers(self) -> None:
        while self._idle_readers:
            self._idle_readers.pop().close()

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `StoreUnavailable`, naming the file and a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extended part
        if "decode to UTF-8" in str(error):  # Python's own, of a text that is none
            code = sqlite3.SQLITE_CORRUPT
        remedy = _REMEDIES.get(code, "See SQLite's documentation of this error")
        kind = StoreDamaged if code == sqlite3.SQLITE_CORRUPT else StoreUnavailable
        raise kind(f"{path}: {error}. {remedy}.") from error


def _document(row: tuple[Any, ...]) -> tuple[int, Document]:
    key, document_id, text, metadata, spans = row
    what = f"document {key}"
    if not (isinstance(document_id, str) and isinstance(text, str)):
        raise damaged(f"{what} cannot be read")
    try:
        return key, Document(document_id, text, decoded(metadata, what), decoded_spans(spans))
    except (TypeError, ValueError):
        raise damaged(f"{what} cannot be read") from None


def _collection(row: tuple[Any, ...]) -> CollectionRow:
    key, name, definition, dim, kind, created, recall, snapshot, tokenizer, idle_timeout = row
    what = f"collection {key}"
    try:
        return CollectionRow(
            *(key, name, decoded(definition, what), dim, kind, datetime.fromisoformat(created), recall, snapshot),
            None if tokenizer is None else TOKENIZERS[tokenizer],
            idle_timeout,
        )
    except (KeyError, TypeError, ValueError):
        raise damaged(f"{what} cannot be read") from None


def _vectors(stored: bytes, document: Document) -> Vectors:
    count = 1 if document.spans is None else len(document.spans)
    return numbers(stored, count, f"the vector of {document.id!r}").astype(np.float32)


def process_lock(folder: Path) -> int:
    """Lock the folder until the descriptor is closed; the kernel releases it however the process ends."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(folder, error) from error
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


def _unusable(folder: Path, error: OSError) -> StoreUnavailable:
    remedy = _FOLDER_REMEDIES.get(error.errno or 0, "Choose a folder that this user can create and write in")
    return StoreUnavailable(f"store folder {folder}: {error.strerror} ({error.filename}). {remedy}.")

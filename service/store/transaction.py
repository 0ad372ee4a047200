"""Changes to the store that become durable together, and what they share with reads."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np

from service.arrays import Keys, Vectors
from service.observation import Histogram
from service.store import keyword
from service.store.damage import damaged, decoded
from service.store.document import ValidatedVectors, encoded_spans
from service.store.metadata import index_metadata
from service.store.tokenizers import UNICODE61, Tokenizer

UNBUILT: Final = "collection = ? AND NOT EXISTS (SELECT * FROM rebuilt WHERE document = documents.key)"
"""Condition for the documents of a collection that its rebuild has no vectors for."""
_OF_COLLECTION: Final = "SELECT key FROM documents WHERE collection = ?"
_BYTES: Final = "length(CAST(text AS BLOB)) + length(CAST(metadata AS BLOB)) + length(vector)"
"""The bytes of a row of `documents`."""
_BLOCK: Final = 1 << 23
"""Bytes of vectors that are read as one block."""


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A row of the table `collections`; `definition` is any JSON object."""

    key: int
    name: str
    definition: dict[str, Any]
    dim: int
    index_kind: str
    created: datetime
    recall: float | None = None
    """What is asked of an index that approximates; None for the kind's own."""
    snapshot: str | None = None
    """The file with the snapshot of the index, if there is one."""
    tokenizer: Tokenizer | None = None
    idle_timeout: int | None = None
    """Seconds without use after which it is dropped; None: never."""


@dataclass(frozen=True, slots=True)
class RebuildRow:
    """A row of the table `rebuilds`: the definition and the dimension that a collection is to have."""

    definition: dict[str, Any]
    dim: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction does to the vectors of a collection: the keys it removes, and the vectors it adds."""

    removed: Keys
    added: Keys
    vectors: Vectors


class Publisher(Protocol):
    """What shows readers the changes of committed transactions."""

    def publishing(self, changes: Sequence[Change]) -> AbstractContextManager[None]:
        """Show readers some changes as one step with the commit that is done in the block, if that succeeds."""


class Transaction:
    """Changes that become durable together, by `commit`, or not at all; `commits` is told the seconds of that."""

    def __init__(self, connection: sqlite3.Connection, commits: Histogram) -> None:
        self._connection = connection
        self._commits = commits

    def create(
        self,
        name: str,
        definition: dict[str, Any],
        dim: int,
        index_kind: str,
        recall: float | None = None,
        tokenizer: Tokenizer | None = UNICODE61,
        idle_timeout: int | None = None,
    ) -> CollectionRow:
        """Insert a collection whose name is not taken; without a tokenizer it has no keyword index."""
        created = datetime.now(UTC)
        encoded = json.dumps(definition)
        cursor = self._connection.execute(
            "INSERT INTO collections (name, definition, dim, index_kind, created, recall, idle_timeout) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, encoded, dim, index_kind, created.isoformat(), recall, idle_timeout),
        )
        assert cursor.lastrowid is not None
        if tokenizer is not None:
            keyword.create(self._connection, cursor.lastrowid, tokenizer)
        return CollectionRow(
            *(cursor.lastrowid, name, json.loads(encoded), dim, index_kind, created, recall, None, tokenizer),
            idle_timeout,
        )

    def redefine(self, row: CollectionRow, definition: dict[str, Any]) -> CollectionRow:
        """Store another definition of a collection, and leave its vectors alone."""
        encoded = json.dumps(definition)
        self._connection.execute("UPDATE collections SET definition = ? WHERE key = ?", (encoded, row.key))
        return replace(row, definition=json.loads(encoded))

    def drop(self, collection: int) -> None:
        """Delete a collection and all its documents."""
        keyword.drop(self._connection, collection)
        self._connection.execute("DELETE FROM collections WHERE key = ?", (collection,))

    def put(
        self, collection: int, rows: Sequence[tuple[str, str, str]], vectors: ValidatedVectors
    ) -> tuple[Keys, Keys]:
        """Store rows of (id, text, metadata) with their vectors, replacing those with the same ids.

        Returns the keys of the replaced rows, and the keys of the new ones in order.
        """
        replaced = self._delete(collection, *_with_ids(collection, [row[0] for row in rows]))
        keys: list[int] = []
        for row, (own, spans) in zip(rows, vectors, strict=True):
            key = self._connection.execute(
                "INSERT INTO documents (collection, id, text, metadata, vector) VALUES (?, ?, ?, ?, ?)",
                (collection, *row, _stored(own)),
            ).lastrowid
            assert key is not None
            if spans is not None:
                self._connection.execute("INSERT INTO chunks VALUES (?, ?)", (key, encoded_spans(spans)))
            keys.append(key)
        index_metadata(self._connection)
        keyword.add(self._connection, collection, [(key, text) for key, (_, text, _) in zip(keys, rows, strict=True)])
        texts = sum(len(text.encode()) + len(metadata.encode()) for _, text, metadata in rows)
        self._changed(collection, texts + vectors.vectors.nbytes)
        return replaced, np.array(keys, np.int64)

    def delete(self, collection: int, document_id: str) -> Keys:
        """Delete a document; returns its key, or no key where there is no such document."""
        return self._delete(collection, *_with_ids(collection, [document_id]))

    def rename(self, row: CollectionRow, name: str) -> CollectionRow:
        """Give a collection another name, which is not taken."""
        self._connection.execute("UPDATE collections SET name = ? WHERE key = ?", (name, row.key))
        return replace(row, name=name)

    def copy(self, row: CollectionRow, name: str) -> CollectionRow:
        """Insert a collection with definition and documents of another one, under a name that is not taken.

        It has no idle timeout.
        """
        copy = self.create(name, row.definition, row.dim, row.index_kind, row.recall, row.tokenizer)
        self._connection.execute(
            "INSERT INTO documents (collection, id, text, metadata, vector) "
            "SELECT ?, id, text, metadata, vector FROM documents WHERE collection = ? ORDER BY key",
            (copy.key, row.key),
        )
        self._connection.execute(
            "UPDATE collections SET bytes = (SELECT bytes FROM collections WHERE key = ?) WHERE key = ?",
            (row.key, copy.key),
        )
        self._connection.execute(
            "INSERT INTO chunks SELECT copied.key, spans FROM documents AS copied "
            "JOIN documents AS source ON source.collection = ? AND source.id = copied.id "
            "JOIN chunks ON document = source.key WHERE copied.collection = ? ORDER BY copied.key",
            (row.key, copy.key),
        )
        self._connection.execute(
            "INSERT INTO precisions SELECT ?, 0, precision FROM precisions WHERE collection = ? AND rebuilt = 0",
            (copy.key, row.key),
        )
        if keyword.current(self._connection, copy.key):
            keyword.fill(self._connection, copy.key)
        return copy

    def set_alias(self, name: str, collection: int) -> None:
        """Make a name, which no collection has, stand for a collection, in place of any other."""
        self._connection.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (name, collection))

    def delete_alias(self, name: str) -> None:
        """Delete an alias."""
        self._connection.execute("DELETE FROM aliases WHERE name = ?", (name,))

    def keys(self, collection: int) -> Keys:
        """Return the keys, ascending, of all documents of a collection."""
        return read_keys(self._connection, collection, 0, -1)

    def keys_of(self, collection: int, ids: Sequence[str]) -> dict[str, int]:
        """Return the keys of the documents with these ids, by id."""
        return read_keys_of(self._connection, collection, ids)

    def delete_keys(self, collection: int, keys: Keys) -> None:
        """Delete the documents of a collection with these keys."""
        self._delete(collection, "key IN (SELECT value FROM json_each(?))", (json.dumps(keys.tolist()),))

    def metadata(self, keys: Keys) -> list[tuple[int, str, str, dict[str, Any]]]:
        """Return key, id and metadata of the documents with these keys: as they are stored, and decoded."""
        rows = self._connection.execute(
            "SELECT key, id, metadata FROM documents WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(keys.tolist()),),
        ).fetchall()
        return [(key, id_, stored, decoded(stored, f"document {key}")) for key, id_, stored in rows]

    def set_metadata(self, collection: int, encoded: Sequence[tuple[int, str]]) -> None:
        """Replace the metadata of documents of a collection, given their keys and the new metadata as JSON."""
        (before,) = self._connection.execute(
            "SELECT coalesce(sum(length(CAST(metadata AS BLOB))), 0) FROM documents "
            "WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps([key for key, _ in encoded]),),
        ).fetchone()
        self._connection.executemany(
            "UPDATE documents SET metadata = ? WHERE key = ?", ((metadata, key) for key, metadata in encoded)
        )
        index_metadata(self._connection)
        self._grow(collection, sum(len(metadata.encode()) for _, metadata in encoded) - before)

    def rebuild(self, collection: int) -> RebuildRow | None:
        """Return the rebuild of a collection, if there is one."""
        return read_rebuild(self._connection, collection)

    def begin_rebuild(self, collection: int, rebuild: RebuildRow) -> None:
        """Begin the rebuild of a collection that has none."""
        self._connection.execute(
            "INSERT INTO rebuilds (collection, definition, dim) VALUES (?, ?, ?)",
            (collection, json.dumps(rebuild.definition), rebuild.dim),
        )

    def redefine_rebuild(self, collection: int, definition: dict[str, Any]) -> None:
        """Store another definition of a rebuild, and leave its vectors alone."""
        self._connection.execute(
            "UPDATE rebuilds SET definition = ? WHERE collection = ?", (json.dumps(definition), collection)
        )

    def put_rebuilt(self, keys: Sequence[int] | Keys, vectors: ValidatedVectors) -> None:
        """Store rebuilt vectors of documents; documents that no longer exist are ignored."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO rebuilt (document, vector, spans) SELECT key, ?, ? FROM documents WHERE key = ?",
            ((_stored(own), encoded_spans(spans), int(key)) for key, (own, spans) in zip(keys, vectors, strict=True)),
        )

    def note_precision(self, collection: int, precision: str, *, rebuilt: bool = False) -> None:
        """Keep in mind that vectors of a collection, or of its rebuild, were made in a precision."""
        self._connection.execute(
            "INSERT OR IGNORE INTO precisions VALUES (?, ?, ?)", (collection, int(rebuilt), precision)
        )

    def end_rebuild(self, collection: int) -> None:
        """Delete a rebuild and its vectors."""
        self._connection.execute("DELETE FROM precisions WHERE collection = ? AND rebuilt = 1", (collection,))
        self._connection.execute(f"DELETE FROM rebuilt WHERE document IN ({_OF_COLLECTION})", (collection,))
        self._connection.execute("DELETE FROM rebuilds WHERE collection = ?", (collection,))

    def exchange(self, row: CollectionRow) -> CollectionRow | None:
        """Replace a collection's vectors with the rebuilt ones, which ends the rebuild.

        Returns the changed row; None where there is no rebuild, or a document lacks its rebuilt vectors.
        """
        rebuild = self.rebuild(row.key)
        incomplete = f"SELECT EXISTS (SELECT * FROM documents WHERE {UNBUILT})"
        if rebuild is None or self._connection.execute(incomplete, (row.key,)).fetchone() == (1,):
            return None
        self._connection.execute(
            "UPDATE documents SET vector = (SELECT vector FROM rebuilt WHERE document = key) WHERE collection = ?",
            (row.key,),
        )
        self._connection.execute(
            f"UPDATE collections SET bytes = (SELECT coalesce(sum({_BYTES}), 0) FROM documents WHERE collection = ?1)"
            " WHERE key = ?1",
            (row.key,),
        )
        self._connection.execute(f"DELETE FROM chunks WHERE document IN ({_OF_COLLECTION})", (row.key,))
        self._connection.execute(
            "INSERT INTO chunks SELECT document, spans FROM rebuilt "
            f"WHERE spans IS NOT NULL AND document IN ({_OF_COLLECTION})",
            (row.key,),
        )
        self._connection.execute(
            "UPDATE collections SET definition = ?, dim = ?, snapshot = NULL, version = version + 1 WHERE key = ?",
            (json.dumps(rebuild.definition), rebuild.dim, row.key),
        )
        self._connection.execute("DELETE FROM precisions WHERE collection = ? AND rebuilt = 0", (row.key,))
        self._connection.execute("UPDATE precisions SET rebuilt = 0 WHERE collection = ?", (row.key,))
        self.end_rebuild(row.key)
        return replace(row, definition=rebuild.definition, dim=rebuild.dim, snapshot=None)

    def name_snapshot(self, row: CollectionRow, snapshot: str | None) -> CollectionRow:
        """Store which file has the snapshot of a collection's index."""
        self._connection.execute("UPDATE collections SET snapshot = ? WHERE key = ?", (snapshot, row.key))
        return replace(row, snapshot=snapshot)

    def vectors(self, collection: int, dim: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield the keys and vectors of a collection as `read_vectors` does, with the changes so far."""
        return read_vectors(self._connection, collection, dim)

    def commit(self) -> None:
        """Make the changes durable: once this returns, no crash undoes them."""
        index_metadata(self._connection)  # of changes that did not see to it
        _commit(self._connection, self._commits)

    def publish(self, publisher: Publisher, change: Change) -> None:
        """Commit, and let a publisher show the change."""
        with publisher.publishing([change]):
            self.commit()

    def _delete(self, collection: int, condition: str, parameters: Sequence[int | str]) -> Keys:
        """Delete the documents of a collection that meet a condition, and return their keys."""
        keyword.remove(self._connection, collection, condition, parameters)
        rows = self._connection.execute(
            f"DELETE FROM documents WHERE {condition} RETURNING key, {_BYTES}", parameters
        ).fetchall()
        if rows:
            self._changed(collection, -sum(size for _, size in rows))
        return np.array([key for key, _ in rows], np.int64)

    def _changed(self, collection: int, size: int) -> None:
        """Count a change of a collection's vectors, and the bytes by which it grows."""
        self._connection.execute(
            "UPDATE collections SET bytes = bytes + ?, version = version + 1 WHERE key = ?", (size, collection)
        )

    def _grow(self, collection: int, size: int) -> None:
        """Keep count of the bytes of a collection."""
        if size:
            self._connection.execute("UPDATE collections SET bytes = bytes + ? WHERE key = ?", (size, collection))


class SharedTransaction:
    """Transactions that become durable together, by one commit; each is a part, and none is seen before that."""

    def __init__(self, connection: sqlite3.Connection, commits: Histogram) -> None:
        self._connection = connection
        self._commits = commits
        self._changes: dict[Publisher, list[Change]] = {}

    @contextmanager
    def part(self) -> Iterator[Transaction]:
        """Begin a part, which is undone where the block ends without a commit; the other parts stay as they are."""
        if not self._connection.in_transaction:  # SQLite has undone it, or a part could not be undone
            raise sqlite3.OperationalError("the transaction has ended")
        self._connection.execute("SAVEPOINT part")
        part = _Part(self._connection, self._commits, self._changes)
        try:
            yield part
        finally:
            if not part.committed and self._connection.in_transaction:
                self._undo()

    def _undo(self) -> None:
        """Undo the part that was begun last, or all where that fails."""
        try:
            self._connection.execute("ROLLBACK TO part")
            self._connection.execute("RELEASE part")
        except sqlite3.Error:
            self._connection.execute("ROLLBACK")
            raise

    def commit(self) -> None:
        """Make all parts durable, and let their publishers show what has changed."""
        with ExitStack() as published:
            for publisher, changes in self._changes.items():
                published.enter_context(publisher.publishing(changes))
            _commit(self._connection, self._commits)


class _Part(Transaction):
    """Changes that become durable with the shared transaction, if they are committed, or not at all."""

    def __init__(
        self, connection: sqlite3.Connection, commits: Histogram, changes: dict[Publisher, list[Change]]
    ) -> None:
        super().__init__(connection, commits)
        self._changes = changes
        self.committed = False

    def commit(self) -> None:
        index_metadata(self._connection)
        self._connection.execute("RELEASE part")
        self.committed = True

    def publish(self, publisher: Publisher, change: Change) -> None:
        self.commit()
        self._changes.setdefault(publisher, []).append(change)


def _commit(connection: sqlite3.Connection, commits: Histogram) -> None:
    begun = perf_counter()
    connection.execute("COMMIT")
    commits.add(perf_counter() - begun)


def _with_ids(collection: int, ids: Sequence[str]) -> tuple[str, tuple[int, str]]:
    """Return the condition, and its parameters, for the documents of a collection with these ids."""
    return "collection = ? AND id IN (SELECT value FROM json_each(?))", (
        collection,
        json.dumps(ids, ensure_ascii=False),
    )


def read_keys(connection: sqlite3.Connection, collection: int, after: int, most: int) -> Keys:
    """Return the first keys of a collection that are above `after`, ascending: `most` of them, or all for -1."""
    cursor = connection.execute(
        "SELECT key FROM documents WHERE collection = ? AND key > ? ORDER BY key LIMIT ?", (collection, after, most)
    )
    return np.fromiter((key for (key,) in cursor), np.int64)


def read_keys_of(connection: sqlite3.Connection, collection: int, ids: Sequence[str]) -> dict[str, int]:
    """Return the keys of a collection's documents with these ids, by id."""
    condition, parameters = _with_ids(collection, ids)
    return dict(connection.execute(f"SELECT id, key FROM documents WHERE {condition}", parameters))


def read_version(connection: sqlite3.Connection, collection: int) -> int | None:
    """Return how many changes of its vectors a collection has seen, None where there is no such collection."""
    found: tuple[int] | None = connection.execute(
        "SELECT version FROM collections WHERE key = ?", (collection,)
    ).fetchone()
    return None if found is None else found[0]


def read_rebuild(connection: sqlite3.Connection, collection: int) -> RebuildRow | None:
    """Return the rebuild of a collection, if there is one."""
    found = connection.execute("SELECT definition, dim FROM rebuilds WHERE collection = ?", (collection,)).fetchone()
    return RebuildRow(decoded(found[0], f"the rebuild of collection {collection}"), found[1]) if found else None


def read_vectors(
    connection: sqlite3.Connection, collection: int, dim: int, after: int = 0
) -> Iterator[tuple[Keys, Vectors]]:
    """Yield the vectors (n, dim) of a collection and the key of each (n,), in blocks, by ascending key.

    They are those of keys above `after`.
    """
    cursor = connection.execute(
        "SELECT key, vector, coalesce(length(spans) / 16, 1) FROM documents LEFT JOIN chunks ON document = key "
        "WHERE collection = ? AND key > ? ORDER BY key",
        (collection, after),
    )
    rows: list[tuple[int, bytes, int]] = []
    size = 0
    for key, vector, count in cursor:
        if len(vector) != 4 * dim * count:
            raise damaged(f"a stored vector does not have its collection's {dim} numbers")
        rows.append((key, vector, count))
        size += len(vector)
        if size >= _BLOCK:
            yield _block(rows, dim)
            rows, size = [], 0
    if rows:
        yield _block(rows, dim)


def _block(rows: Sequence[tuple[int, bytes, int]], dim: int) -> tuple[Keys, Vectors]:
    keys, vectors, counts = zip(*rows, strict=True)
    read = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, dim)
    if not np.isfinite(read).all():
        raise damaged("a stored vector has numbers that are none")
    return np.repeat(np.array(keys, np.int64), counts), read.astype(np.float32)


def _stored(vectors: Vectors) -> bytes:
    return vectors.astype("<f4").tobytes()

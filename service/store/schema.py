"""The tables of the store, and the migration of a file that an earlier version wrote."""

import sqlite3
from pathlib import Path
from typing import Final

from service.errors import StoreUnavailable

# What each version added; the file's `user_version` counts those that it has.
_VERSIONS: Final[tuple[tuple[str, ...], ...]] = (
    # Keys are never reused (AUTOINCREMENT), so that a key in an index stands for one version of a document.
    # The vector is the last column, so that reading metadata for a filter does not read it from the disk.
    (
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
    ),
    # A document that is cut into spans has the vectors of all of them, one after the other, in `vector`. Spans are
    # pairs of integers; without a row in `chunks`, the vector is that of the whole text.
    #
    # `rebuilt` collects the vectors of a collection under another definition until every document has them and they
    # replace the present ones. A document that is replaced or deleted loses its row there too.
    (
        """
        CREATE TABLE chunks (
            document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
            spans    BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE rebuilds (
            collection INTEGER PRIMARY KEY REFERENCES collections(key) ON DELETE CASCADE,
            definition TEXT NOT NULL,
            dim        INTEGER NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE rebuilt (
            document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
            vector   BLOB NOT NULL,
            spans    BLOB
        ) STRICT
        """,
    ),
    # In which precisions the vectors of a collection were made, and with `rebuilt` 1 those of its rebuild.
    (
        """
        CREATE TABLE precisions (
            collection INTEGER NOT NULL REFERENCES collections(key) ON DELETE CASCADE,
            rebuilt    INTEGER NOT NULL,
            precision  TEXT NOT NULL,
            PRIMARY KEY (collection, rebuilt, precision)
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
SCHEMA_VERSION: Final = len(_VERSIONS)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a store and migrate it to the present version, in one transaction.

    Raises `StoreUnavailable` for a file of another program or of a newer Millpond, which is not changed.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{path} was written by a newer Millpond (schema {version}; this one knows {SCHEMA_VERSION}). "
            "Upgrade Millpond, or choose another folder."
        )
    if version == 0 and tables:
        raise StoreUnavailable(f"{path} holds tables of another program. Choose another folder.")
    if version == 0:  # only before the first table: later it takes a VACUUM
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailable(
            f"{path}: the file system cannot keep a write-ahead log. Put the store on a local disk."
        )
    if version < SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for statements in _VERSIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

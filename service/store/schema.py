"""The tables of the store's file, and how a file of an earlier version comes to have them."""

import sqlite3
from pathlib import Path

from service.errors import StoreUnavailable

# What each version added. A file says in `user_version` how many of these it has seen.
_VERSIONS: tuple[tuple[str, ...], ...] = (
    # Keys are never used twice (AUTOINCREMENT): what an index says of a key is true of one version of a document.
    # The vector comes last, so that reading metadata for a filter does not drag it from the disk.
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
    # A document that is cut into spans has a vector for each, one after the other in `vector`. The spans are pairs of
    # integers; where there are none, the vector is of the whole text.
    #
    # A collection's vectors under another definition, until every document has its own and they take the old ones'
    # place. A document that is replaced or deleted takes what is here with it.
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
)
SCHEMA_VERSION = len(_VERSIONS)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours, and bring it to our version; all at once, so that a crash leaves it as it was.

    Raises `StoreUnavailable` for a file of another program or of a newer Millpond, which is left as it is.
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

"""The tables of the store, and the migration of a file that an earlier version wrote."""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.errors import StoreUnavailable
from service.store import keyword
from service.store.metadata import index_metadata

logger = logging.getLogger(__name__)

# What each version added, as statements and functions of the connection; the file's `user_version` counts those that
# it has.
_VERSIONS: Final[tuple[tuple[str | Callable[[sqlite3.Connection], None], ...], ...]] = (
    # Keys are never reused (AUTOINCREMENT), so that a key in an index stands for one version of a document's text and
    # vectors; its metadata may change under it.
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
    # What filters find: each value in the metadata of a document, by its field. A field is a key of the objects that
    # are values of the field `parent`, or of metadata itself where that is 0; `plural` is 1 once a document had
    # several values of it. Values are clustered by document, so that those of one are deleted or read together. They
    # have the beginning of a long string, and `long_values` has the whole, once and in no index.
    #
    # Triggers note documents whose values are not found yet. They are read by one piece of code, those of an older
    # store too: SQLite's JSON rounds some numbers otherwise than Python's.
    (
        """
        CREATE TABLE fields (
            key        INTEGER PRIMARY KEY,
            collection INTEGER NOT NULL REFERENCES collections(key) ON DELETE CASCADE,
            parent     INTEGER NOT NULL,
            name       TEXT NOT NULL,
            plural     INTEGER NOT NULL,
            UNIQUE (collection, parent, name)
        ) STRICT
        """,
        """
        CREATE TABLE field_values (
            document INTEGER NOT NULL REFERENCES documents(key) ON DELETE CASCADE,
            field    INTEGER NOT NULL,
            value    ANY NOT NULL,
            PRIMARY KEY (document, field, value)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX field_values_in_order ON field_values (field, value)",
        """
        CREATE TABLE long_values (
            document INTEGER NOT NULL REFERENCES documents(key) ON DELETE CASCADE,
            field    INTEGER NOT NULL,
            value    TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX long_values_of_document ON long_values (document, field)",
        """
        CREATE TABLE unindexed (
            document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE
        ) STRICT
        """,
        """
        CREATE TRIGGER metadata_stored AFTER INSERT ON documents BEGIN
            INSERT INTO unindexed VALUES (NEW.key);
        END
        """,
        """
        CREATE TRIGGER metadata_changed AFTER UPDATE OF metadata ON documents BEGIN
            DELETE FROM field_values WHERE document = NEW.key;
            DELETE FROM long_values WHERE document = NEW.key;
            INSERT OR IGNORE INTO unindexed VALUES (NEW.key);
        END
        """,
        "INSERT INTO unindexed SELECT key FROM documents",
        index_metadata,
    ),
    # Which tokenizer makes the terms of a collection, and whether its full-text table, `keywords_KEY`, has all of its
    # documents. What is indexed instead of a text, where they differ. See `service.store.keyword`.
    (
        """
        CREATE TABLE keywords (
            collection INTEGER PRIMARY KEY REFERENCES collections(key) ON DELETE CASCADE,
            tokenizer  TEXT NOT NULL,
            current    INTEGER NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE segmented (
            document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
            text     TEXT NOT NULL
        ) STRICT
        """,
        "INSERT INTO keywords SELECT key, 'unicode61', 0 FROM collections",
    ),
    # Other names of collections, which end with them; and the bytes of all texts, metadata and vectors of each, of
    # which every change keeps count, so that nobody has to read the documents for it.
    (
        """
        CREATE TABLE aliases (
            name       TEXT PRIMARY KEY,
            collection INTEGER NOT NULL REFERENCES collections(key) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID
        """,
        "ALTER TABLE collections ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
        """
        UPDATE collections SET bytes = (
            SELECT coalesce(sum(length(CAST(text AS BLOB)) + length(CAST(metadata AS BLOB)) + length(vector)), 0)
            FROM documents WHERE collection = collections.key
        )
        """,
    ),
    # What an index that approximates is asked for, and the file with its snapshot. A snapshot holds for this row
    # alone; what changes the vectors under their keys takes its name away in the same transaction.
    (
        "ALTER TABLE collections ADD COLUMN recall REAL",
        "ALTER TABLE collections ADD COLUMN snapshot TEXT",
    ),
    # Words are indexed without the marks that they may have or not, such as Hebrew points.
    (keyword.renew,),
    # How many changes of its vectors a collection has seen, by which a reader knows which of them a snapshot has.
    ("ALTER TABLE collections ADD COLUMN version INTEGER NOT NULL DEFAULT 0",),
    # After how many seconds without use a collection is dropped; null: never.
    ("ALTER TABLE collections ADD COLUMN idle_timeout INTEGER",),
)
SCHEMA_VERSION: Final = len(_VERSIONS)


def begin(connection: sqlite3.Connection, path: Path) -> None:
    """Give a new file its first page; raises `StoreUnavailable`."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only before the first table: later it takes a VACUUM
    _write_ahead(connection, path)


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
    if version == 0:
        begin(connection, path)
    else:
        _write_ahead(connection, path)
    _write_the_same(connection, version)
    if not keyword.is_built_in(connection):
        logger.warning(keyword.UNAVAILABLE)
    if version < SCHEMA_VERSION or keyword.needs_preparation(connection):
        connection.execute("BEGIN IMMEDIATE")
        for statements in _VERSIONS[version:]:
            for statement in statements:
                if isinstance(statement, str):
                    connection.execute(statement)
                else:
                    statement(connection)
        keyword.prepare(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailable(
            f"{path}: the file system cannot keep a write-ahead log. Put the store on a local disk."
        )


def _write_the_same(connection: sqlite3.Connection, version: int) -> None:
    """Write a page to the log that changes nothing, which a file that cannot be written refuses.

    It takes the place of a change that was on its way when the last process was killed, where another that reads the
    store has kept the log's index, which ends before it. Left in the log, it would be found once both are gone.
    """
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA user_version = {version}")
    try:
        connection.execute("COMMIT")
    except sqlite3.OperationalError:  # the disk is full, and the store can be read
        if connection.in_transaction:
            connection.execute("ROLLBACK")

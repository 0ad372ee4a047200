"""A store of an earlier version is brought to this one, all at once, with everything in it."""

import json
import sqlite3

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.store import Document
from service.store.schema import SCHEMA_VERSION
from tests.support.definitions import definition

# Written by the code that knew version 1 alone.
VERSION_1 = """
CREATE TABLE collections (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    dim        INTEGER NOT NULL,
    index_kind TEXT NOT NULL,
    created    TEXT NOT NULL
) STRICT;
INSERT INTO "collections" VALUES(1,'notes',
    '{"model": "m", "asked_pooling": null, "fingerprint": "0123456789abcdef", "pooling": "mean"}',2,'flat',
    '2026-11-21T15:39:06.174828+00:00');
INSERT INTO "collections" VALUES(2,'other',
    '{"model": "m", "asked_pooling": null, "fingerprint": "f", "pooling": "cls"}',3,'flat',
    '2026-11-21T15:39:06.194403+00:00');
CREATE TABLE documents (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections(key) ON DELETE CASCADE,
    id         TEXT NOT NULL,
    text       TEXT NOT NULL,
    metadata   TEXT NOT NULL,
    vector     BLOB NOT NULL,
    UNIQUE (collection, id)
) STRICT;
INSERT INTO "documents" VALUES(2,1,'b','A pond.','{}',X'000000000000803F');
INSERT INTO "documents" VALUES(3,1,'a','A mill by the pond.',
    '{"year":2021,"ratio":0.30000000000000004,"by":[{"name":"Ada"},{"name":"Bo"}]}',X'0000404000008040');
INSERT INTO "documents" VALUES(4,2,'c','京都大学のpond','{}',X'0000803F0000000000000000');
CREATE INDEX documents_in_order ON documents (collection, key);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('collections',2);
INSERT INTO "sqlite_sequence" VALUES('documents',4);
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
METADATA = {"year": 2021, "ratio": 0.1 + 0.2, "by": [{"name": "Ada"}, {"name": "Bo"}]}


@pytest.fixture
def first(folder):
    """A folder with a store of version 1."""
    folder.mkdir()
    connection = sqlite3.connect(folder / "millpond.sqlite3")
    connection.executescript(VERSION_1)
    connection.close()
    return folder


def version_and_tables(folder):
    connection = sqlite3.connect(folder / "millpond.sqlite3")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.close()
    return version, tables


def check(folder):
    """Everything is there, works, and is as in a store that was laid out anew."""
    opened = EmbeddedEngine(folder)
    assert [collection.name for collection in opened.list()] == ["notes", "other"]
    notes = opened.get("notes")
    assert notes.definition == definition()
    assert notes.fetch("a") == Document("a", "A mill by the pond.", METADATA)
    assert opened.create("notes", definition(), 2) == (notes, False) and notes.index_kind == "flat"
    (hits,) = notes.search(np.array([[0, 1]], np.float32), 5)
    assert [(hit.id, round(hit.score, 5)) for hit in hits] == [("b", 1.0), ("a", 0.8)]
    for condition in (
        {"year": 2021},
        {"ratio": METADATA["ratio"]},
        {"by.name": "Bo"},
        {"by.name": {"$exists": True}},
    ):
        (found,) = notes.search(np.array([[0, 1]], np.float32), 5, condition)
        assert [hit.id for hit in found] == ["a"], condition
    assert notes.rebuild() is None
    encoded = json.dumps(METADATA, separators=(",", ":"))
    assert notes.stored_bytes() == 8 + 8 + len("A pond.{}A mill by the pond." + encoded)
    assert [hit.id for hit in notes.search_keywords([notes.terms("a mill pond")], 5)[0]] == ["a", "b"]
    other = opened.get("other")
    assert [hit.id for hit in other.search_keywords([other.terms("大学")], 5)[0]] == ["c"]
    notes.upsert([Document("c", "", {})], np.array([[1, 0]], np.float32))
    notes.delete("c")
    opened.close()
    new = EmbeddedEngine(folder / "new")
    for name, dim in (("notes", 2), ("other", 3)):
        new.create(name, definition(), dim)
    new.close()
    assert version_and_tables(folder) == version_and_tables(folder / "new")
    assert version_and_tables(folder)[0] == SCHEMA_VERSION


def test_a_store_of_version_1_is_brought_to_this_one(first):
    check(first)
    check(first)


# The process ends itself when SQLite is about to run a statement that begins with these words.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine

connect = sqlite3.connect

def watched(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(end)
    return connection

def end(statement):
    if statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

sqlite3.connect = watched
EmbeddedEngine(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        *("PRAGMA user_version =", "CREATE TABLE chunks", "CREATE TABLE rebuilds", "CREATE TABLE rebuilt"),
        *("CREATE TABLE field_values", "INSERT OR IGNORE INTO field_values", "DELETE FROM unindexed"),
        *("INSERT INTO segmented SELECT", "INSERT INTO keywords_2", "UPDATE keywords SET current"),
        *("CREATE TABLE aliases", "UPDATE collections SET bytes", "ALTER TABLE collections ADD COLUMN recall"),
    ],
)
def test_killed_in_the_middle_it_is_still_version_1(first, start, statement):
    before = version_and_tables(first)
    process = start(KILLED, first, statement)
    assert process.wait(60) == -9, process.communicate()[1]
    assert version_and_tables(first) == before == (1, {"collections", "documents", "sqlite_sequence"})
    check(first)

"""Renaming, copying and aliases: as one step for every reader, on the disk too."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.errors import NotFound, StoreUnavailable
from service.store import Chunked, Document
from tests.support.definitions import definition

QUERY = np.array([[1, 0]], np.float32)


def found(collection):
    return [hit.id for hit in collection.search(QUERY, 10)[0]]


@pytest.fixture
def notes(collections, fill):
    notes, _ = collections.create("notes", definition(), 2)
    fill(notes, {"a": ((1, 0), {"n": 1}), "b": ((0, 1), {})})
    return notes


def test_searches_go_on_while_a_copy_is_made(folder, monkeypatch):
    """The copy stands still in the middle of its transaction, until others have read all they want."""
    connect, reached, go_on = sqlite3.connect, Event(), Event()

    def watch(statement):
        if statement.startswith("INSERT INTO chunks SELECT copied"):
            reached.set()
            assert go_on.wait(60)

    def watched(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(watch)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    collections = EmbeddedEngine(folder)
    notes, _ = collections.create("notes", definition(), 2)
    notes.upsert([Document("a", "text", {"n": 1})], Chunked(np.eye(2, dtype=np.float32), [((0, 1), (1, 2))]))
    with ThreadPoolExecutor() as pool:
        copying = pool.submit(collections.copy, "notes", "copy")
        try:
            assert reached.wait(60)
            assert found(notes) == ["a", "a"] and notes.count_matching({"n": 1}) == 1
            assert notes.page(5).documents[0].document.id == "a"
            with pytest.raises(NotFound):
                collections.get("copy")
        finally:
            go_on.set()
        assert found(copying.result()) == ["a", "a"]
    collections.close()


# The process ends itself when SQLite is about to run a statement that begins with these words.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from service.collections import Selection
from service.collections.embedded import EmbeddedEngine

connect = sqlite3.connect
armed = False

def watched(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(end)
    return connection

def end(statement):
    if armed and statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

sqlite3.connect = watched
collections = EmbeddedEngine(Path(sys.argv[1]))
armed = True
notes = collections.get("notes")
{
    "copy": lambda: collections.copy("notes", "copy"),
    "rename": lambda: collections.rename("notes", "drafts"),
    "update": lambda: notes.update_metadata(Selection(all=True), lambda _: {"n": 2}),
    "delete": lambda: notes.delete_many(Selection(all=True)),
}[sys.argv[3]]()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("COMMIT", "copy"),
        ("INSERT INTO precisions", "copy"),
        ("UPDATE collections SET bytes", "copy"),
        ("COMMIT", "rename"),
        ("COMMIT", "update"),
        ("UPDATE collections SET bytes", "update"),
        ("COMMIT", "delete"),
    ],
)
def test_killed_in_the_middle_nothing_has_happened(folder, collections, notes, start, statement, change):
    collections.close()
    process = start(KILLED, folder, statement, change)
    assert process.wait(60) == -9, process.communicate()[1]
    opened = EmbeddedEngine(folder)
    assert [each.name for each in opened.list()] == ["notes"]
    stored = [each.document for each in opened.get("notes").page(10).documents]
    assert [(each.id, each.metadata) for each in stored] == [("a", {"n": 1}), ("b", {})]
    assert found(opened.get("notes")) == ["a", "b"]
    opened.close()


def test_a_copy_that_cannot_be_opened_is_not_made(collections, folder, notes):
    """Its name is free, so that it can be tried again."""
    with sqlite3.connect(folder / "millpond.sqlite3") as others:
        (vector,) = others.execute("SELECT vector FROM documents WHERE id = 'b'").fetchone()
        others.execute("UPDATE documents SET vector = x'00' WHERE id = 'b'")
    others.close()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="does not have its collection's 2 numbers"):
            collections.copy("notes", "copy")
    assert [each.name for each in collections.list()] == ["notes"] and notes.count() == 2
    with sqlite3.connect(folder / "millpond.sqlite3") as others:
        others.execute("UPDATE documents SET vector = ? WHERE id = 'b'", (vector,))
    others.close()
    assert found(collections.copy("notes", "copy")) == ["a", "b"]


@pytest.mark.slow
def test_a_copy_gets_its_graph(collections):
    source, _ = collections.create("source", definition(), 2, "hnsw")
    angles = np.linspace(0, np.pi, 1200)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    source.upsert([Document(str(i), "", {}) for i in range(1200)], vectors)
    copy = collections.copy("source", "copy")
    collections.wait_for_builds()
    assert copy.index_state().uses == source.index_state().uses == "hnsw"
    assert copy.count() == 1200

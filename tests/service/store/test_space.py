"""Space that documents and collections leave behind is given back to the disk."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.errors import InvalidInput, NoSpace, StoreUnavailable
from service.store import Document
from service.store.store import FILE
from tests.support.definitions import definition

COUNT = 3000


def fill(opened, name):
    collection = opened.create(name, definition(), 8)[0]
    vectors = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    collection.upsert([Document(str(i), f"text {i} " * 40, {"i": i}) for i in range(COUNT)], vectors)
    return collection


def size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def as_before(folder):
    """Give a store's file the form in which earlier releases made it."""
    with sqlite3.connect(folder / FILE, isolation_level=None) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    connection.close()


def test_what_a_drop_leaves_is_given_back_and_the_rest_is_kept(folder, collections):
    kept = fill(collections, "kept")
    before = size(folder)
    fill(collections, "dropped")
    collections.drop("dropped")
    full, compact = asyncio.run(collections.compact())
    assert full.free > 1_000_000 and compact.free == 0
    assert size(folder) < before * 1.1 < full.bytes
    assert kept.count() == COUNT and kept.fetch("7").metadata == {"i": 7}
    collections.close()
    reopened = EmbeddedEngine(folder)
    assert reopened.get("kept").count() == COUNT
    assert [hit.id for hit in reopened.get("kept").search(np.ones((1, 8)), 5)[0]]
    reopened.close()


def test_changes_are_made_between_the_steps(collections):
    kept = fill(collections, "kept")
    fill(collections, "dropped")
    collections.drop("dropped")
    stored = []

    async def write(number):
        document = Document(f"new {number}", "text", {})
        await collections.write(kept.upsert, [document], np.ones((1, 8), np.float32))
        stored.append((number, collections._store.space().free))

    async def both():
        await asyncio.gather(collections.compact(), *map(write, range(5)))

    asyncio.run(both())
    assert [number for number, free in stored if free] == list(range(5))  # none waited for the end
    assert collections._store.space().free == 0
    assert kept.count() == COUNT + 5


def test_a_file_of_an_earlier_release_is_written_anew_once(folder):
    opened = EmbeddedEngine(folder)
    fill(opened, "kept")
    fill(opened, "dropped")
    opened.close()
    as_before(folder)
    opened = EmbeddedEngine(folder)
    opened.drop("dropped")
    with pytest.raises(InvalidInput, match=r"--rebuild.*--store FOLDER"):
        asyncio.run(opened.compact())
    before, after = asyncio.run(opened.compact(rebuild=True))
    assert after.bytes < 0.6 * before.bytes and after.incremental and after.free == 0
    assert opened.get("kept").count() == COUNT
    fill(opened, "another")
    opened.drop("another")
    before, after = asyncio.run(opened.compact())  # from now on in small steps
    assert before.free > 0 == after.free
    opened.close()


def test_too_little_disk_is_told_before_it_begins(folder, monkeypatch):
    opened = EmbeddedEngine(folder)
    fill(opened, "kept")
    real = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1_000_000))
    before = (folder / FILE).read_bytes()
    with pytest.raises(NoSpace, match=r"takes [\d.]+ MB of free disk in .*, and there are 1.0 MB") as raised:
        asyncio.run(opened.compact(rebuild=True))
    assert raised.value.extra["needed"] > raised.value.extra["free"] == 1_000_000
    assert (folder / FILE).read_bytes() == before
    opened.close()


def test_a_closed_store_is_not_compacted(collections):
    store = collections._store
    collections.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.release()


COMPACTING = """
import sys
from pathlib import Path
from service.store.store import Store
store = Store(Path(sys.argv[1]))
print("open", flush=True)
if sys.argv[2] == "rebuild":
    store.rebuild_file()
while store.release():
    print("step", flush=True)
store.checkpoint()
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["steps", "rebuild"])
def test_killed_while_compacting_nothing_is_lost(folder, start, how):
    opened = EmbeddedEngine(folder)
    fill(opened, "kept")
    opened.close()
    for steps in (0, 1, 3, 6):
        opened = EmbeddedEngine(folder)
        fill(opened, "dropped")
        if how == "rebuild":
            opened.close()
            as_before(folder)
            opened = EmbeddedEngine(folder)
        opened.drop("dropped")
        opened.close()
        process = start(COMPACTING, folder, how)
        for _ in range(1 + (steps if how == "steps" else 0)):
            process.stdout.readline()
        process.kill()
        process.communicate()
        opened = EmbeddedEngine(folder)
        kept = opened.get("kept")
        assert [collection.name for collection in opened.list()] == ["kept"]
        assert kept.count() == COUNT and kept.fetch("2999").metadata == {"i": 2999}
        asyncio.run(opened.compact(rebuild=how == "rebuild"))
        opened.close()
        with sqlite3.connect(folder / FILE) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()

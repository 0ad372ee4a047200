"""Temporary collections of an engine: what counts as use, and a process that is killed while it drops one."""

import asyncio
import sqlite3

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.idle import Idle
from service.collections.reindex import Reindexes
from service.errors import NotFound
from service.store import Document
from tests.support.definitions import definition

VECTORS = np.array([[1, 0], [0, 1]], np.float32)
DOCUMENTS = [Document("a", "A mill.", {"year": 2021}), Document("b", "A pond. Another.", {})]


def test_one_that_stays_and_a_temporary_one_after_a_restart(folder):
    opened = EmbeddedEngine(folder)
    opened.create("stays", definition(), 2)
    opened.create("goes", definition(), 2, idle_timeout=5)
    opened.close()
    opened = EmbeddedEngine(folder)
    assert {each.name: each.idle_timeout for each in opened.list()} == {"stays": None, "goes": 5}
    opened.close()


@pytest.mark.slow
def test_a_task_uses_what_it_asked_for_until_it_ends(collections):
    """However long that takes: it outlives one of the same timeout that was created later."""

    async def scenario():
        idle = Idle(collections, Reindexes(None, collections))
        dropping = asyncio.create_task(idle.run())
        used, _ = collections.create("used", definition(), 2, idle_timeout=1)
        ends = asyncio.Event()

        async def long_request():
            idle.use(used)
            await ends.wait()

        request = asyncio.create_task(long_request())
        await asyncio.sleep(0)
        other, _ = collections.create("other", definition(), 2, idle_timeout=1)
        await asyncio.to_thread(idle.use, other)
        assert await gone(collections, "other", dropping) and collections.get("used") is used
        ends.set()
        await request
        assert await gone(collections, "used", dropping)
        dropping.cancel()

    asyncio.run(scenario())


async def gone(collections, name, dropping):
    for _ in range(400):
        try:
            collections.get(name)
        except NotFound:
            return not dropping.done()
        await asyncio.sleep(0.05)
    return False


# The process ends itself when SQLite is about to run a statement that begins with these words, or has run it.
KILLED = """
import asyncio, os, signal, sqlite3, sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine
from service.collections.idle import Idle
from service.collections.reindex import Reindexes

engine = EmbeddedEngine(Path(sys.argv[1]))

def end(statement):
    if statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

engine._store._writer.set_trace_callback(end)
asyncio.run(Idle(engine, Reindexes(None, engine)).run())
"""


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["DELETE FROM collections", "COMMIT"])
def test_killed_while_it_drops_nothing_is_half(folder, start, statement):
    opened = EmbeddedEngine(folder)
    for name, timeout in (("stays", None), ("goes", 1)):
        collection, _ = opened.create(name, definition(), 2, idle_timeout=timeout)
        collection.upsert(DOCUMENTS, VECTORS)
    opened.close()
    process = start(KILLED, folder, statement)
    assert process.wait(60) == -9, process.communicate()[1]
    opened = EmbeddedEngine(folder)
    for each in opened.list():  # as a whole, before it is due again
        assert each.count() == 2
        assert [hit.id for hit in each.search(VECTORS[:1], 2)[0]] == ["a", "b"]
        assert [hit.id for hit in each.search_keywords([each.terms("pond")], 2)[0]] == ["b"]
        assert each.count_matching({"year": 2021}) == 1
    assert [each.name for each in opened.list()] == ["goes", "stays"]
    opened.drop("goes")
    opened.close()
    connection = sqlite3.connect(folder / "millpond.sqlite3")
    assert connection.execute("SELECT count(*), count(DISTINCT collection) FROM documents").fetchone() == (2, 1)
    connection.close()

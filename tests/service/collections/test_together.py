"""Small changes of many clients: one commit for all that wait, and each made or refused by itself."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.collections import Changed, Selection
from service.collections.embedded import EmbeddedEngine
from service.errors import InvalidDocument, InvalidVector, NotFound, StaleDefinition, StoreDamaged
from service.index import KINDS
from service.store import Document
from tests.service.collections.test_model import Tiny
from tests.support.definitions import definition
from tests.support.tiers import first_fast

DIM = 3


def together(collections, *changes):
    """Makes changes that have all waited for the writer; returns what each of them returned or raised."""

    async def run():
        begun, go_on = threading.Event(), threading.Event()

        def hold():
            begun.set()
            return go_on.wait(60)

        busy = asyncio.ensure_future(collections.write(hold))
        assert await asyncio.to_thread(begun.wait, 60)
        waiting = [asyncio.ensure_future(collections.write(*change, together=True)) for change in changes]
        await asyncio.sleep(0)  # each of them begins
        go_on.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert await busy
        return answers

    return asyncio.run(run())


def put(collection, id_, number=1, vector=(1, 0, 0), **options):
    def change():
        return collection.upsert(
            [Document(id_, f"text {number}", {"n": number})], np.array([vector], np.float32), **options
        )

    return (change,)


def held(collection):
    """What a collection holds, by all ways to it: from the store, by the index, and by the metadata."""
    stored = {each.document.id: each.document.metadata["n"] for each in collection.page(100).documents}
    hits = collection.search(np.ones((1, DIM), np.float32), 100)[0]
    assert {hit.id: hit.metadata["n"] for hit in hits} == stored and len(hits) == collection.count() == len(stored)
    for number in set(stored.values()):
        assert collection.count_matching({"n": number}) == [*stored.values()].count(number)
    assert {hit.id for hit in collection.search_keywords([["text"]], 100)[0]} == stored.keys()
    return stored


@pytest.fixture
def watched(folder, monkeypatch):
    """Collections, and the functions that are called with every statement of SQLite."""
    connect, watchers = sqlite3.connect, []

    def connected(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: [watch(statement) for watch in watchers])
        return connection

    monkeypatch.setattr(sqlite3, "connect", connected)
    opened = EmbeddedEngine(folder)
    yield opened, watchers
    opened.close()


def test_changes_that_wait_share_one_commit(watched):
    collections, watchers = watched
    notes, other = (collections.create(name, definition(), DIM)[0] for name in ("notes", "other"))
    commits = []
    watchers.append(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    changes = [put(notes, f"a{n}", n) for n in range(10)] + [put(other, "b")]
    assert together(collections, *changes, (notes.delete, "a3"), (notes.delete_many, Selection(["a4", "x"]))) == [
        *[1] * 11,
        None,
        Changed(1, ["x"]),
    ]
    assert len(commits) == 1
    assert held(notes) == {f"a{n}": n for n in range(10) if n not in (3, 4)} and held(other) == {"b": 1}


def test_each_fails_by_itself(collections, folder):
    notes = collections.create("notes", definition(), DIM)[0]
    notes.upsert([Document("old", "text 1", {"n": 1})], np.ones((1, DIM), np.float32))
    answers = together(
        collections,
        put(notes, "a"),
        put(notes, "bad", float("nan")),
        put(notes, "flat", vector=(0, 0, 0)),
        put(notes, "late", under=definition("another")),
        (notes.delete, "absent"),
        (notes.delete, "old"),
        (notes.delete, "old"),
        put(notes, "a", 2),
        put(notes, "b", 3),
        (notes.delete_many, Selection(filter={"n": 3})),
        (notes.update_metadata, Selection(["a"]), lambda metadata: {"n": metadata["n"] + 5}),
        (notes.update_metadata, Selection(["a"]), lambda metadata: {"n": object()}),
        put(notes, "c"),
    )
    kinds = [type(answer) if isinstance(answer, Exception) else answer for answer in answers]
    assert kinds == [
        *(1, InvalidDocument, InvalidVector, StaleDefinition, NotFound, None, NotFound, 1, 1),
        *(Changed(1, []), Changed(1, []), InvalidDocument, 1),
    ]
    assert held(notes) == {"a": 7, "c": 1}
    collections.close()
    reopened = EmbeddedEngine(folder)
    assert held(reopened.get("notes")) == {"a": 7, "c": 1}
    reopened.close()


def test_nothing_is_seen_or_answered_before_the_commit(watched):
    collections, watchers = watched
    notes = collections.create("notes", definition(), DIM)[0]
    seen = []

    def watch(statement):
        if statement in ("RELEASE part", "COMMIT"):  # during the commit too, however long the disk takes
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(held, notes).result(60))

    watchers.append(watch)
    assert together(collections, *(put(notes, f"a{n}") for n in range(3))) == [1, 1, 1]
    assert seen == [{}, {}, {}, {}]
    assert len(held(notes)) == 3


def test_what_a_change_reads_has_the_changes_before_it(collections):
    notes = collections.create("notes", definition(), DIM)[0]
    document = Document("a", "text 1", {"n": 1})
    answers = together(
        collections,
        (notes.unchanged, [document]),
        put(notes, "a"),
        (notes.unchanged, [document]),
        (notes.delete, "a"),
        (notes.unchanged, [document]),
    )
    assert answers == [set(), 1, {"a"}, None, set()]


def test_a_change_whose_client_has_gone_is_not_begun(collections):
    notes = collections.create("notes", definition(), DIM)[0]

    async def run():
        go_on = threading.Event()
        busy = asyncio.ensure_future(collections.write(go_on.wait, 60))
        gone, stays = (
            asyncio.ensure_future(collections.write(*put(notes, id_), together=True)) for id_ in ("a", "b")
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert await stays == 1 and await busy

    asyncio.run(run())
    assert held(notes) == {"b": 1}


def test_a_damaged_document_fails_only_the_change_that_reads_it(collections, folder):
    notes = collections.create("notes", definition(), DIM)[0]
    notes.upsert([Document("old", "text 1", {"n": 1})], np.ones((1, DIM), np.float32))
    with closing(sqlite3.connect(folder / "millpond.sqlite3", isolation_level=None)) as connection:
        connection.execute("UPDATE documents SET metadata = '{' WHERE id = 'old'")
        connection.execute("DELETE FROM unindexed")
    answers = together(
        collections,
        put(notes, "a"),
        (notes.update_metadata, Selection(["a", "old"]), lambda metadata: {"n": 2}),
        (notes.unchanged, [Document("old", "text 1", {"n": 1})]),
        (notes.delete, "old"),
        put(notes, "b"),
    )
    assert [type(answer) for answer in answers] == [int, StoreDamaged, StoreDamaged, type(None), int]
    assert held(notes) == {"a": 1, "b": 1}


steps = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "delete many", "delete by number", "number", "bad"]),
    st.sampled_from("abcd"),
    st.integers(1, 3),
    st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 3)]),
)


def expected(model, what, id_, number):
    """What a step returns, and what it does to a dictionary of numbers."""
    match what:
        case "put":
            model[id_] = number
            return 1
        case "delete":
            return None if model.pop(id_, None) else NotFound
        case "delete many":
            return Changed(1, []) if model.pop(id_, None) else Changed(0, [id_])
        case "delete by number":
            gone = [each for each, own in model.items() if own == number]
            return Changed(len([model.pop(each) for each in gone]), [])
        case "number":
            changed = id_ in model
            model |= {id_: number} if changed else {}
            return Changed(1, []) if changed else Changed(0, [id_])
    return InvalidVector


def change_of(collection, what, id_, number, vector):
    match what:
        case "put":
            return put(collection, id_, number, vector)
        case "delete":
            return collection.delete, id_
        case "delete many":
            return collection.delete_many, Selection([id_])
        case "delete by number":
            return collection.delete_many, Selection(filter={"n": number})
        case "number":
            return collection.update_metadata, Selection([id_]), lambda _: {"n": number}
    return put(collection, id_, number, (0, 0, 0))


@pytest.mark.parametrize("kind", first_fast(["flat", "tiny"]))
def test_as_one_after_another(tmp_path_factory, kind):
    @settings(deadline=None, max_examples=max(5, settings.default.max_examples // 10))
    @given(groups=st.lists(st.lists(steps, min_size=1, max_size=8), min_size=1, max_size=4))
    def check(groups):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(KINDS, "tiny", Tiny)
            folder = tmp_path_factory.mktemp("store")
            collections = EmbeddedEngine(folder)
            notes, model = collections.create("notes", definition(), DIM, kind)[0], {}
            for group in groups:
                foreseen = [expected(model, *step[:3]) for step in group]
                answers = together(collections, *(change_of(notes, *step) for step in group))
                assert [type(each) if isinstance(each, Exception) else each for each in answers] == foreseen
                stored = {each.document.id: each.document.metadata["n"] for each in notes.page(100).documents}
                hits = notes.search(np.ones((1, DIM), np.float32), 100)[0]
                assert {hit.id: hit.metadata["n"] for hit in hits} == stored == model
                assert len(hits) == len(model)
            collections.close()
            collections = EmbeddedEngine(folder)
            assert collections.get("notes").count() == len(model)
            collections.close()

    check()


# A process whose files may not grow is a process with a full disk.
FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
import numpy as np
from service.collections.embedded import EmbeddedEngine
from service.errors import StoreUnavailable
from service.store import Document
from tests.service.collections.test_together import held, put, together
from tests.support.definitions import definition

size = int(sys.argv[2])
collections = EmbeddedEngine(Path(sys.argv[1]))
notes = collections.create("notes", definition(), 3)[0]
assert together(collections, put(notes, "a"), put(notes, "b", 2)) == [1, 1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
def large(id_):
    return notes.upsert([Document(id_, "text " + "x" * size, {"n": 9})], np.ones((1, 3), np.float32))
for turn in range(2):
    answers = together(collections, put(notes, "c", 3), (notes.delete, "a"), *((large, f"d{n}") for n in range(12)),
                       (notes.delete, "absent"))
    assert {type(answer) for answer in answers} == {StoreUnavailable}, answers
    assert "Nothing stored" in str(answers[0]), answers[0]
    assert held(notes) == {"a": 1, "b": 2}
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert together(collections, put(notes, "c", 3), (notes.delete, "a"), (large, "d")) == [1, None, 1]
assert held(notes) == {"b": 2, "c": 3, "d": 9}
collections.close()
collections = EmbeddedEngine(Path(sys.argv[1]))
assert held(collections.get("notes")) == {"b": 2, "c": 3, "d": 9}
collections.close()
print("kept")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "room"),
    [(20_000, 300_000), (1_000_000, 8_000_000)],  # fails at the commit; while the rows are written
)
def test_a_full_disk_fails_all_of_them(folder, start, size, room):
    said, errors = start(FULL_DISK, folder, size, room).communicate()
    assert said.startswith("kept"), errors

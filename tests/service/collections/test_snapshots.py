"""Collections whose index is built aside: what they find meanwhile, and after a restart from a snapshot."""

import os
import random
import shutil
import sqlite3
import threading
from datetime import datetime

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.embedded.builder import Builder
from service.errors import StoreUnavailable
from service.index import KINDS, ivf
from service.index.hnsw import HnswIndex
from service.index.ivf import IvfIndex
from service.store import Document
from tests.support.definitions import definition

DIM = 8


class TinyHnsw(HnswIndex):
    kind = "tiny"
    exact_below = 40
    most_tail = 30


class TinyIvf(IvfIndex):
    kind = "tiny"
    exact_below = 40
    most_tail = 30
    most_of_segment = 150


@pytest.fixture(autouse=True, params=[TinyHnsw, TinyIvf], ids=["hnsw", "ivf"])
def tiny(request, monkeypatch):
    monkeypatch.setitem(KINDS, "tiny", request.param)
    monkeypatch.setattr(ivf, "_FEW", 0)  # codes are searched, however few there are
    return request.param


@pytest.fixture
def uses(tiny):
    return "ivf" if issubclass(tiny, IvfIndex) else "hnsw"


def vector_of(text):
    return np.random.default_rng([*text.encode()]).normal(size=DIM).astype(np.float32)


def put(collection, ids, version=0):
    texts = [f"{id_} in version {version}" for id_ in ids]
    documents = [Document(id_, text, {"version": version}) for id_, text in zip(ids, texts, strict=True)]
    collection.upsert(documents, np.stack([vector_of(text) for text in texts]))


def check(collection, texts):
    """Checks that exactly documents of these texts are found, with their scores, in any way of searching."""
    query = np.ones((1, DIM), np.float32)
    expected = sorted(texts, key=lambda text: -(vector_of(text) @ query[0]) / np.linalg.norm(vector_of(text)))
    for options in ({}, {"exact": True}, {"grouped": True}):
        hits = collection.search(query, 1000, **options)[0]
        assert [hit.text for hit in hits] == expected
    assert collection.count() == len(texts)


def names(folder):
    return sorted(path.name for path in (folder / "indexes").glob("*"))


@pytest.fixture
def built(collections, uses):
    """A collection with a graph and its snapshot, and changes after it."""
    collection = collections.create("notes", definition(), DIM, "tiny")[0]
    put(collection, [f"d{i}" for i in range(60)])
    collections.wait_for_builds()
    assert collection.index_state().uses == uses
    put(collection, ["d3", "d4", "new"], version=1)
    collection.delete("d5")
    return collection


TEXTS = [f"d{i} in version 0" for i in range(60) if i not in (3, 4, 5)]
TEXTS += [f"{id_} in version 1" for id_ in ("d3", "d4", "new")]


def test_a_restart_goes_on_with_the_snapshot(collections, folder, built, caplog, tiny, uses):
    check(built, TEXTS)
    (name,) = names(folder)
    written = (folder / "indexes" / name).stat().st_mtime
    for _ in range(2):
        collections.close()
        collections = EmbeddedEngine(folder)
        collection = collections.get("notes")
        state = collection.index_state()
        assert (state.uses, state.tail, state.deleted, state.target) == (uses, 3, 3, tiny.default_recall)
        assert datetime.fromisoformat(state.saved).timestamp() == int(written)
        check(collection, TEXTS)
    assert names(folder) == [name] and not caplog.records
    put(collection, [f"e{i}" for i in range(40)])
    collections.wait_for_builds()
    assert collection.index_state().tail == 0
    assert len(names(folder)) == 1 and names(folder) != [name]
    check(collection, TEXTS + [f"e{i} in version 0" for i in range(40)])
    collections.drop("notes")
    assert names(folder) == []
    collections.close()


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing", "foreign"])
def test_a_snapshot_that_cannot_be_used_is_built_anew(collections, folder, built, caplog, damage, uses):
    other = collections.create("other", definition(), DIM, "tiny")[0]
    put(other, [f"o{i}" for i in range(50)])
    collections.wait_for_builds()
    snapshots = {name: collections.get(name)._row.snapshot for name in ("notes", "other")}
    collections.close()
    path = folder / "indexes" / snapshots["notes"]
    match damage:
        case "flipped":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
        case "truncated":
            os.truncate(path, path.stat().st_size - 100)
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "foreign":
            shutil.copy(path.with_name(snapshots["other"]), path)
    reopened = EmbeddedEngine(folder)
    assert "collection 'notes': the snapshot of its index cannot be used" in caplog.text
    check(reopened.get("notes"), TEXTS)
    check(reopened.get("other"), [f"o{i} in version 0" for i in range(50)])
    reopened.wait_for_builds()
    assert reopened.get("notes").index_state().uses == uses
    check(reopened.get("notes"), TEXTS)
    assert len(names(folder)) == 2
    reopened.close()


def test_what_nothing_names_is_removed_at_the_start(collections, folder, built):
    collections.close()
    for name in ("left.partial", "left.index", "other.txt"):
        (folder / "indexes" / name).write_text("x")
    reopened = EmbeddedEngine(folder)
    assert len(names(folder)) == 2 and "other.txt" in names(folder)
    check(reopened.get("notes"), TEXTS)
    reopened.close()


def test_a_reindex_leaves_no_snapshot_of_the_vectors_before(collections, folder, built, monkeypatch, tiny):
    """Keys stay as they are then, so that the snapshot would fit but for its name."""
    (name,) = names(folder)
    monkeypatch.setattr(tiny, "exact_below", 10_000)
    built.begin_rebuild(definition(turn=2), DIM)
    while batch := built.unbuilt():
        vectors = np.stack([vector_of(document.text[::-1]) for _, document in batch])
        built.put_rebuilt(definition(turn=2), [key for key, _ in batch], vectors)
    copied = (folder / "indexes" / name).read_bytes()
    assert built.finish_rebuild()
    assert names(folder) == []
    (folder / "indexes" / name).write_bytes(copied)
    collections.close()
    reopened = EmbeddedEngine(folder)
    collection = reopened.get("notes")
    assert collection.index_state().uses == "exact"
    for text in TEXTS:
        assert collection.search(vector_of(text[::-1])[None], 1)[0][0].text == text
    reopened.close()


@pytest.mark.parametrize("ends", ["drop", "reindex", "close"])
def test_a_build_that_comes_too_late_leaves_nothing(collections, folder, monkeypatch, ends, tiny, uses):
    """The collection is dropped, gets other vectors, or is closed when its graph is done and not yet published."""
    done, released = threading.Event(), threading.Event()

    class Late(tiny):
        def begin(self):
            build = super().begin()

            class Waiting:
                def run(self, stopped):
                    part = build.run(lambda: False)
                    done.set()
                    assert released.wait(60)
                    return part

            return Waiting()

    monkeypatch.setitem(KINDS, "tiny", Late)
    collection = collections.create("notes", definition(), DIM, "tiny")[0]
    put(collection, [f"d{i}" for i in range(60)])
    assert done.wait(60) and len(names(folder)) == 1
    match ends:
        case "drop":
            collections.drop("notes")
        case "reindex":
            monkeypatch.setattr(Late, "exact_below", 10_000)
            collection.begin_rebuild(definition(turn=2), DIM)
            batch = collection.unbuilt()
            vectors = np.stack([vector_of(document.text) for _, document in batch])
            collection.put_rebuilt(definition(turn=2), [key for key, _ in batch], vectors)
            assert collection.finish_rebuild()
    released.set()
    if ends == "close":
        collections.close()
        collections = EmbeddedEngine(folder)
        collection = collections.get("notes")
    collections.wait_for_builds()
    if ends == "drop":
        assert names(folder) == [] and collections.list() == []
    else:
        check(collection, [f"d{i} in version 0" for i in range(60)])
        assert collection.index_state().uses == ("exact" if ends == "reindex" else uses)
        assert len(names(folder)) == (ends == "close")
    collections.close()


def test_where_no_snapshot_can_be_written_searches_are_exact(collections, folder, caplog, uses):
    (folder / "indexes").write_text("in the way")
    collection = collections.create("notes", definition(), DIM, "tiny")[0]
    put(collection, [f"d{i}" for i in range(60)])
    collections.wait_for_builds()
    state = collection.index_state()
    assert state.uses == "exact" and "indexes" in state.problem
    check(collection, [f"d{i} in version 0" for i in range(60)])
    (folder / "indexes").unlink()
    put(collection, [f"e{i}" for i in range(60)])
    collections.wait_for_builds()
    assert (collection.index_state().uses, collection.index_state().problem) == (uses, None)


FILL = """
import sys
from pathlib import Path
from tests.service.collections import test_snapshots
from tests.service.collections.test_snapshots import KINDS, definition, put, DIM
from service.collections.embedded import EmbeddedEngine
KINDS["tiny"] = getattr(test_snapshots, sys.argv[2])
collections = EmbeddedEngine(Path(sys.argv[1]))
collection = collections.create("notes", definition(), DIM, "tiny")[0]
version = collection.count()
print("ready", flush=True)
while True:
    version += 1
    put(collection, [f"d{i}" for i in range(version % 7, 400, 7)], version)
    print(version, flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_snapshots_are_written_loses_nothing(folder, start, tiny):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for _ in range(4):
        process = start(FILL, folder, tiny.__name__)
        assert process.stdout.readline() == "ready\n"
        for _ in range(rng.randrange(3, 25)):
            process.stdout.readline()
        process.kill()
        process.communicate()
        reopened = EmbeddedEngine(folder)
        collection = reopened.get("notes")
        check(collection, [document.text for document in collection.documents()])
        reopened.wait_for_builds()
        check(collection, [document.text for document in collection.documents()])
        assert len(names(folder)) == len((collection._row.snapshot or "").split()), seed
        reopened.close()


@pytest.fixture
def due(collections, monkeypatch):
    """A collection whose graph is due, and built by the test itself, 10 vectors at a time."""
    monkeypatch.setattr(Builder, "ask", lambda *_: None)
    monkeypatch.setattr("service.index.hnsw._STEP", 10)
    collection = collections.create("notes", definition(), DIM, "tiny")[0]
    put(collection, [f"d{i}" for i in range(60)])
    return collection


@pytest.mark.parametrize("ends", ["drop", "reindex"])
def test_a_build_ends_when_its_vectors_are_no_longer_searched(collections, folder, due, uses, ends):
    asked = []

    def stopped():
        asked.append(None)
        match len(asked), ends:
            case 2, "drop":
                collections.drop("notes")
            case 2, "reindex":
                due.begin_rebuild(definition(turn=2), DIM)
                batch = due.unbuilt()
                vectors = np.stack([vector_of(document.text) for _, document in batch])
                due.put_rebuilt(definition(turn=2), [key for key, _ in batch], vectors)
                assert due.finish_rebuild()
        return False

    due.build(stopped)
    assert len(asked) == 2
    assert names(folder) == []
    if ends == "reindex":
        due.build(lambda: False)
        assert due.index_state().uses == uses and len(names(folder)) == 1
        check(due, [f"d{i} in version 0" for i in range(60)])


def test_a_build_goes_on_beside_changes(collections, folder, due, uses):
    asked = []

    def stopped():
        asked.append(None)
        put(due, [f"e{len(asked)}"])
        return False

    due.build(stopped)
    state = due.index_state()
    assert (state.uses, state.tail) == (uses, len(asked))
    check(due, [f"d{i} in version 0" for i in range(60)] + [f"e{i + 1} in version 0" for i in range(len(asked))])


def test_a_build_tells_how_far_it_is(collections, due, uses, monkeypatch, caplog):
    monkeypatch.setattr("service.collections.embedded.progress._EVERY", 0)
    caplog.set_level("INFO")
    seen = []

    def stopped():
        seen.append(due.index_state().building)
        return False

    assert due.index_state().building is None
    due.build(stopped)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1
    if uses == "hnsw":
        assert seen[:7] == [0, 0.167, 0.333, 0.5, 0.667, 0.833, 1]
    assert due.index_state().building is None
    told = [record.getMessage().removeprefix("collection 'notes': ") for record in caplog.records]
    assert told[0] == "the index of 60 vectors is being built; searches are exact until then"
    assert told[1] == "0 % of the index is built" and len(set(told)) > 3
    assert told[-1].startswith("the index is built, in ")
    caplog.clear()
    put(due, [f"e{i}" for i in range(40)])
    due.build(lambda: False)
    assert not caplog.records  # as the graph that is there is searched meanwhile


def test_a_snapshot_that_the_store_does_not_name_is_removed(folder, due):
    """As where the disk is full."""
    with sqlite3.connect(folder / "millpond.sqlite3") as other:
        other.execute(
            "CREATE TRIGGER refusing BEFORE UPDATE OF snapshot ON collections BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    other.close()
    with pytest.raises(StoreUnavailable, match="full"):
        due.build(lambda: False)
    assert names(folder) == []
    check(due, [f"d{i} in version 0" for i in range(60)])
    assert due.index_state().building is None

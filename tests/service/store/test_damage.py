"""Files that are cut short or have other bits than were written: a clean recovery, or an error in words."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.selection import Selection
from service.errors import ServiceError, StoreDamaged, StoreUnavailable
from service.index import KINDS
from service.index.base import DamagedSnapshot
from service.index.graph import Graph
from service.index.hnsw import HnswIndex
from service.index.snapshot import load
from service.similarity import COSINE
from service.store import Chunked, Document
from service.store.backup import back_up, restore
from service.store.store import FILE, Store
from tests.support.definitions import definition

DIM = 8
ALL = np.ones((1, DIM), np.float32)


class Tiny(HnswIndex):
    kind = "tiny"
    exact_below = 40
    most_tail = 30


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(KINDS, "tiny", Tiny)


def vector_of(text):
    return np.random.default_rng([*text.encode()]).normal(size=DIM).astype(np.float32)


def put(collection, ids, version=0):
    texts = [f"{id_} in version {version}" for id_ in ids]
    documents = [
        Document(id_, text, {"version": version, "of": {"list": [id_, "x" * 300]}})
        for id_, text in zip(ids, texts, strict=True)
    ]
    collection.upsert(documents, np.stack([vector_of(text) for text in texts]))


def state(collection):
    """What a collection holds, by each of the ways to ask for it, which have to agree."""
    stored = {document.id: (document.text, document.metadata["version"]) for document in collection.documents()}
    texts = {id_: text for id_, (text, _) in stored.items()}
    (hits,) = collection.search(ALL, 10_000)
    assert {hit.id: hit.text for hit in hits} == texts and collection.count() == len(texts)
    (hits,) = collection.search_keywords([collection.terms("version")], 10_000)
    assert {hit.id: hit.text for hit in hits} == texts
    for version in {version for _, version in stored.values()}:
        matching = collection.page(10_000, filter={"version": version}).documents
        assert {each.document.id for each in matching} == {id_ for id_, (_, v) in stored.items() if v == version}
    return stored


def copied(folder, to):
    """A store as a killed process leaves it: its file and its log."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    return to


@pytest.fixture
def log(collections, folder, tmp_path):
    """A store whose changes are in its log alone, and all the states that it was in, from the empty one on."""
    collection = collections.create("notes", definition(), DIM, "tiny")[0]
    states = [{}]

    def noted(change, *arguments):
        change(*arguments)
        states.append(state(collection))

    noted(put, collection, [f"d{i}" for i in range(50)])
    collections.wait_for_builds()
    for number in range(1, 6):
        noted(put, collection, [f"d{i}" for i in range(number, 60, 7)], number)
        noted(collection.delete, f"d{number}")
        noted(collection.update_metadata, Selection([f"d{number + 20}"]), lambda metadata: metadata | {"version": 99})
        collections.wait_for_builds()
    assert 50 < (folder / f"{FILE}-wal").stat().st_size / 4096 < 1000  # from there on, it is brought into the file
    return copied(folder, tmp_path / "killed"), states


def recovered(folder):
    """What a store holds once it is opened; None where it has no collection yet."""
    opened = EmbeddedEngine(folder)
    try:
        return state(opened.get("notes")) if opened.list() else None
    finally:
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_of_a_damaged_log_all_that_comes_before_is_kept(log, tmp_path, damage):
    """Each change as a whole: SQLite has a checksum of each part of its log."""
    folder, states = log
    size = (folder / f"{FILE}-wal").stat().st_size
    rng = random.Random(13)
    places = sorted([0, 10, 32, 33, size - 1, size, *(rng.randrange(size) for _ in range(20))])
    last = -1
    for number, place in enumerate(places):
        damaged = copied(folder, tmp_path / str(number))
        with (damaged / f"{FILE}-wal").open("r+b") as file:
            if damage == "cut":
                file.truncate(place)
            elif place < size:
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))
        found = recovered(damaged)
        reached = -1 if found is None else states.index(found)
        assert reached >= last, place
        last = reached
        assert recovered(damaged) == found
    assert last == len(states) - 1


@pytest.mark.slow
def test_a_log_that_is_not_there(log):
    """As where a store's file was copied alone: it is what the file has."""
    folder, _ = log
    (folder / f"{FILE}-wal").unlink()
    with suppress(StoreUnavailable):
        recovered(folder)


@pytest.fixture
def whole(collections, folder, tmp_path):
    """A closed store with a bit of everything, whose file has all of it."""
    notes = collections.create("notes", definition(), DIM, "tiny")[0]
    put(notes, [f"d{i}" for i in range(120)])
    collections.wait_for_builds()
    spans = collections.create("spans", definition(), DIM)[0]
    documents = [Document(f"s{i}", "two parts", {"version": 0}) for i in range(20)]
    vectors = np.random.default_rng(0).normal(size=(40, DIM)).astype(np.float32)
    spans.upsert(documents, Chunked(vectors, [((0, 3), (4, 9))] * 20))
    notes.begin_rebuild(definition(turn=2), DIM)
    collections.alias("live", "notes")
    collections.close()
    return folder


def use(folder):
    """Do everything once; return what was refused."""
    refusals = []

    def attempt(action, *arguments, **options):
        try:
            return action(*arguments, **options)
        except ServiceError as error:
            refusals.append(error)
            return None

    opened = attempt(EmbeddedEngine, folder)
    if opened is None:
        return refusals
    for collection in list(opened.list()):
        _ask(collection, attempt)
        attempt(put, collection, ["d1", "new"], 7)
        attempt(collection.delete, "d2")
        attempt(collection.update_metadata, Selection(all=True), lambda metadata: metadata | {"more": 1})
        attempt(collection.finish_rebuild)
        attempt(opened.copy, collection.name, f"{collection.name}-copy")
        _ask(collection, attempt)
        attempt(collection.delete_many, Selection(all=True))
    attempt(lambda: asyncio.run(opened.compact()))
    opened.wait_for_builds()
    opened.close()
    return refusals


def _ask(collection, attempt):
    attempt(lambda: list(collection.documents()))
    attempt(lambda: list(collection.exported()))
    attempt(collection.fetch, "d7")
    attempt(collection.fetch_many, ["d8", "s8"], vectors=True)
    attempt(collection.page, 1000, vectors=True)
    attempt(collection.search, ALL, 1000)
    attempt(collection.search, ALL, 1000, {"version": {"$gte": 0}}, grouped=True)
    attempt(collection.search_keywords, [collection.terms("version two")], 1000, {"of.list": {"$contains": "x"}})
    attempt(collection.search_hybrid, ALL, [collection.terms("version")], 10)
    attempt(collection.recommend, ["d8"], ["d9"], 10)
    attempt(collection.count_matching, {"nothing": 1})
    attempt(collection.rebuild)
    attempt(collection.unbuilt)
    attempt(collection.precisions)
    attempt(collection.stored_bytes)


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_file_is_told_and_never_a_bug(whole, tmp_path, damage, rounds):
    """SQLite has no checksum of what is in its file, so that a flipped bit may be nothing but another letter."""
    rng = random.Random(rounds)
    size = (whole / FILE).stat().st_size
    told = 0
    for number in range(rounds):
        folder = copied(whole, tmp_path / str(number))
        with (folder / FILE).open("r+b") as file:
            place = rng.randrange(size)
            if damage == "cut":
                file.truncate(place)
            else:
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))
        refusals = use(folder)
        told += any("Restore the file from a backup" in str(error) for error in refusals)
        for error in refusals:
            assert isinstance(error, ServiceError) and error.detail.endswith("."), place
        shutil.rmtree(folder)
    assert damage == "flipped" or told > rounds / 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE documents SET metadata = '{' WHERE id = 'd7'", r"document \d+ cannot be read"),
        ("UPDATE documents SET text = CAST(x'ff41' AS TEXT) WHERE id = 'd7'", "decode to UTF-8"),
        ("UPDATE chunks SET spans = x'00' WHERE document = (SELECT key FROM documents WHERE id = 's7')", "numbers"),
        (
            "UPDATE documents SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB) WHERE id = 'd7'",
            "numbers that are none",
        ),
        ("UPDATE collections SET definition = '{' WHERE name = 'notes'", r"collection \d+ cannot be read"),
        ("UPDATE collections SET created = 'once' WHERE name = 'notes'", r"collection \d+ cannot be read"),
        ("UPDATE keywords SET tokenizer = 'porteq'", r"collection \d+ cannot be read"),
        ("DELETE FROM documents WHERE id = 'd7'", "malformed|documents that an index has are missing"),
    ],
)
def test_what_is_damaged_is_named(whole, change, words):
    with sqlite3.connect(whole / FILE) as connection:
        connection.execute(change)
    connection.close()
    refusals = use(whole)
    if "DELETE" in change:  # which the keyword index does not know of
        assert any("Restore the file from a backup" in str(error) for error in refusals)
    else:
        assert any("Restore the file from a backup" in str(error) for error in refusals)
        with pytest.raises(StoreUnavailable, match=words):
            raise refusals[0]


def snapshot_of(folder):
    (path,) = (folder / "indexes").glob("*.index")
    return path


def test_a_damaged_snapshot_is_never_taken_for_whole(whole):
    """Wherever it is cut or has another bit."""
    path = snapshot_of(whole)
    content = path.read_bytes()
    graph = Graph.of(load(path.parent, path.name, DIM, COSINE, "hnsw"))
    assert len(graph) == 120
    rng = random.Random(13)
    places = [*range(0, 400, 20), 4095, 4096, len(content) - 1, *(rng.randrange(len(content)) for _ in range(30))]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        for damaged in (bytes(flipped), content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(DamagedSnapshot):
                load(path.parent, path.name, DIM, COSINE, "hnsw")


def test_a_snapshot_that_is_cut_under_a_service_is_replaced(whole):
    """A search that reads it is refused, and the next finds what is stored, as does a change."""
    opened = EmbeddedEngine(whole)
    notes = opened.get("notes")
    before = state(notes)
    assert notes.index_state().uses == "hnsw"
    path = snapshot_of(whole)
    for change in (lambda: None, lambda: put(notes, ["d1"], 1), lambda: notes.delete("d1")):
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(StoreUnavailable, match=r"the snapshot of its index cannot be read.*repeat the request"):
            notes.search(ALL, 1000, exact=True)
        change()
        after = state(notes)
        assert after.keys() in (before.keys(), before.keys() - {"d1"})
        opened.wait_for_builds()
        assert notes.index_state().uses == "hnsw" and state(notes) == after
        path = snapshot_of(whole)
    opened.close()


LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_another_program_that_holds_the_database(folder, collections, start):
    """Such as an editor of databases, which takes no heed of the store's lock."""
    notes = collections.create("notes", definition(), DIM)[0]
    put(notes, ["a", "b"])
    before = state(notes)
    other = start(LOCKING, folder / FILE)
    assert other.stdout.readline() == "locked\n"
    for change in (lambda: put(notes, ["a"], 1), lambda: notes.delete("a")):
        with pytest.raises(StoreUnavailable, match="Another program holds the database: close it"):
            change()
    assert state(notes) == before
    other.communicate("")
    notes.delete("a")
    assert state(notes).keys() == {"b"}


def test_a_backup_of_a_damaged_store_is_refused(whole, tmp_path):
    with (whole / FILE).open("r+b") as file:
        file.truncate((whole / FILE).stat().st_size // 2)
    with pytest.raises(ServiceError, match=r"damaged|malformed"):
        back_up(whole, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("logged", [False, True], ids=["without a log", "with a log"])
def test_a_file_of_no_bytes_is_refused_and_left_as_it_is(tmp_path, logged):
    folder = tmp_path / "store"
    engine = EmbeddedEngine(folder)
    put(engine.create("c", definition(), DIM, "flat")[0], ["a", "b"])
    back_up(folder, tmp_path / "backup")
    if logged:
        shutil.copytree(folder, tmp_path / "killed")
    engine.close()
    folder = tmp_path / "killed" if logged else folder
    os.truncate(folder / FILE, 0)
    log = folder / f"{FILE}-wal"
    before = log.read_bytes() if logged else b""
    with pytest.raises(StoreDamaged, match=r"has 0 bytes.* Restore .* backup, or move it away"):
        Store(folder)
    assert (folder / FILE).stat().st_size == 0
    assert (log.read_bytes() if logged else b"") == before
    restore(tmp_path / "backup", folder, force=True)
    engine = EmbeddedEngine(folder)
    assert {document.id for document in engine.get("c").documents()} == {"a", "b"}
    engine.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from service.store.store import Store
left = int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("sqlite3.connect", "sqlite3.connect/handle", "os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
Store(Path(sys.argv[1])).close()
"""


@pytest.mark.slow
def test_a_kill_amid_the_first_start_hinders_no_other(tmp_path):
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(moment)], check=False)
        Store(folder).close()
        assert (folder / FILE).stat().st_size
        assert {path.name for path in folder.iterdir()} == {FILE, "millpond.lock"}
        if ended.returncode != -signal.SIGKILL:
            break
    assert ended.returncode == 0 and moment > 4


@pytest.mark.parametrize("left", ["", "-journal"])
def test_what_a_kill_leaves_of_a_file_that_was_begun_is_no_store(tmp_path, left):
    Store(tmp_path / "other").close()
    back_up(tmp_path / "other", tmp_path / "backup")
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / f"{FILE}.begun{left}").write_bytes(b"no page")
    restore(tmp_path / "backup", folder)
    (folder / FILE).unlink()
    Store(folder).close()
    assert {path.name for path in folder.iterdir()} == {FILE, "millpond.lock"}

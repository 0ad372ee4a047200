"""Disks that fill or cannot be written: each change is whole or refused in words, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.selection import Selection
from service.errors import NoSpace, ServiceError, StoreUnavailable
from service.index import KINDS
from service.index.hnsw import HnswIndex
from service.store import Document
from service.store.backup import back_up, restore
from service.store.store import FILE
from tests.support.definitions import definition
from tests.support.disks import PAGE, CannotMount, read_only
from tests.support.tiers import first_fast

DIM = 8
MEGABYTE = 1 << 20


class Tiny(HnswIndex):
    kind = "tiny"
    exact_below = 40


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(KINDS, "tiny", Tiny)


def vector_of(text):
    return np.random.default_rng([*text[:40].encode()]).normal(size=DIM).astype(np.float32)


class Notes:
    """A collection and what it has to hold: documents by id, as text and number."""

    def __init__(self, folder):
        self.folder = folder
        self.kept = {}
        self.copies = {}
        self.opened = EmbeddedEngine(folder)
        self.collection = self.opened.create("notes", definition(), DIM, "tiny")[0]

    def put(self, ids, size=2000, number=0):
        texts = [f"{id_} {number} common {'x' * size}" for id_ in ids]
        documents = [Document(id_, text, {"number": number}) for id_, text in zip(ids, texts, strict=True)]
        self.collection.upsert(documents, np.stack([vector_of(text) for text in texts]))
        self.kept |= dict(zip(ids, zip(texts, [number] * len(ids), strict=True), strict=True))

    def delete(self, id_):
        if id_ in self.kept:
            self.collection.delete(id_)
            del self.kept[id_]

    def number(self, ids, number):
        self.collection.update_metadata(Selection(ids), lambda metadata: {"number": number})
        self.kept |= {id_: (self.kept[id_][0], number) for id_ in ids}

    def copy(self, name):
        self.opened.copy("notes", name)
        self.copies[name] = dict(self.kept)

    def compact(self):
        asyncio.run(self.opened.compact())

    def check(self):
        """Check that each collection has exactly that, however it is asked."""
        expected = {"notes": self.kept} | self.copies
        assert {each.name for each in self.opened.list()} == expected.keys()
        for name, kept in expected.items():
            collection = self.opened.get(name)
            found = {document.id: document for document in collection.documents()}
            assert {id_: (each.text, each.metadata["number"]) for id_, each in found.items()} == kept
            (hits,) = collection.search(np.ones((1, DIM), np.float32), 10_000)
            assert {hit.id: hit.text for hit in hits} == {id_: text for id_, (text, _) in kept.items()}
            (hits,) = collection.search_keywords([collection.terms("common")], 10_000)
            assert {hit.id for hit in hits} == kept.keys()
            for number in {number for _, number in kept.values()}:
                having = sum(one == number for _, one in kept.values())
                assert collection.count_matching({"number": number}) == having

    def reopen(self):
        self.opened.close()
        self.opened = EmbeddedEngine(self.folder)
        self.collection = self.opened.get("notes")


@pytest.fixture
def small(disk):
    return disk(6 * MEGABYTE)


@pytest.fixture
def notes(small):
    notes = Notes(small.folder / "store")
    notes.put([f"d{i}" for i in range(100)])
    yield notes
    notes.opened.close()


def refused(action, *arguments):
    """Whether an action was refused, which it is in words."""
    try:
        action(*arguments)
        return False
    except StoreUnavailable as error:
        assert str(error).count("free some space") or "full, over quota" in str(error), error
        assert "Nothing stored" in str(error), error
        return True


@pytest.mark.slow
def test_a_disk_that_fills_loses_nothing_and_heals(small, notes):
    for number in range(1000):
        if refused(notes.put, [f"d{i}" for i in range(20 * number, 20 * number + 100)], 5000, number):
            break
    else:
        pytest.fail("the disk did not fill")
    notes.check()
    small.fill()
    changes = [
        (notes.put, ["new"], 100_000),
        (notes.delete, "d99"),
        (notes.number, ["d98", "d97"], 5000),
        (notes.copy, "copy"),
        (notes.compact,),
    ]
    outcomes = [refused(*change) for change in changes * 3]
    assert any(outcomes)
    notes.check()
    small.empty()
    small.resize(20 * MEGABYTE)  # a store that has filled a disk alone cannot even delete, which is a change as well
    gone = [*notes.kept][20:]
    notes.collection.delete_many(Selection(gone))
    notes.kept = {id_: kept for id_, kept in notes.kept.items() if id_ not in gone}
    notes.compact()
    notes.check()
    small.empty()
    notes.put(["last"])
    notes.reopen()
    notes.check()


def test_a_copy_that_does_not_fit_is_not_made(small, notes):
    notes.put([f"e{i}" for i in range(300)])
    small.fill(leave=MEGABYTE // 4)
    assert refused(notes.copy, "copy")
    notes.check()
    small.empty()
    notes.copy("copy")
    notes.check()
    notes.reopen()
    notes.check()


def test_a_store_on_a_full_disk_is_opened_or_refused_in_words(small, notes):
    for _ in range(3):
        small.fill()
        refused(notes.reopen)
        small.empty()
        notes.reopen()
        notes.check()
        notes.put(["new"], size=100_000)


def test_compacting_a_full_disk(small, notes):
    notes.put([f"e{i}" for i in range(300)])
    notes.collection.delete_many(Selection([f"e{i}" for i in range(300)]))
    notes.kept = {id_: kept for id_, kept in notes.kept.items() if not id_.startswith("e")}
    small.fill()
    refused(notes.compact)
    notes.check()
    with pytest.raises(NoSpace, match=r"MB of free disk in .*store, and there are 0\.0 MB"):
        asyncio.run(notes.opened.compact(rebuild=True))
    notes.check()
    small.empty()
    before, after = asyncio.run(notes.opened.compact())
    assert after.free == 0 and after.bytes < before.bytes / 2
    notes.check()


def snapshots(folder):
    return sorted(path.name for path in (folder / "indexes").glob("*"))


def test_a_snapshot_that_does_not_fit_is_not_there(disk, tmp_path):
    """Whichever part of it does not: it is built again with the next start."""
    folder = tmp_path / "store"
    (folder / "indexes").mkdir(parents=True)
    small = disk(MEGABYTE, folder / "indexes")
    notes = Notes(folder)
    small.fill()
    notes.put([f"d{i}" for i in range(60)], size=100)
    tried = 0
    for pages in range(100):
        small.fill(leave=pages * PAGE)
        notes.reopen()
        notes.opened.wait_for_builds()
        notes.check()
        state = notes.collection.index_state()
        small.empty()
        if state.uses == "hnsw":
            break
        tried += 1
        assert "No space left on device" in state.problem and snapshots(folder) == []
    assert tried >= 3 and len(snapshots(folder)) == 1
    notes.put(["new"])
    notes.reopen()
    assert notes.collection.index_state().uses == "hnsw"
    notes.check()
    notes.opened.close()


def test_snapshots_that_cannot_be_written(disk, tmp_path):
    folder = tmp_path / "store"
    (folder / "indexes").mkdir(parents=True)
    small = disk(MEGABYTE, folder / "indexes")
    small.make_read_only()
    notes = Notes(folder)
    notes.put([f"d{i}" for i in range(60)], size=100)
    notes.opened.wait_for_builds()
    assert "Read-only file system" in notes.collection.index_state().problem
    notes.check()
    small.make_writable()
    notes.reopen()
    notes.opened.wait_for_builds()
    assert notes.collection.index_state().uses == "hnsw"
    notes.check()
    notes.opened.close()


def test_a_backup_to_a_full_disk(small, notes, tmp_path):
    back_up(notes.folder, tmp_path / "good")
    small.fill()
    with pytest.raises(NoSpace, match=r"has 0\.0 MB free. Free some space or choose another disk"):
        back_up(notes.folder, small.folder / "backup")
    with pytest.raises(ServiceError, match=r"[Ff]ree some space|No space left"):
        restore(tmp_path / "good", small.folder / "other")
    assert not (small.folder / "backup").exists() and not (small.folder / "other" / FILE).exists()
    notes.check()


def test_a_disk_that_is_mounted_read_only(small, notes, tmp_path):
    """It can be copied from there."""
    notes.opened.close()
    small.make_read_only()
    with pytest.raises(StoreUnavailable, match=r"Read-only file system.*Mount it writable, or copy the store"):
        EmbeddedEngine(notes.folder)
    back_up(notes.folder, tmp_path / "backup")
    notes.folder = tmp_path / "restored"
    restore(tmp_path / "backup", notes.folder)
    notes.reopen()
    notes.check()


def test_a_disk_that_is_mounted_read_only_after_a_crash(small, notes, tmp_path):
    """The log of changes takes a disk that can be written."""
    shutil.copytree(notes.folder, small.folder / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    notes.opened.close()
    small.make_read_only()
    for action in (EmbeddedEngine, lambda folder: back_up(folder, tmp_path / "backup")):
        with pytest.raises(ServiceError, match=r"writable"):
            action(small.folder / "crashed")
    small.make_writable()
    notes.folder = small.folder / "crashed"
    notes.reopen()
    notes.check()


def test_a_file_that_cannot_be_written(folder):
    notes = Notes(folder)
    notes.put(["a"])
    notes.opened.close()
    try:
        with (
            read_only(folder / FILE),
            pytest.raises(StoreUnavailable, match="Make the folder and its files writable"),
        ):
            EmbeddedEngine(folder)
    except CannotMount as error:
        pytest.skip(str(error))
    notes.reopen()
    notes.check()
    notes.opened.close()


@pytest.mark.parametrize("names", first_fast([f"{FILE}-wal", FILE]))
def test_files_that_can_no_longer_be_written(folder, names):
    """As where a disk begins to fail below a service."""
    notes = Notes(folder)
    notes.put([f"d{i}" for i in range(100)])
    try:
        frozen = subprocess.run(["chattr", "+i", folder / names], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `chattr`")
    if frozen.returncode:
        pytest.skip(f"no file can be made immutable here: {frozen.stderr.strip()}")
    try:
        outcomes = []
        for number in range(20):
            for change in ((notes.put, ["a"], 300_000, number), (notes.delete, "d1"), (notes.compact,)):
                try:
                    change[0](*change[1:])
                    outcomes.append("done")
                except (StoreUnavailable, KeyError, ServiceError) as error:
                    outcomes.append(str(error))
            notes.check()
        assert any("The disk refused" in outcome for outcome in outcomes) or names == FILE
    finally:
        subprocess.run(["chattr", "-i", folder / names], check=True)
    notes.put(["z"])
    notes.reopen()
    notes.check()
    notes.opened.close()
    with sqlite3.connect(folder / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert os.access(folder / names, os.W_OK) or names != FILE

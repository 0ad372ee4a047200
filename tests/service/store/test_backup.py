"""Backups of a store that is in use, and what puts them back."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import threading

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.errors import BadBackup, NoSpace, ServiceError, StoreUnavailable
from service.store import Document
from service.store.backup import CHECKSUM, SNAPSHOTS, back_up, restore
from service.store.store import FILE
from tests.support.definitions import definition


def put(collection, first, count=1):
    documents = [Document(str(i), f"text {i} " * 20, {"i": i}) for i in range(first, first + count)]
    collection.upsert(documents, np.ones((count, 8), np.float32))


@pytest.fixture
def notes(collections):
    notes = collections.create("notes", definition(), 8)[0]
    put(notes, 0, 500)
    return notes


def ids(folder):
    """The documents of a store, or of a copy of a backup, which being opened would change."""
    if (folder / CHECKSUM).exists():
        shutil.copytree(folder, folder.parent / "opened", ignore=shutil.ignore_patterns(CHECKSUM))
        found = ids(folder.parent / "opened")
        shutil.rmtree(folder.parent / "opened")
        return found
    opened = EmbeddedEngine(folder)
    hits = opened.get("notes").search(np.ones((1, 8), np.float32), 100_000)[0]
    opened.close()
    return {int(hit.id) for hit in hits}


def test_a_backup_of_a_store_in_use_is_a_store(folder, notes, tmp_path):
    seen = []
    copied = back_up(folder, tmp_path / "backups" / "one", lambda done, total: seen.append((done, total)))
    file = tmp_path / "backups" / "one" / FILE
    assert copied.bytes == file.stat().st_size
    assert copied.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (file.parent / CHECKSUM).read_text() == f"{copied.sha256}  {FILE}\n"
    assert {entry.name for entry in file.parent.iterdir()} == {FILE, CHECKSUM}
    assert [entry.name for entry in file.parent.parent.iterdir()] == ["one"]
    assert seen[-1][0] == seen[-1][1] > 0
    put(notes, 500)
    assert ids(file.parent) == set(range(500))
    assert notes.count() == 501


LOCKING = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    try:
        fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)  # by which a process knows that it is the first
    except BlockingIOError:
        print("held")
"""


def test_another_process_sees_that_a_store_is_in_use(folder, notes, start):
    """Else that of a backup takes the index of the log for one that was left, and cuts it under the service."""
    index = folder / f"{FILE}-shm"
    assert start(LOCKING, index).communicate()[0] == "held\n"
    put(notes, 500)
    assert start(LOCKING, index).communicate()[0] == "held\n"


def test_a_backup_is_one_moment_of_a_store_that_is_written_to(folder, notes, tmp_path):
    """What was acknowledged before it began is in it, and each request is in it whole or not at all."""
    stop = threading.Event()
    acknowledged = [500]

    def write():
        while not stop.is_set():
            put(notes, acknowledged[0], 10)
            acknowledged[0] += 10

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = acknowledged[0]
            back_up(folder, tmp_path / str(number))
            found = ids(tmp_path / str(number))
            assert set(range(before)) <= found == set(range(len(found))) and len(found) % 10 == 0
    finally:
        stop.set()
        writer.join()


def test_restored_into_an_empty_folder_and_in_place_of_a_store(folder, collections, notes, tmp_path):
    back_up(folder, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    assert ids(tmp_path / "new") == set(range(500))
    put(notes, 500)
    with pytest.raises(BadBackup, match=r"holds a store.*--force"):
        restore(tmp_path / "backup", folder)
    with pytest.raises(StoreUnavailable, match=r"another process has this store open. Stop it"):
        restore(tmp_path / "backup", folder, force=True)
    assert notes.count() == 501
    collections.close()
    assert ids(folder) == set(range(501))
    (folder / SNAPSHOTS).mkdir(exist_ok=True)
    (folder / SNAPSHOTS / "of-the-old-store").write_text("x")
    restore(tmp_path / "backup", folder, force=True)
    assert not (folder / SNAPSHOTS).exists()
    assert ids(folder) == set(range(500))


@pytest.mark.slow
def test_a_log_that_was_left_is_not_read_as_that_of_the_backup(folder, start, tmp_path):
    """A store whose service was killed has its last changes in the log, which ends with the store."""
    opened = EmbeddedEngine(folder)
    put(opened.create("notes", definition(), 8)[0], 0, 5)
    opened.close()
    back_up(folder, tmp_path / "backup")
    program = """
import os, sys
from pathlib import Path
import numpy as np
from service.collections.embedded import EmbeddedEngine
from service.store import Document
notes = EmbeddedEngine(Path(sys.argv[1])).get("notes")
notes.upsert([Document("99", "text", {})], np.ones((1, 8), np.float32))
os._exit(0)
"""
    start(program, folder).communicate()
    assert (folder / f"{FILE}-wal").stat().st_size > 0
    back_up(folder, tmp_path / "later")
    assert ids(tmp_path / "later") == {*range(5), 99}  # of a store that is not in use, with its log
    restore(tmp_path / "backup", folder, force=True)
    assert ids(folder) == set(range(5))


def test_destinations_that_are_refused(folder, notes, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    back_up(folder, tmp_path / "earlier")
    for destination, message in (
        (folder, "is the store itself"),
        (tmp_path / "link", "is the store itself"),
        (folder / "backup", "lies in the store's folder"),
        (tmp_path / "earlier", "holds a store or a backup already"),
        (tmp_path / "full", "is not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "Choose a folder"),
    ):
        with pytest.raises(BadBackup, match=message):
            back_up(folder, destination)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    with pytest.raises(BadBackup, match="holds no store"):
        back_up(tmp_path / "full", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert notes.count() == 500
    (tmp_path / "empty").mkdir()
    back_up(folder, tmp_path / "empty")
    assert ids(tmp_path / "empty") == set(range(500))


def test_damaged_and_foreign_backups_are_refused(folder, notes, tmp_path):
    back_up(folder, tmp_path / "good")
    target = tmp_path / "target"

    def variant(name):
        shutil.copytree(tmp_path / "good", tmp_path / name)
        return tmp_path / name / FILE

    file = variant("flipped")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadBackup, match="is damaged, or was served"):
        restore(file.parent, target)

    file = variant("damaged")
    content = bytearray(file.read_bytes())
    content[4096 * 4 : -4096] = bytes(len(content) - 4096 * 5)
    file.write_bytes(content)
    (file.parent / CHECKSUM).unlink()
    with pytest.raises(ServiceError, match=r"damaged|malformed"):
        restore(file.parent, target)

    file = variant("theirs")
    file.unlink()
    (file.parent / CHECKSUM).unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(BadBackup, match="is no store that this version"):
        restore(file.parent, target)

    with pytest.raises(BadBackup, match="holds no backup"):
        restore(tmp_path / "nothing", target)
    with pytest.raises(BadBackup, match="is the backup itself"):
        restore(tmp_path / "good", tmp_path / "good", force=True)
    assert not any(entry.name.startswith(FILE) for entry in target.iterdir())
    (target / "notes.txt").write_text("mine")
    with pytest.raises(BadBackup, match="which is never replaced"):
        restore(tmp_path / "good", target, force=True)
    (target / "notes.txt").unlink()
    restore(tmp_path / "good", target)
    assert ids(target) == set(range(500))


def test_a_disk_without_room(folder, notes, tmp_path, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1000))
    with pytest.raises(NoSpace, match=r"has 0.0 MB free. Free some space or choose another disk"):
        back_up(folder, tmp_path / "backup")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from service.errors import ServiceError
from service.store.backup import back_up, restore
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
source, target = map(Path, sys.argv[2:])
try:
    back_up(source, target) if sys.argv[1] == "backup" else restore(source, target, force=True)
except ServiceError as error:
    print(error)
"""


def test_a_disk_that_fills_on_the_way_leaves_nothing_half(folder, collections, notes, start, tmp_path):
    back_up(folder, tmp_path / "good")
    said, errors = start(FULL_DISK, "backup", folder, tmp_path / "backup").communicate()
    assert "full" in said, errors
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["good", "store"]
    put(notes, 500)
    collections.close()
    said, errors = start(FULL_DISK, "restore", tmp_path / "good", folder).communicate()
    assert "full" in said, errors
    assert ids(folder) == set(range(501))


KILLED = """
import sys
from pathlib import Path
from service.store.backup import back_up, restore
import service.store.backup as module
module._PAGES = 1
def advance(done, total):
    print(done, flush=True)
source, target = map(Path, sys.argv[2:])
if sys.argv[1] == "backup":
    back_up(source, target, advance)
else:
    restore(source, target, force=True, advance=advance)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 30, 10_000])
def test_killed_on_the_way_a_copy_is_whole_or_not_there(folder, collections, notes, start, tmp_path, after):
    def kill(what, source, target):
        process = start(KILLED, what, source, target)
        for _ in range(after):
            if process.stdout.readline() == "done\n":
                break
        process.kill()
        process.communicate()

    kill("backup", folder, tmp_path / "backup")
    assert (tmp_path / "backup").exists() == (after == 10_000)
    if after < 10_000:
        back_up(folder, tmp_path / "backup")  # what the killed one left is not in the way
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["backup", "store"]
    assert ids(tmp_path / "backup") == set(range(500))
    put(notes, 500)
    collections.close()
    kill("restore", tmp_path / "backup", folder)
    assert ids(folder) == (set(range(500)) if after == 10_000 else set(range(501)))
    restore(tmp_path / "backup", folder, force=True)
    assert ids(folder) == set(range(500))

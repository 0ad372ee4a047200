"""What the store does when the disk, the file or another process is in the way."""

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.errors import NotFound, StoreUnavailable
from service.store import Document
from service.store.document import validate
from service.store.filters import Filter
from service.store.schema import SCHEMA_VERSION
from service.store.store import FILE, Store
from tests.support.definitions import definition


@pytest.fixture
def stored(folder):
    """A closed store with 200 documents in it."""
    opened = EmbeddedEngine(folder)
    collection = opened.create("notes", definition(), 8)[0]
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    collection.upsert([Document(str(i), f"text {i}" * 50, {"i": i}) for i in range(200)], vectors)
    opened.close()
    return folder


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/millpond", "/dev/null/store", "/dev/full"])
def test_a_folder_that_cannot_be(tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="Choose a folder") as raised:
        EmbeddedEngine(tmp_path / place)
    assert str(tmp_path / place) in str(raised.value)


@pytest.mark.slow
def test_a_folder_without_permission(start):
    """As a user who may not write there, even where the tests run as root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    program = """
import os, sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine
from service.errors import StoreUnavailable
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    EmbeddedEngine(Path("."))
except StoreUnavailable as error:
    print(error)
"""
    try:
        said, errors = start(program, place).communicate()
    finally:
        shutil.rmtree(place)
    assert "Permission denied" in said, errors
    assert "Choose a folder" in said


def test_a_database_that_cannot_be_opened(folder):
    (folder / "millpond.sqlite3").mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match=r"millpond.sqlite3.*readable and writable"):
        EmbeddedEngine(folder)


@pytest.mark.slow
def test_a_second_opening_is_refused_here_and_in_another_process(folder, collections, start):
    with pytest.raises(StoreUnavailable, match="another process"):
        EmbeddedEngine(folder)
    program = """
import sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine
from service.errors import StoreUnavailable
try:
    EmbeddedEngine(Path(sys.argv[1]))
except StoreUnavailable as error:
    print(error)
"""
    said, errors = start(program, folder).communicate()
    assert "another process" in said, errors
    assert str(folder / "millpond.lock") in said
    collections.close()
    assert start(program, folder).communicate()[0] == ""


@pytest.mark.slow
def test_the_lock_dies_with_its_process(folder, start):
    program = """
import sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine
held = EmbeddedEngine(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    process = start(program, folder)
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreUnavailable, match="another process"):
        EmbeddedEngine(folder)
    process.kill()
    process.wait()
    EmbeddedEngine(folder).close()


def test_a_failed_opening_lets_go(folder):
    folder.mkdir()
    database = folder / "millpond.sqlite3"
    database.write_bytes(b"This is not a database at all, but it is long enough. " * 50)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"not a database.*Restore the file from a backup"):
            EmbeddedEngine(folder)
    database.unlink()
    EmbeddedEngine(folder).close()


def test_a_damaged_page_is_found_at_opening(stored):
    database = stored / "millpond.sqlite3"
    content = bytearray(database.read_bytes())
    content[4096 * 4 : -4096] = random.Random(1).randbytes(len(content) - 4096 * 5)
    database.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="Restore the file from a backup"):
        EmbeddedEngine(stored)


def test_a_vector_of_the_wrong_length_is_found_at_opening(stored):
    with sqlite3.connect(stored / "millpond.sqlite3") as connection:
        connection.execute("UPDATE documents SET vector = x'00000000' WHERE id = '7'")
    with pytest.raises(StoreUnavailable, match="does not have its collection's 8 numbers"):
        EmbeddedEngine(stored)


def test_a_newer_schema_is_left_alone(stored):
    database = stored / "millpond.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(
        StoreUnavailable, match=rf"newer Millpond \(schema {SCHEMA_VERSION + 1}; this one knows {SCHEMA_VERSION}\)"
    ):
        EmbeddedEngine(stored)
    assert database.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(folder):
    folder.mkdir()
    with sqlite3.connect(folder / "millpond.sqlite3") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (folder / "millpond.sqlite3").read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        EmbeddedEngine(folder)
    assert (folder / "millpond.sqlite3").read_bytes() == before


def test_reopening_keeps_everything(stored):
    for _ in range(2):
        opened = EmbeddedEngine(stored)
        collection = opened.get("notes")
        assert collection.count() == 200
        vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
        found = collection.search(vectors, 1)
        assert [hits[0].id for hits in found] == [str(i) for i in range(200)]
        assert collection.fetch("7") == Document("7", "text 7" * 50, {"i": 7})
        opened.close()


def test_what_is_not_committed_is_undone(folder):
    store, one = Store(folder), validate(np.ones((1, 2)), 2, 1)
    with store.writing() as transaction:
        kept = transaction.create("kept", {}, 2, "flat")
        transaction.commit()
    with pytest.raises(KeyError), store.writing() as transaction:
        transaction.create("half", {}, 2, "flat")
        transaction.put(kept.key, [("a", "text", "{}")], one)
        raise KeyError
    with store.writing() as transaction:
        transaction.put(kept.key, [("b", "text", "{}")], one)
        transaction.commit()
    assert store.collections() == [kept]
    assert store.by_ids(kept.key, ["a", "b"]) == {"b": Document("b", "text", {})}
    store.close()


def test_changed_metadata_are_indexed_before_the_commit(folder):
    """Readers wait for a commit, which is to leave little to be done."""
    store, one = Store(folder), validate(np.ones((1, 2)), 2, 1)
    with store.writing() as transaction:
        row = transaction.create("notes", {}, 2, "flat")
        _, keys = transaction.put(row.key, [("a", "text", "{}")], one)
        transaction.set_metadata(row.key, [(int(keys[0]), '{"n":1}')])
        assert transaction._connection.execute("SELECT count(*) FROM unindexed").fetchone() == (0,)
        transaction.commit()
    assert store.matching(row.key, Filter({"n": 1})).tolist() == keys.tolist()
    store.close()


# A process whose files may not grow is a process with a full disk: writes fail part of the way through.
FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from service.collections.embedded import EmbeddedEngine
from service.errors import StoreUnavailable
from service.store import Document
from tests.support.definitions import definition

folder, size, room = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
expected = {}
names = ["notes"]
refused = {"upsert": 0, "delete": 0, "create": 0, "drop": 0}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def attempt(what, action, *arguments):
    try:
        action(*arguments)
        return True
    except StoreUnavailable as error:
        assert "millpond.sqlite3" in str(error) and "Nothing stored" in str(error), error
        refused[what] += 1
        return False

def put(new):
    documents = [Document(i, text, {"length": len(text)}) for i, text in new.items()]
    collection.upsert(documents, np.ones((len(new), 4), np.float32))
    expected.update(new)

def check():
    hits = collection.search(np.ones((1, 4), np.float32), 1000)[0]
    assert {hit.id: hit.text for hit in hits} == expected
    assert collection.count() == len(hits) == len(expected)
    assert all(collection.fetch(i).text == text for i, text in expected.items())
    assert [c.name for c in opened.list()] == sorted(names)

opened = EmbeddedEngine(folder)
collection = opened.create("notes", definition(), 4)[0]
put({"a": "a", "b": "b", "c": "c"})
limit(room)
for n in range(40):
    attempt("upsert", put, {"a": f"{n}", **{f"{n}.{i}": "x" * size for i in range(5)}})
accepted = len(expected) - 3
assert accepted and refused["upsert"], (accepted, refused)
check()
if attempt("delete", collection.delete, "b"):
    del expected["b"]
if attempt("create", opened.create, "extra", definition(big="x" * size), 4):
    names.append("extra")
attempt("drop", opened.drop, "notes") or check()

limit(resource.RLIM_INFINITY)
check()
put({"z": "z" * size})
opened.create("after", definition(), 4)
names.append("after")
check()
opened.close()
opened = EmbeddedEngine(folder)
collection = opened.get("notes")
check()
print("kept", accepted, refused)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "room"),
    [(2_000, 300_000), (1_000_000, 12_000_000)],  # fails at the commit; fails while the rows are written
)
def test_a_full_disk_loses_nothing_and_heals(folder, start, size, room):
    said, errors = start(FULL_DISK, folder, size, room).communicate()
    assert said.startswith("kept"), errors


WRITER = """
import sys
from pathlib import Path
import numpy as np
from service.collections.embedded import EmbeddedEngine
from service.store import Document
from tests.support.definitions import definition

opened = EmbeddedEngine(Path(sys.argv[1]))
collection = opened.create("notes", definition(), 16)[0]
rng = np.random.default_rng(int(sys.argv[2]))
print("open", flush=True)
n = 0
while True:
    run, n = sys.argv[2], n + 1
    ids = [f"{run}.{n}.{i}" for i in range(4)] + ["shared"]
    rows = [Document(i, f"{run}.{n}", {"request": f"{run}.{n}"}) for i in ids]
    collection.upsert(rows, rng.normal(size=(5, 16)).astype(np.float32))
    print(f"{run}.{n}", flush=True)
    if n % 3 == 0:
        collection.delete(f"{run}.{n}.0")
        print(f"-{run}.{n}.0", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_nothing_acknowledged_is_lost(folder, start):
    acknowledged, deleted = [], set()
    moments = random.Random()
    for run in range(6):
        process = start(WRITER, folder, run)
        assert process.stdout.readline() == "open\n", process.communicate()[1]
        timer_rows = moments.randint(1, 60)
        said = [process.stdout.readline() for _ in range(timer_rows)]
        process.kill()
        said += process.stdout.readlines()  # acknowledged before the signal came
        for line in (line.strip() for line in said if line.endswith("\n")):
            if line.startswith("-"):
                deleted.add(line[1:])
            else:
                acknowledged.append(line)

        opened = EmbeddedEngine(folder)
        collection = opened.get("notes")
        hits = collection.search(np.ones((1, 16), np.float32), 100_000)[0]
        assert len(hits) == collection.count() == len({hit.id for hit in hits})
        found = {hit.id: hit for hit in hits}
        for request in acknowledged:
            for i in range(4):
                document_id = f"{request}.{i}"
                if document_id in deleted:
                    assert document_id not in found
                    with pytest.raises(NotFound):
                        collection.fetch(document_id)
                elif i or int(request.split(".")[1]) % 3:  # the last delete may have come unacknowledged
                    assert found[document_id].text == request
                    assert collection.fetch(document_id).metadata == {"request": request}
        requests = {hit.metadata["request"] for hit in hits}
        assert requests >= set(acknowledged)
        for request in requests:  # no half of one, acknowledged or not
            assert {f"{request}.{i}" for i in (1, 2, 3)} <= found.keys()
        last = max((r for r in requests if r.startswith(f"{run}.")), key=lambda r: int(r.split(".")[1]))
        assert found["shared"].text == last
        opened.close()


LOST = """
import os, signal, sys
from pathlib import Path
import numpy as np
from service.collections.embedded import EmbeddedEngine
from service.store import Document
from service.store.store import FILE
from tests.support.definitions import definition

notes = EmbeddedEngine(Path(sys.argv[1])).create("notes", definition(), 8)[0]
notes.upsert([Document("kept", "text", {})], np.ones((1, 8), np.float32))
print("kept", flush=True)
sys.stdin.readline()
index = os.open(Path(sys.argv[1]) / f"{FILE}-shm", os.O_RDWR)
header = os.pread(index, 96, 0)
notes.upsert([Document("lost", "text", {})], np.ones((1, 8), np.float32))
os.pwrite(index, header, 0)  # as while the commit was on its way: the log has it, its index ends before
os.kill(os.getpid(), signal.SIGKILL)
"""
FOUND = """
import os, signal, sys
from pathlib import Path
from service.collections.embedded import EmbeddedEngine

print(*(document.id for document in EmbeddedEngine(Path(sys.argv[1])).get("notes").documents()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_change_that_was_lost_does_not_come_back(folder, start):
    """A process that reads the store, for a backup, keeps the log's index while the service is killed and starts.

    What was on its way then is seen by nobody. Were it left in the log, whoever reads the log next would find it.
    """
    service = start(LOST, folder)
    assert service.stdout.readline() == "kept\n", service.communicate()[1]
    with closing(sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)) as reader:
        assert reader.execute("SELECT id FROM documents").fetchall() == [("kept",)]
        service.communicate("\n")
        assert start(FOUND, folder).communicate()[0] == "kept\n"
    with closing(EmbeddedEngine(folder)) as opened:
        assert [document.id for document in opened.get("notes").documents()] == ["kept"]


def test_a_child_process_does_not_keep_the_lock(folder, start):
    """A subprocess started while the store is open must not inherit the lock."""
    opened = EmbeddedEngine(folder)
    child = start("import sys; print('up', flush=True); sys.stdin.read()")
    assert child.stdout.readline() == "up\n"
    opened.close()
    EmbeddedEngine(folder).close()
    assert child.poll() is None

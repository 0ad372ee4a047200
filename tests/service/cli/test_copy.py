"""`millpond copy`: collections of one store in another one, as they were, whichever engine either has."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from service.cli import app
from service.cli.console import Failure
from service.collections import Collection, Definition, Engine, Selection
from service.config import StoreConfig
from service.deployment import open_engine
from service.embedding.chunkers import BySentence
from service.embedding.chunking import Chunking
from service.errors import NotFound, StoreUnavailable
from service.similarity import SIMILARITIES
from service.store import Chunked, Document
from service.store.tokenizers import TOKENIZERS
from tests.support.definitions import definition
from tests.support.deployed import TINY
from tests.support.milvus import MilvusServer
from tests.support.servers import ROOT

DIM = 8
MANY = 30_000
METADATA: list[dict[str, Any]] = [
    {},
    {"n": 1, "f": 1.0, "yes": True, "none": None, "ä": "ö\n\"'"},
    {"large": 2**63 - 1, "small": -(2**63), "tiny": 5e-324, "list": [1, [2, {"x": "y"}]], "of": {"a": {"b": [None]}}},
]


@dataclass
class Place:
    """A store that a config names."""

    file: Path
    store: StoreConfig

    def open(self) -> closing[Engine]:
        return closing(open_engine(self.store))


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Place]:
    def make(name: str, **store: Any) -> Place:
        said = {"engine": "embedded", "path": str(tmp_path / name)} | store
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"models": {"default": {"encoder": str(TINY)}}, "store": said}))
        return Place(file, StoreConfig.model_validate(said))

    return make


@pytest.fixture
def old(place: Callable[..., Place]) -> Place:
    """An embedded store with collections of all kinds."""
    made = place("old")
    with made.open() as engine:
        fill(engine)
    return made


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=pytest.mark.peers)])
def new(request: pytest.FixtureRequest, place: Callable[..., Place]) -> Place:
    """An empty store of either engine."""
    if request.param == "embedded":
        return place("new")
    return place("new", engine="milvus", uri=request.getfixturevalue("milvus").uri)


def fill(engine: Engine) -> None:
    chance = np.random.default_rng(0)
    notes, _ = engine.create("notes", definition(scheme=2, layers=["a"]), DIM, "flat", None, TOKENIZERS["porter"])
    vectors = chance.normal(size=(7, DIM)).astype(np.float32)
    vectors[0, :2] = -0.0, np.float32(1e-40)
    documents = [Document(f"n/{i} ü", f"text {i}\n", METADATA[i % 3]) for i in range(7)]
    notes.upsert(documents, vectors, precision="bf16")
    notes.upsert(documents[2:3], vectors[2:3], precision="fp32")  # which is now the last
    chunked = Definition("m", "max", "max", "f" * 16, {}, Chunking(BySentence(), "early"), SIMILARITIES["dot"])
    spans, _ = engine.create("spans", chunked, DIM, "hnsw")
    of = [tuple((at, at + 3) for at in range(count)) for count in (1, 4, 2)]
    own = chance.normal(size=(7, DIM)).astype(np.float32)
    spans.upsert([Document(f"s{i}", "long text " * 9, {"i": i}) for i in range(3)], Chunked(own, of))
    foreign = Definition(None, None, None, "foreign", {"foreign": True}, None, SIMILARITIES["euclidean"])
    engine.create("empty", foreign, 3, "ivf")
    engine.alias("live", "notes")
    engine.alias("other", "notes")


def held(engine: Engine) -> dict[str, Any]:
    """All that an engine has, but for what not every engine can have."""
    found = {each.name: described(each) for each in engine.list()}
    return found | {"aliases": {alias: each.name for alias, each in engine.aliases().items()}}


def described(each: Collection) -> tuple[Any, ...]:
    documents = [(document, repr(document.metadata), v.tobytes()) for _, document, v in each.exported()]
    return (
        each.definition.to_json(),
        each.dim,
        each.index_kind,
        each.precisions(),
        each.count(),
        each.chunks(),
        documents,
    )


def copy(of: Place, to: Place, *more: str) -> str:
    """Run it in this process and return what it prints; raises what it is refused with."""
    done = CliRunner().invoke(app, ["copy", "--from", str(of.file), "--to", str(to.file), *more])
    if done.exception is not None:
        raise done.exception
    return done.output


def refused(of: Place, to: Place, *more: str) -> Failure:
    with pytest.raises(Failure) as raised:
        copy(of, to, *more)
    return raised.value


def test_a_copy_has_all_of_it_and_a_second_run_finds_it_unchanged(old: Place, new: Place) -> None:
    told = copy(old, new)
    with old.open() as here, new.open() as there:
        assert held(there) == held(here)
    assert "notes: 7 documents to be copied, 0 unchanged" in told and "7 compared, all equal" in told
    assert "3 documents and 7 vectors now" in told and "aliases: live -> notes, other -> notes" in told
    again = copy(old, new)
    assert "notes: 0 copied, 7 unchanged" in again and "aliases" not in again


def test_there_and_back(old: Place, new: Place, place: Callable[..., Place]) -> None:
    back = place("back")
    copy(old, new)
    copy(new, back)
    with old.open() as before, back.open() as after:
        assert held(after) == held(before)


def test_what_the_engine_decides(old: Place, place: Callable[..., Place]) -> None:
    """Between embedded stores keyword indexes and the recall stay."""
    with old.open() as engine:
        engine.create("graph", definition(), DIM, "hnsw", 0.9, None)
    new = place("new")
    assert "warning" not in copy(old, new)
    with new.open() as engine:
        assert engine.get("notes").tokenizer is TOKENIZERS["porter"]
        assert (engine.get("graph").tokenizer, engine.get("graph").recall) == (None, 0.9)
        assert [hit.id for hit in engine.get("notes").search_keywords([engine.get("notes").terms("texts 3")], 1)[0]]
    assert "Leave it out" in str(refused(old, new, "--tokenizer", "porter"))


def test_a_temporary_collection_is_copied_if_it_is_named(old: Place, place: Callable[..., Place]) -> None:
    new = place("new")
    with old.open() as engine:
        engine.create("scratch", definition(), DIM, "flat", idle_timeout=600)
    copy(old, new)
    with new.open() as engine:
        assert [each.name for each in engine.list()] == ["empty", "notes", "spans"]
    assert "warning: scratch: not copied is its idle timeout (600 s)" in copy(old, new, "scratch")
    with new.open() as engine:
        assert engine.get("scratch").idle_timeout is None


def test_some_collections_alone_and_a_look_before(old: Place, new: Place) -> None:
    assert "spans: 3 documents to be copied" in copy(old, new, "spans", "--check")
    with new.open() as engine:
        assert engine.list() == []
    copy(old, new, "live", "notes")
    with new.open() as engine:
        assert [each.name for each in engine.list()] == ["notes"]
    assert "has no" not in copy(old, new, "spans")
    unknown = refused(old, new, "nothing")
    assert unknown.exit_status == 2 and "no collection 'nothing'; it has empty, notes, spans" in str(unknown)


@pytest.mark.slow
def test_documents_that_differ_are_replaced_only_if_asked(old: Place, new: Place) -> None:
    copy(old, new)
    vector = np.ones((1, DIM), np.float32)
    with new.open() as engine:
        engine.get("notes").upsert([Document("n/1 ü", "newer", {})], vector)
        engine.get("notes").upsert([Document("own", "of the target", {})], vector)
        engine.get("notes").delete("n/0 ü")
    error = refused(old, new)
    assert error.exit_status == 1 and str(error).endswith("Nothing is written.")
    assert "has 1 documents otherwise under their ids, such as 'n/1 ü'. Give --replace" in str(error)
    with new.open() as engine:
        assert engine.get("notes").fetch("n/1 ü").text == "newer"
        with pytest.raises(NotFound):
            engine.get("notes").fetch("n/0 ü")
    told = copy(old, new, "--replace")
    assert "notes: 1 documents to be copied, 1 to be replaced, 5 unchanged; 1 others are there and stay" in told
    with new.open() as engine:
        assert engine.get("notes").fetch("n/1 ü").text == "text 1\n"
        assert engine.get("notes").fetch("own").text == "of the target"


@pytest.mark.parametrize("change", ["-0.0", "one bit", "metadata", "spans"])
def test_what_counts_as_other(old: Place, place: Callable[..., Place], change: str) -> None:
    new = place("new")
    copy(old, new)
    with new.open() as engine:
        notes, spans = engine.get("notes"), engine.get("spans")
        (first,), _ = notes.fetch_many(["n/0 ü"], vectors=True)
        assert first.vectors is not None
        vector = first.vectors.copy()
        if change == "-0.0":
            vector[0, 0] = 0.0
        elif change == "one bit":
            vector[0, 3] = np.nextafter(vector[0, 3], np.float32(9))
        if change == "spans":
            (kept,), _ = spans.fetch_many(["s0"], vectors=True)
            assert kept.vectors is not None
            spans.upsert([kept.document], Chunked(kept.vectors, [((1, 2),)]))
        elif change == "metadata":
            (kept,), _ = notes.fetch_many(["n/1 ü"], vectors=True)
            assert kept.vectors is not None
            notes.upsert([Document("n/1 ü", "text 1\n", METADATA[1] | {"n": 1.0})], kept.vectors)
        else:
            notes.upsert([first.document], vector)
    assert "has 1 documents otherwise" in str(refused(old, new))


def test_a_collection_of_another_definition_is_never_written_to(old: Place, new: Place) -> None:
    with new.open() as engine:
        engine.create("notes", definition("another"), DIM, "flat")
    error = refused(old, new)
    assert error.exit_status == 1 and 'model: stored "another", asked "m"' in str(error)
    assert "Rename or drop it." in str(error) and "Nothing is written" in str(error)
    with new.open() as engine:
        assert [(each.name, each.count()) for each in engine.list()] == [("notes", 0)]


def test_names_that_stand_for_something_else_there(old: Place, new: Place) -> None:
    with new.open() as engine:
        engine.create("mine", definition(), DIM, "flat")
        engine.alias("spans", "mine")
    assert "'spans' is an alias of collection 'mine'" in str(refused(old, new))
    with new.open() as engine:
        engine.delete_alias("spans")
        engine.alias("live", "mine")
    assert "'live' is an alias of 'notes', and is an alias of 'mine'" in str(refused(old, new))
    with new.open() as engine:
        engine.delete_alias("live")
        engine.create("live", definition(), DIM, "flat")
    assert "'live' is an alias of 'notes', and is a collection" in str(refused(old, new))
    with new.open() as engine:
        assert sorted(each.name for each in engine.list()) == ["live", "mine"]


def test_stores_that_are_none_or_the_same_or_in_use(old: Place, place: Callable[..., Place]) -> None:
    nothing, new = place("nothing"), place("new")
    assert "holds no store" in str(refused(nothing, new))
    same = refused(old, old)
    assert same.exit_status == 2 and "name the same store" in str(same)
    for of, to in ((old, new), (new, old)):
        with new.open(), old.open(), pytest.raises(StoreUnavailable, match="another process has this store open"):
            copy(of, to)
    copy(old, new)


@pytest.mark.peers
def test_what_milvus_cannot_have_is_said_before_anything_is_written(
    old: Place, place: Callable[..., Place], milvus: MilvusServer
) -> None:
    there = place("there", engine="milvus", uri=milvus.uri)
    vector = np.ones((1, DIM), np.float32)
    with old.open() as engine:
        graph, _ = engine.create("graph", definition(), DIM, "hnsw", 0.9, None)
        graph.upsert([Document("long", "x" * 70_000, {}), Document("short", "x", {})], np.repeat(vector, 2, axis=0))
        graph.upsert([Document("far", "", {})], vector * np.float32(1e-18))
    error = refused(old, there)
    assert error.exit_status == 1 and str(error).endswith("Nothing is written.")
    assert "graph: the store of" in str(error) and "cannot hold 2 documents" in str(error)
    assert "document 'long': its text has 70000 bytes in UTF-8" in str(error)
    assert "document 'far': vector 0 has the length" in str(error)
    with there.open() as engine:
        assert engine.list() == []
    with old.open() as engine:
        engine.get("graph").delete_many(Selection(ids=["long", "far"]))
    told = copy(old, there)
    assert "warning: notes: not copied is its keyword index (porter), so that searches" in told
    assert "warning: graph: not copied is the recall that is asked of its index (0.9)" in told
    assert "warning: graph: not copied is its keyword" not in told
    back = place("back")
    copy(there, back, "graph", "--tokenizer", "trigram")
    copy(there, back, "notes")
    with back.open() as engine:
        assert engine.get("graph").tokenizer is TOKENIZERS["trigram"]
        assert engine.get("notes").tokenizer is TOKENIZERS["unicode61"]
    copy(there, old)  # which has its own tokenizers


@pytest.mark.peers
def test_milvus_that_is_not_there(old: Place, place: Callable[..., Place]) -> None:
    error = refused(old, place("nowhere", engine="milvus", uri="http://127.0.0.1:9", timeout=0.5))
    assert error.exit_status == 1 and "cannot be reached" in str(error) and "Nothing is copied yet." in str(error)


@pytest.fixture
def many(place: Callable[..., Place]) -> Place:
    """A store with so many documents that a copy takes some time."""
    made = place("many")
    with made.open() as engine:
        collection, _ = engine.create("many", definition(), 64, "flat")
        vectors = np.random.default_rng(1).normal(size=(MANY, 64))
        collection.upsert([Document(str(i), f"text {i}", {"i": i}) for i in range(MANY)], vectors)
    return made


@pytest.mark.slow
def test_a_copy_that_is_interrupted_and_killed_is_gone_on_with(many: Place, place: Callable[..., Place]) -> None:
    new = place("new")
    file = new.store.path / "millpond.sqlite3"
    status, told = ended(many, new, signal.SIGINT, lambda: file.exists() and file.stat().st_size > 1_000_000)
    assert status == 130 and "documents are copied. Run the same command again to go on." in told
    assert ended(many, new, signal.SIGKILL, lambda: file.stat().st_size > 4_000_000)[0] == -signal.SIGKILL
    gone_on_with(many, new)


@pytest.mark.peers
def test_a_copy_to_milvus_that_is_killed_is_gone_on_with(
    many: Place, place: Callable[..., Place], milvus: MilvusServer
) -> None:
    new = place("new", engine="milvus", uri=milvus.uri)
    with new.open() as engine:

        def some() -> bool:
            return any(each.count() > 2_000 for each in engine.list())

        assert ended(many, new, signal.SIGKILL, some)[0] == -signal.SIGKILL
    gone_on_with(many, new)


def ended(old: Place, new: Place, by: signal.Signals, begun: Callable[[], bool]) -> tuple[int, str]:
    """Copy in another process, end that once it has begun, and return its status and what it says."""
    command = [sys.executable, "-m", "service", "copy", "--from", str(old.file), "--to", str(new.file)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not begun():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(by)
    told = process.communicate(timeout=60)[1]
    return process.returncode, told


def gone_on_with(old: Place, new: Place) -> None:
    with new.open() as engine:
        assert 0 < (before := engine.get("many").count()) < MANY
    assert f"many: {MANY - before} copied, {before} unchanged" in copy(old, new)
    with old.open() as here, new.open() as there:
        assert held(there) == held(here)

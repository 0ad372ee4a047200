"""Two services that change one collection, its names and its rebuild at the same time: neither undoes the other's."""

import threading

import numpy as np
import pytest

from service.collections.milvus import changing
from service.collections.milvus.names import alias_of
from service.errors import NameConflict, NotFound, StoreUnavailable
from service.store import Document
from tests.support.definitions import definition

pytestmark = pytest.mark.peers
X = np.array([[1, 0]], np.float32)


def before(monkeypatch, engine, call, what):
    """Let something happen just before an engine's next call of its client."""
    made = getattr(engine._client, call)

    def called(*arguments):
        monkeypatch.undo()
        what()
        return made(*arguments)

    monkeypatch.setattr(engine._client, call, called)


def named(engine):
    return [each.name for each in engine.list()], {alias: each.name for alias, each in engine.aliases().items()}


def test_a_collection_that_is_renamed_while_a_rebuild_begins_keeps_its_new_name(engine, other, notes, monkeypatch):
    before(monkeypatch, engine, "create", lambda: other.rename("notes", "drafts"))
    notes.begin_rebuild(definition("new"), 3)
    assert named(engine) == named(other) == (["drafts"], {})
    assert (notes.name, notes.count(), notes.rebuild().definition) == ("drafts", 1, definition("new"))


def test_what_is_noted_of_a_write_undoes_no_change_of_another_service(engine, other, notes, monkeypatch):
    def changed():
        other.rename("notes", "drafts")
        other.get("drafts").begin_rebuild(definition("new"), 3)

    before(monkeypatch, engine, "set_properties", changed)
    notes.upsert([Document("b", "two", {})], X, precision="float32")
    assert named(engine) == (["drafts"], {})
    assert (notes.count(), notes.precisions(), notes.rebuild().definition) == (2, ["float32"], definition("new"))


@pytest.mark.parametrize("call", ["rename", "moment"])
def test_names_given_while_a_rebuild_ends_stay(engine, other, notes, monkeypatch, call):
    """Just before it is closed, or just before it is read for the last time."""
    notes.begin_rebuild(definition("new"), 3)
    notes.put_rebuilt(definition("new"), [key for key, _ in notes.unbuilt()], np.ones((1, 3), np.float32))
    failed = []

    def changed():
        other.alias("live", "notes")
        other.rename("notes", "drafts")

    if call == "rename":
        before(monkeypatch, engine, "rename", changed)
    else:  # it waits for the rebuild to end, so that this must not wait for it
        thread = threading.Thread(target=lambda: failed.extend(raised(changed)))
        before(monkeypatch, engine, "moment", thread.start)
    assert notes.finish_rebuild()
    if call == "moment":
        thread.join(60)
    assert failed == []
    assert named(engine) == named(other) == (["drafts"], {"live": "drafts"})
    assert (notes.count(), notes.definition, engine.get("live") is notes) == (1, definition("new"), True)


def raised(what):
    try:
        what()
    except Exception as error:
        return [error]
    return []


@pytest.fixture
def built(notes):
    """The collection with a rebuild that lacks nothing."""
    notes.begin_rebuild(definition("new"), 3)
    notes.put_rebuilt(definition("new"), [key for key, _ in notes.unbuilt()], np.ones((1, 3), np.float32))
    return notes


def test_the_end_of_a_rebuild_that_another_service_takes_for_interrupted(engine, other, built, monkeypatch):
    def changed():
        other.get("notes").begin_rebuild(definition("new"), 3)  # which opens the collection again
        other.get("notes").upsert([Document("b", "two", {})], X)

    monkeypatch.setattr(changing, "PATIENCE", 0.3)
    before(monkeypatch, engine, "set_properties", changed)
    assert not built.finish_rebuild()
    assert (built.count(), built.definition) == (2, definition())
    built.put_rebuilt(definition("new"), [key for key, _ in built.unbuilt()], np.ones((1, 3), np.float32))
    assert built.finish_rebuild()
    assert (built.count(), built.definition) == (2, definition("new"))


def test_a_rebuild_that_is_settled_is_ended_by_whoever_comes(engine, other, built, monkeypatch):
    def killed():
        raise StoreUnavailable("as if it had died here")

    other.alias("live", "notes")
    before(monkeypatch, engine, "move", killed)
    with pytest.raises(StoreUnavailable):
        built.finish_rebuild()
    monkeypatch.setattr(changing, "PATIENCE", 0.3)
    with pytest.raises(StoreUnavailable, match="takes no changes now"):
        other.get("notes").upsert([Document("b", "two", {})], X)
    assert not other.get("notes").abandon_rebuild()
    assert built.count() == 1
    assert built.definition == other.get("live").definition == definition("new")
    assert named(engine) == (["notes"], {"live": "notes"})


def test_a_name_is_free_again_once_another_program_has_dropped_its_collection(engine, client, notes):
    client.drop_collection(client.describe_collection(alias_of("notes"))["collection_name"])
    with pytest.raises(NotFound):
        engine.get("notes")
    again, created = engine.create("notes", definition("another"), 2, "flat")
    assert created and again.count() == 0
    client.drop_collection(client.describe_collection(alias_of("notes"))["collection_name"])
    engine.create("drafts", definition(), 2, "flat")
    assert engine.rename("drafts", "notes").name == "notes"
    assert named(engine) == (["notes"], {})


def test_a_name_that_another_service_takes_meanwhile_is_not_taken_from_it(engine, other, notes, monkeypatch):
    before(monkeypatch, engine, "claim", lambda: other.create("drafts", definition(), 2, "flat"))
    with pytest.raises(NameConflict):
        engine.rename("notes", "drafts")
    assert named(engine) == (["drafts", "notes"], {})
    assert notes.count() == 1

"""Renaming, copying and aliases on every engine: as one step for every reader."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from service.errors import InvalidName, NameConflict
from tests.support.definitions import definition
from tests.support.tiers import first_fast

QUERY = np.array([[1, 0]], np.float32)


def found(collection):
    return [hit.id for hit in collection.search(QUERY, 10)[0]]


@pytest.fixture
def notes(collections, fill):
    notes, _ = collections.create("notes", definition(), 2)
    fill(notes, {"a": ((1, 0), {"n": 1}), "b": ((0, 1), {})})
    return notes


def test_names_outlive_a_restart(reopen, collections, notes):
    collections.alias("live", "notes")
    collections.alias("old", "notes")
    collections.delete_alias("old")
    collections.rename("notes", "drafts")
    collections.copy("live", "copy")
    opened = reopen()
    assert [each.name for each in opened.list()] == ["copy", "drafts"]
    assert {alias: of.name for alias, of in opened.aliases().items()} == {"live": "drafts"}
    assert opened.get("live") is opened.get("drafts")
    assert found(opened.get("copy")) == found(opened.get("live")) == ["a", "b"]
    opened.drop("drafts")
    opened = reopen()
    assert opened.aliases() == {} and found(opened.get("copy")) == ["a", "b"]


def test_a_swap_is_one_step(collections, notes, fill):
    """Whoever asks for the alias meanwhile finds one collection or the other, as a whole."""
    other, _ = collections.create("other", definition(), 2)
    fill(other, {"c": ((1, 0), {})})
    collections.alias("live", "notes")
    stop = Event()

    def read():
        seen = set()
        while not stop.is_set():
            seen.add(tuple(found(collections.get("live"))))
            assert len(collections.list()) == 2
        return seen

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for turn in range(30):
                collections.rename(*[("notes", "drafts"), ("drafts", "notes")][turn % 2])
                collections.alias("live", ["other", "notes"][turn % 2])
        finally:
            stop.set()
    assert set.union(*(reader.result() for reader in readers)) <= {("a", "b"), ("c",)}


@pytest.mark.parametrize("bad", first_fast(["", ".", "-a", "a/b", "a b", "é", "x" * 129]))
def test_names_that_cannot_be(collections, notes, bad):
    for change in (collections.rename, collections.copy):
        with pytest.raises(InvalidName, match="1 to 128 of the characters"):
            change("notes", bad)
    with pytest.raises(InvalidName, match="1 to 128 of the characters"):
        collections.alias(bad, "notes")


def test_a_name_stands_for_one_thing(collections, notes):
    collections.alias("live", "notes")
    for refused in (
        lambda: collections.create("live", definition(), 2),
        lambda: collections.alias("notes", "live"),
        lambda: collections.copy("notes", "live"),
        lambda: collections.rename("notes", "notes"),
        lambda: collections.drop("live"),
        lambda: collections.rename("live", "other"),
    ):
        with pytest.raises(NameConflict):
            refused()
    assert collections.get("live") is collections.get("notes") is notes

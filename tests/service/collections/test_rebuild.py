"""A collection takes other vectors: beside the present ones, over any number of runs, and all at once in the end."""

import random
import threading

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.refinement import Refinement
from service.errors import InvalidVector, NotFound, StaleDefinition, StoreUnavailable
from service.store import Chunked, Document
from tests.support.definitions import definition

OLD, NEW = definition("old"), definition("new")
CHUNKED = [definition("by one", chunks=1), definition("by another", chunks=2)]


def vectors(texts, under, dim=4):
    """Each text has one vector under each definition."""
    seeds = [[*text.encode(), 0, *under.model.encode()] for text in texts]
    return np.stack([np.random.default_rng(seed).normal(size=dim) for seed in seeds]).astype(np.float32)


def embedded(texts, under, dim):
    """The same, or of each text one to three spans, where the definition says so."""
    if not under.parts.get("chunks"):
        return vectors(texts, under, dim)
    spans = [tuple((place, place + 1) for place in range(len(text.encode()) % 3 + 1)) for text in texts]
    parts = [f"{text} {place}" for text, own in zip(texts, spans, strict=True) for place, _ in own]
    return Chunked(vectors(parts, under, dim), spans)


def put(collection, texts, **options):
    """Stores texts under ids that are the same."""
    documents = [Document(text.split(":")[0], text, {}) for text in texts]
    collection.upsert(documents, embedded(texts, collection.definition, collection.dim), **options)


def build(collection, under, dim, most=1000):
    """Gives the next documents their new vector; tells how many there were."""
    batch = collection.unbuilt(most=most)
    if batch:
        made = embedded([document.text for _, document in batch], under, dim)
        collection.put_rebuilt(under, [key for key, _ in batch], made)
    return len(batch)


def found(collection, text="query", k=1000):
    (hits,) = collection.search(vectors([text], collection.definition, collection.dim), k)
    return [(hit.id, hit.span, round(hit.score, 5)) for hit in hits]


@pytest.fixture
def collection(collections):
    made = collections.create("notes", OLD, 4)[0]
    put(made, [f"{i}" for i in range(20)])
    return made


def anew(collections, texts, under=NEW, dim=6):
    """A collection that was made under the definition from the start."""
    made = collections.create("anew", under, dim)[0]
    put(made, texts)
    return found(made)


@pytest.mark.parametrize("dim", [4, 6])
def test_it_is_searched_as_it_was_until_it_is_as_if_made_anew(collections, folder, collection, dim):
    before, created = found(collection), collection.created
    collection.begin_rebuild(NEW, dim)
    while build(collection, NEW, dim, most=7):
        assert (collection.definition, collection.dim, found(collection)) == (OLD, 4, before)
    assert collection.rebuild().done == collection.count() == 20
    assert collection.finish_rebuild()
    assert (collection.definition, collection.dim, collection.created) == (NEW, dim, created)
    assert collection.rebuild() is None
    expected = anew(collections, [f"{i}" for i in range(20)], dim=dim)
    assert found(collection) == expected
    put(collection, ["20"])
    collection.delete("20")
    collections.close()
    reopened = EmbeddedEngine(folder).get("notes")
    assert (reopened.definition, reopened.dim, found(reopened)) == (NEW, dim, expected)


@pytest.mark.parametrize(("before", "after"), [(OLD, CHUNKED[0]), (CHUNKED[0], CHUNKED[1]), (CHUNKED[0], NEW)])
def test_documents_are_cut_and_joined_again(collections, folder, before, after):
    collection = collections.create("notes", before, 4)[0]
    texts = ["x" * (i % 5) + f"{i}" for i in range(20)]
    put(collection, texts)
    shown = found(collection)
    collection.begin_rebuild(after, 6)
    build(collection, after, 6, most=7)
    collections.close()
    opened = EmbeddedEngine(folder)
    collection = opened.get("notes")
    assert (found(collection), collection.rebuild().done) == (shown, 7)
    while build(collection, after, 6, most=7):
        assert found(collection) == shown
    assert collection.finish_rebuild()
    expected = anew(opened, texts, under=after)
    assert found(collection) == expected
    assert collection.chunks() == opened.get("anew").chunks() >= collection.count() == 20
    assert [collection.fetch(text).spans for text in texts] == [
        opened.get("anew").fetch(text).spans for text in texts
    ]
    put(collection, ["21"])
    collection.delete("21")
    opened.close()
    assert found(EmbeddedEngine(folder).get("notes")) == expected


def test_equal_scores_keep_the_order_in_which_documents_were_stored(collections):
    collection = collections.create("notes", OLD, 2)[0]
    ids = [str(i) for i in range(30)]
    collection.upsert([Document(i, "", {}) for i in ids], np.ones((30, 2), np.float32))
    collection.upsert([Document("7", "", {})], np.ones((1, 2), np.float32))
    expected = [i for i in ids if i != "7"] + ["7"]
    collection.begin_rebuild(NEW, 3)
    keys = [key for key, _ in collection.unbuilt()]
    collection.put_rebuilt(NEW, keys[::-1], np.ones((30, 3), np.float32))
    assert collection.finish_rebuild()
    (hits,) = collection.search(np.ones((1, 3), np.float32), 30)
    assert [hit.id for hit in hits] == expected


def test_changes_meanwhile_are_in_it(collections, collection):
    collection.begin_rebuild(NEW, 6)
    assert build(collection, NEW, 6, most=10) == 10
    collection.delete("3")  # has its new vector
    collection.delete("15")  # has none yet
    put(collection, ["4:changed", "16:changed", "20"])
    assert not collection.finish_rebuild()
    assert collection.definition == OLD
    # A document that goes, or changes, between being read and being stored.
    batch = collection.unbuilt()
    collection.delete("17")
    put(collection, ["18:changed"])
    made = vectors([document.text for _, document in batch], NEW, 6)
    collection.put_rebuilt(NEW, [key for key, _ in batch], made)
    assert [document.text for _, document in collection.unbuilt()] == ["18:changed"]
    assert not collection.finish_rebuild()
    # One that comes with both vectors needs no other.
    collection.upsert(
        [Document("21", "21", {})], vectors(["21"], OLD), under=OLD, also=(NEW, vectors(["21"], NEW, 6))
    )
    assert collection.rebuild().done == collection.count() - 1
    assert build(collection, NEW, 6) == 1
    assert collection.finish_rebuild()
    left = [f"{i}" for i in range(20) if i not in (3, 4, 15, 16, 17, 18)]
    texts = [*left, "4:changed", "16:changed", "20", "18:changed", "21"]
    assert found(collection) == anew(collections, texts)


def test_it_goes_on_after_the_store_was_closed(collections, folder, collection):
    before = found(collection)
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    collections.close()
    opened = EmbeddedEngine(folder)
    again = opened.get("notes")
    assert found(again) == before
    assert (again.rebuild().definition, again.rebuild().done) == (NEW, 12)
    again.begin_rebuild(NEW, 6)
    assert [document.id for _, document in again.unbuilt()] == [f"{i}" for i in range(12, 20)]
    build(again, NEW, 6)
    assert again.finish_rebuild()
    assert found(again) == anew(opened, [f"{i}" for i in range(20)])
    opened.close()


@pytest.mark.parametrize(("other", "dim"), [(definition("third"), 6), (NEW, 8)])
def test_another_target_begins_anew(collection, other, dim):
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    collection.begin_rebuild(other, dim)
    assert (collection.rebuild().definition, collection.rebuild().done) == (other, 0)
    if other != NEW:
        with pytest.raises(StaleDefinition):
            build(collection, NEW, 6)
    assert build(collection, other, dim) == 20
    assert collection.finish_rebuild()
    assert (collection.definition, collection.dim) == (other, dim)


def test_abandoning(collection):
    before = found(collection)
    assert not collection.abandon_rebuild()
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6, most=12)
    assert collection.abandon_rebuild()
    assert collection.rebuild() is None
    with pytest.raises(StaleDefinition, match="abandoned"):
        collection.put_rebuilt(NEW, [1], np.ones((1, 6), np.float32))
    with pytest.raises(StaleDefinition, match="abandoned"):
        collection.finish_rebuild()
    collection.begin_rebuild(NEW, 6)
    assert collection.rebuild().done == 0
    assert found(collection) == before


def test_a_dropped_collection_takes_its_rebuild_with_it(collections, collection):
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6)
    collections.drop("notes")
    for attempt in (
        collection.rebuild,
        collection.unbuilt,
        collection.finish_rebuild,
        collection.abandon_rebuild,
        lambda: collection.begin_rebuild(NEW, 6),
        lambda: collection.put_rebuilt(NEW, [1], np.ones((1, 6), np.float32)),
    ):
        with pytest.raises(NotFound, match="dropped"):
            attempt()
    assert collections.create("notes", OLD, 4)[0].rebuild() is None


def test_vectors_of_the_former_definition_are_refused(collections, collection):
    other = collections.create("other", OLD, 4)[0]
    collection.begin_rebuild(NEW, 4)
    build(collection, NEW, 4)
    query, document = vectors(["query"], OLD), [Document("x", "x", {})]
    collection.search(query, 1, under=OLD)
    collection.upsert(document, query, under=OLD, also=(NEW, query))
    assert collection.finish_rebuild()
    with pytest.raises(StaleDefinition):
        collection.search(query, 1, under=OLD)
    with pytest.raises(StaleDefinition):
        collection.upsert(document, query, under=OLD)
    collection.search(query, 1, under=NEW)
    collection.upsert(document, query, under=NEW, also=(OLD, query))  # for a rebuild that is none
    other.search(query, 1, under=OLD)


def test_vectors_that_do_not_fit(collection):
    collection.begin_rebuild(NEW, 6)
    (key, _), *_ = collection.unbuilt()
    for bad in (np.ones((1, 4)), np.ones((2, 6)), np.full((1, 6), np.nan), np.zeros((1, 6))):
        with pytest.raises(InvalidVector):
            collection.put_rebuilt(NEW, [key], bad)
    assert collection.rebuild().done == 0


def test_documents_come_in_bounded_parts(collections):
    collection = collections.create("notes", OLD, 4)[0]
    put(collection, ["a" * 100, "b" * 100, "c" * 100, *map(str, range(200))])
    collection.begin_rebuild(NEW, 4)

    def lengths(**options):
        return [len(document.text) for _, document in collection.unbuilt(**options)]

    assert lengths(characters=150) == [100, 100]
    assert lengths(characters=1) == [100]
    assert lengths(most=1) == [100]
    assert len(lengths()) == 64
    assert len(lengths(after=collection.unbuilt()[-1][0], most=1000)) == 203 - 64


def test_a_search_goes_on_as_it_began(collection):
    """A rebuild to vectors of another length ends after a search has taken its view."""
    put(collection, ["also: another text", "that: a text"])
    collection.begin_rebuild(NEW, 6)
    build(collection, NEW, 6)
    query = vectors(["query"], OLD)
    expected = found(collection)

    class Meanwhile(Refinement):
        def depth(self, k):
            collection.finish_rebuild()
            return super().depth(k)

    (hits,) = collection.search(query, 1000, under=OLD, refinement=Meanwhile(vectors=True))
    assert collection.dim == 6
    assert [(hit.id, hit.span, round(hit.score, 5)) for hit in hits] == expected
    for hit in hits:
        assert hit.vector == pytest.approx(vectors([hit.text], OLD)[0])


@pytest.mark.slow
def test_searches_see_one_definition_whole(collections, collection):
    """Readers and writers go on while the collection is rebuilt again and again."""
    over = threading.Event()
    failures = []

    def search():
        while not over.is_set():
            under, query = collection.definition, None
            try:
                query = vectors(["query"], under)
                (hits,) = collection.search(query, 1000, under=under)
            except StaleDefinition:
                continue
            expected = vectors([hit.text for hit in hits], under)
            cosines = expected @ query[0] / np.linalg.norm(expected, axis=1) / np.linalg.norm(query)
            if np.abs(cosines - [hit.score for hit in hits]).max() > 1e-5:
                failures.append(under)
            if sorted(hit.id for hit in hits) != sorted(str(i) for i in range(20)):
                failures.append([hit.id for hit in hits])

    def write():
        for number in range(10**9):
            if over.is_set():
                return
            under, text = collection.definition, f"{number % 20}:{number}"
            try:
                made = vectors([text], under)
                collection.upsert([Document(str(number % 20), text, {})], made, under=under)
            except StaleDefinition:
                continue

    threads = [threading.Thread(target=work) for work in (search, search, write)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            target = definition(f"number {number}")
            collection.begin_rebuild(target, 4)
            while not collection.finish_rebuild():
                build(collection, target, 4)
            assert collection.definition == target
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


WORKER = """
import sys, threading
from pathlib import Path
from tests.service.collections.test_rebuild import OLD, build, put
from tests.support.definitions import definition
from service.collections.embedded import EmbeddedEngine
from service.errors import StaleDefinition

collection = EmbeddedEngine(Path(sys.argv[1])).create("notes", OLD, 4)[0] if sys.argv[2] == "0" else (
    EmbeddedEngine(Path(sys.argv[1])).get("notes"))

def write():
    for number in range(10**9):
        text = f"{number % 40}:{sys.argv[2]}.{number}"
        try:
            put(collection, [text], under=collection.definition)
        except StaleDefinition:
            continue
        print(f"{text}\\n", end="", flush=True)  # in one piece, for two threads write

def rebuild():
    while True:
        dim = 10 - collection.dim
        target = definition(f"{dim} numbers", **({"chunks": 1} if dim == 6 else {}))
        collection.begin_rebuild(target, dim)
        while not collection.finish_rebuild():
            build(collection, target, dim, most=3)
        print("swapped\\n", end="", flush=True)

print("open", flush=True)
threading.Thread(target=rebuild, daemon=True).start()
write()
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_is_the_old_or_the_new_one_whole(folder, start):
    acknowledged, swaps = {}, 0
    for run in range(5):
        process = start(WORKER, folder, run)
        assert process.stdout.readline() == "open\n", process.communicate()[1]
        said = [process.stdout.readline() for _ in range(random.randint(30, 150))]
        process.kill()
        said += process.stdout.readlines()
        for line in (line.strip() for line in said if line.endswith("\n")):
            if line == "swapped":
                swaps += 1
            else:
                acknowledged[line.split(":")[0]] = line

        opened = EmbeddedEngine(folder)
        collection = opened.get("notes")
        (hits,) = collection.search(vectors(["query"], collection.definition, collection.dim), 1000)
        texts = {hit.id: hit.text for hit in hits}
        made = opened.create("anew", collection.definition, collection.dim)[0]
        put(made, list(texts.values()))
        assert sorted(found(made)) == sorted(found(collection))  # every vector is of the text and of the definition
        opened.drop("anew")
        assert collection.count() == len(texts) >= len(acknowledged)
        assert len(hits) == collection.chunks()
        for id_, text in acknowledged.items():  # the last write may have come unacknowledged
            number = [int(part) for part in text.split(":")[1].split(".")]
            stored = [int(part) for part in texts[id_].split(":")[1].split(".")]
            assert stored == number or stored > number
        if begun := collection.rebuild():
            assert begun.done <= collection.count()
        opened.close()
    assert swaps


@pytest.mark.slow
def test_a_full_disk_leaves_it_as_it_was(folder, start):
    program = """
import resource, sys
from pathlib import Path
from tests.service.collections.test_rebuild import NEW, OLD, build, found, put
from service.collections.embedded import EmbeddedEngine
from service.errors import StoreUnavailable

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

opened = EmbeddedEngine(Path(sys.argv[1]))
collection = opened.create("notes", OLD, 4)[0]
put(collection, [f"{i}:" + "x" * 200 for i in range(200)])
before = found(collection)
refused = 0
for room in range(150_000, 3_000_000, 60_000):
    limit(room)
    try:
        collection.begin_rebuild(NEW, 300)
        while build(collection, NEW, 300, most=50):
            pass
        if collection.finish_rebuild():
            break
    except StoreUnavailable as error:
        assert "Nothing stored" in str(error), error
        refused += 1
        assert found(collection) == before
limit(resource.RLIM_INFINITY)
put(opened.create("anew", NEW, 300)[0], [f"{i}:" + "x" * 200 for i in range(200)])
assert found(collection) == found(opened.get("anew"))
print("refused", refused)
"""
    said, errors = start(program, folder).communicate()
    assert said.startswith("refused") and int(said.split()[1]) > 3, errors


def test_a_closed_store(collections, collection):
    collections.close()
    with pytest.raises(StoreUnavailable):
        collection.begin_rebuild(NEW, 6)

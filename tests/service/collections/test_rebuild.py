"""A collection takes other vectors: beside the present ones, over any number of runs, and all at once in the end."""

import random

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.collections.refinement import Refinement
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

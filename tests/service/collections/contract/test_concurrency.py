"""Many threads at once, on every engine: every answer must be one that some moment could have given."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import NotFound, StoreUnavailable
from service.store import Document
from tests.support.definitions import definition

DIM = 16
SECONDS = 1.5


def vector_of(text):
    """Each text has its own vector, so that a hit shows whether score and text belong together."""
    return np.random.default_rng(abs(hash(text)) % 2**32).normal(size=DIM).astype(np.float32)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def run_together(*works):
    """Runs each work again and again, in a thread of its own, until time is up; raises what any raised."""
    end = time.monotonic() + SECONDS
    failed = threading.Event()

    def repeat(work):
        rounds = 0
        try:
            while time.monotonic() < end and not failed.is_set():
                work(rounds)
                rounds += 1
        except BaseException:
            failed.set()
            raise
        return rounds

    with ThreadPoolExecutor(len(works)) as pool:
        counts = [future.result() for future in [pool.submit(repeat, work) for work in works]]
    assert all(counts)
    return counts


@pytest.mark.slow
def test_searches_see_whole_requests_and_matching_scores(collections, reopen):
    collection = collections.create("notes", definition(), DIM)[0]
    groups, size = 4, 5

    def put(group, version):
        texts = [f"{group}/{i}/{version}" for i in range(size)]
        documents = [
            Document(f"{group}/{i}", text, {"group": group, "version": version}) for i, text in enumerate(texts)
        ]
        collection.upsert(documents, np.stack([vector_of(text) for text in texts]))

    for group in range(groups):
        put(group, 0)

    def writer(group):
        return lambda rounds: put(group, rounds + 1)

    def come_and_go(rounds):
        collection.upsert([Document("guest", "guest", {})], vector_of("guest")[None])
        collection.delete("guest")

    def search(filter_):
        def work(rounds):
            queries = np.random.default_rng(rounds).normal(size=(2, DIM)).astype(np.float32)
            for query, hits in zip(queries, collection.search(queries, 100, filter_), strict=True):
                versions = {}
                for hit in hits:
                    assert hit.score == pytest.approx(cosine(query, vector_of(hit.text)), abs=1e-5)
                    if hit.id != "guest":
                        assert hit.text == f"{hit.id}/{hit.metadata['version']}"
                        versions.setdefault(hit.metadata["group"], []).append(hit.metadata["version"])
                expected = range(groups) if filter_ is None else [1]
                assert sorted(versions) == list(expected)
                assert all(len(seen) == size and len(set(seen)) == 1 for seen in versions.values())

        return work

    def fetch(rounds):
        document = collection.fetch("2/3")
        assert document.text == f"2/3/{document.metadata['version']}"
        assert groups * size <= collection.count() <= groups * size + 1

    run_together(writer(0), writer(1), come_and_go, search(None), search(None), search({"group": 1}), fetch)
    final = {hit.id: hit.text for hit in collection.search(np.ones((1, DIM), np.float32), 100)[0]}
    reopened = reopen()
    hits = reopened.get("notes").search(np.ones((1, DIM), np.float32), 100)[0]
    assert {hit.id: hit.text for hit in hits} == final


@pytest.mark.slow
def test_dropping_and_creating_under_load(collections):
    query = np.ones((1, DIM), np.float32)

    def recreate(rounds):
        collection, created = collections.create("notes", definition(round=rounds), DIM)
        assert created
        assert collection.count() <= 3  # nothing of the round before
        time.sleep(0.01)
        collections.drop("notes")

    def write(rounds):
        try:
            collection = collections.get("notes")
            documents = [Document(str(i), str(collection.definition.parts["round"]), {}) for i in range(3)]
            assert collection.upsert(documents, np.ones((3, DIM), np.float32)) == 3
        except NotFound:
            pass

    def search(rounds):
        try:
            collection = collections.get("notes")
            hits = collection.search(query, 10)[0]
        except NotFound:
            return
        assert len(hits) in (0, 3)
        assert {hit.text for hit in hits} <= {str(collection.definition.parts["round"])}

    run_together(recreate, write, search, search)
    assert collections.list() == []


def test_racing_creators_make_one(collections):
    barrier = threading.Barrier(4)

    def create(_):
        barrier.wait()
        return [collections.create(f"c{i}", definition(), 2) for i in range(10)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(create, range(4)))
    for column in zip(*results, strict=True):
        assert len({id(collection) for collection, _ in column}) == 1
        assert sum(created for _, created in column) == 1


def test_closing_under_load(collections, reopen):
    collection = collections.create("notes", definition(), DIM)[0]
    acknowledged = []
    under_way = threading.Event()

    def write():
        try:
            for i in range(10_000):
                collection.upsert([Document(str(i), "", {})], np.ones((1, DIM), np.float32))
                acknowledged.append(str(i))
                if i == 20:
                    under_way.set()
        except StoreUnavailable:
            return True

    def search():
        try:
            while True:
                collection.search(np.ones((1, DIM), np.float32), 5)
        except StoreUnavailable:
            return True

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(write), *(pool.submit(search) for _ in range(3))]
        assert under_way.wait(60)
        collections.close()
        assert all(future.result(timeout=20) for future in futures)
    reopened = reopen()
    assert reopened.get("notes").count() == len(acknowledged)

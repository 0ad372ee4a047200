"""Random histories of an index that is built aside, against an exact one."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.index import graph as graph_module
from service.index.flat import ExactIndex
from service.index.hnsw import HnswIndex
from service.similarity import SIMILARITIES

DIM = 3


class Tiny(HnswIndex):
    exact_below = 6
    most_tail = 4
    most_of_graph = 0.1


class History(RuleBasedStateMachine):
    """Builds begin and end between changes; the index is restored from its snapshot and the rows since."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rng = np.random.default_rng(0)
        self.keys, self.vectors = np.empty(0, np.int64), np.empty((0, DIM), np.float32)
        self.next = 1
        self.snapshot = None

    def teardown(self):
        shutil.rmtree(self.folder)

    @initialize(similarity=st.sampled_from(sorted(SIMILARITIES)), seed=st.integers(0, 2**20))
    def begin(self, similarity, seed):
        self.similarity = SIMILARITIES[similarity]
        self.rng = np.random.default_rng(seed)
        self.index = Tiny(DIM, self.similarity, folder=self.folder)
        self.build = None

    @rule(documents=st.lists(st.integers(1, 3), min_size=1, max_size=12), equal=st.booleans())
    def add(self, documents, equal):
        keys = np.repeat(np.arange(self.next, self.next + len(documents)), documents)
        self.next += len(documents)
        vectors = np.ones((len(keys), DIM)) if equal else self.rng.normal(size=(len(keys), DIM))
        vectors = vectors.astype(np.float32)
        self.index.add(keys, vectors)
        self.keys, self.vectors = np.append(self.keys, keys), np.vstack([self.vectors, vectors])

    @rule(share=st.sampled_from([0.05, 0.3, 1.0]))
    def remove(self, share):
        keys = np.arange(self.next + 2)[self.rng.random(self.next + 2) < share]
        self.index.remove(keys)
        left = ~np.isin(self.keys, keys)
        self.keys, self.vectors = self.keys[left], self.vectors[left]

    @precondition(lambda self: self.index.due)
    @rule()
    def begin_build(self):
        self.build = self.index.begin()

    @precondition(lambda self: self.build)
    @rule(patience=st.none() | st.integers(0, 5))
    def end_build(self, patience):
        left = iter([False] * (1000 if patience is None else patience))
        part = self.build.run(lambda: next(left, True))
        if part is None:
            self.index.abandon()
        else:
            self.snapshot = self.index.adopt(part)
        self.build = None

    @precondition(lambda self: self.snapshot)
    @rule()
    def restart(self):
        self.index = Tiny(DIM, self.similarity, folder=self.folder)
        self.build = None
        after = self.index.restore(self.snapshot, np.unique(self.keys))
        rest = self.keys > after
        self.index.add(self.keys[rest], self.vectors[rest])

    @rule(k=st.integers(1, 30), share=st.none() | st.sampled_from([0.0, 0.2, 0.7]), grouped=st.booleans())
    def search(self, k, share, grouped):
        queries = self.rng.normal(size=(2, DIM)).astype(np.float32)
        allowed = None if share is None else np.arange(self.next)[self.rng.random(self.next) < share]
        exact = ExactIndex(DIM, self.similarity)
        exact.add(self.keys, self.vectors)
        truth = exact.search(queries, k, allowed, distinct=grouped)
        found = self.index.search(queries, k, allowed, distinct=grouped)
        self.compare(queries, found, truth, grouped)
        for one, other in zip(
            self.index.search(queries, k, allowed, distinct=grouped, exact=True), truth, strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def compare(self, queries, found, truth, grouped):
        for one, other in zip(found, truth, strict=True):
            np.testing.assert_array_equal(one, other)

    @invariant()
    def sizes_agree(self):
        assert (len(self.index), self.index.count) == (len(self.keys), len(np.unique(self.keys)))


class ByGraph(History):
    """Searches of the graph itself: each result is one that may be found, with its score and in its place."""

    def compare(self, queries, found, truth, grouped):
        assert [part.shape for part in found] == [part.shape for part in truth]
        metric = ExactIndex(DIM, self.similarity)
        metric.add(np.arange(len(self.keys)), self.vectors)
        every, places, _ = metric.search(queries, max(1, len(self.keys)))
        for row in range(len(queries)):
            scores, keys, ordinals = (part[row] for part in found)
            at = np.searchsorted(self.keys, keys) + ordinals
            assert np.array_equal(self.keys[at], keys)
            score_of = dict(zip(places[row].tolist(), every[row].tolist(), strict=True))
            assert scores.tolist() == [score_of[place] for place in at.tolist()]
            assert np.array_equal(np.lexsort((ordinals, keys, -scores)), np.arange(len(at)))
            assert len({*keys.tolist()} if grouped else {*at.tolist()}) == len(at)
            assert np.isin(scores, truth[0][row]).mean() >= 0.5 if len(at) else True


few = settings(
    max_examples=settings.default.max_examples // 2, suppress_health_check=list(HealthCheck), deadline=None
)
many = settings(few, max_examples=150, stateful_step_count=60)


class TestHistory(History.TestCase):
    settings = few


class TestByGraph(ByGraph.TestCase):
    settings = few

    @pytest.fixture(autouse=True)
    def _by_graph(self, monkeypatch):
        monkeypatch.setattr(graph_module, "_FEW", 0)
        monkeypatch.setattr(graph_module, "_COST_OF_CODE", 1e6)


@pytest.mark.slow
class TestManyHistories(TestHistory):
    settings = many


@pytest.mark.slow
class TestManyByGraph(TestByGraph):
    settings = many

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
from service.index import ivf as ivf_module
from service.index.flat import ExactIndex
from service.index.hnsw import HnswIndex
from service.index.ivf import IvfIndex
from service.index.linking import LINKS
from service.similarity import SIMILARITIES
from tests.support.sources import Source

DIM = 3


class Tiny(HnswIndex):
    exact_below = 6
    most_tail = 4
    most_of_body = 0.1


class TinyIvf(IvfIndex):
    exact_below = 6
    most_tail = 4
    most_of_segment = 25
    most_tail_bytes = 20 * (4 * DIM + 8)


class History(RuleBasedStateMachine):
    """Builds begin and end between changes; the index is restored from its snapshot and the rows since."""

    kind = Tiny

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rng = np.random.default_rng(0)
        self.source = Source(DIM, block=4)
        self.next = 1
        self.snapshot = None

    @property
    def keys(self):
        return self.source.keys

    @property
    def vectors(self):
        return self.source.vectors

    def new(self):
        return self.kind(DIM, self.similarity, folder=self.folder, source=self.source)

    def teardown(self):
        shutil.rmtree(self.folder)

    @initialize(similarity=st.sampled_from(sorted(SIMILARITIES)), seed=st.integers(0, 2**20))
    def begin(self, similarity, seed):
        self.similarity = SIMILARITIES[similarity]
        self.rng = np.random.default_rng(seed)
        self.index = self.new()
        self.build = None

    @rule(documents=st.lists(st.integers(1, 3), min_size=1, max_size=12), equal=st.booleans())
    def add(self, documents, equal):
        keys = np.repeat(np.arange(self.next, self.next + len(documents)), documents)
        self.next += len(documents)
        vectors = np.ones((len(keys), DIM)) if equal else self.rng.normal(size=(len(keys), DIM))
        vectors = vectors.astype(np.float32)
        self.index.add(keys, vectors)
        self.source.add(keys, vectors)

    @rule(share=st.sampled_from([0.05, 0.3, 1.0]))
    def remove(self, share):
        keys = np.arange(self.next + 2)[self.rng.random(self.next + 2) < share]
        self.index.remove(keys)
        self.source.remove(keys)

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
        self.index = self.new()
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
    """Searches of the graph or codes themselves: each result is one that may be found, with its score and place."""

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
            if len(at) and not self.crowded:
                assert np.isin(scores, truth[0][row]).mean() >= 0.5

    @property
    def crowded(self):
        """Whether so many vectors are equal that the links of each may lead to no other."""
        return len(self.vectors) > 0 and np.unique(self.vectors, axis=0, return_counts=True)[1].max() > LINKS


class IvfHistory(History):
    kind = TinyIvf


class ByCodes(ByGraph):
    kind = TinyIvf


few = settings(
    max_examples=settings.default.max_examples // 2, suppress_health_check=list(HealthCheck), deadline=None
)
fewer = settings(few, stateful_step_count=25)
many = settings(few, max_examples=150, stateful_step_count=60)


class TestHistory(History.TestCase):
    settings = few


class TestByGraph(ByGraph.TestCase):
    settings = few

    @pytest.fixture(autouse=True)
    def _by_graph(self, monkeypatch):
        monkeypatch.setattr(graph_module, "_FEW", 0)
        monkeypatch.setattr(graph_module, "_COST_OF_CODE", 1e6)


@pytest.fixture
def small_samples(monkeypatch):
    monkeypatch.setattr(ivf_module, "QUERIES", 10)


@pytest.mark.usefixtures("small_samples")
class TestIvfHistory(IvfHistory.TestCase):
    settings = fewer


@pytest.mark.usefixtures("small_samples")
class TestByCodes(ByCodes.TestCase):
    settings = fewer

    @pytest.fixture(autouse=True)
    def _by_codes(self, monkeypatch):
        monkeypatch.setattr(ivf_module, "_FEW", 0)


@pytest.mark.parametrize("left", range(9, 19))
def test_the_last_that_is_left_while_all_others_are_removed_amid_a_build_is_found(left, tmp_path):
    keys, vectors = np.arange(1, 19), np.random.default_rng(left).normal(size=(18, DIM)).astype(np.float32)
    source = Source(DIM, block=4)
    index = TinyIvf(DIM, SIMILARITIES["cosine"], folder=tmp_path, source=source)

    def remove(gone):
        for held in (index, source):
            held.remove(gone)

    for held in (index, source):
        held.add(keys, vectors)
    index.adopt(index.begin().run(lambda: False))
    remove(keys[keys < 9])
    assert index.due
    build = index.begin()
    remove(keys[keys != left])
    index.adopt(build.run(lambda: False))
    assert (len(index), index.search(vectors[:1], 3)[1].tolist()) == (1, [[left]])


@pytest.mark.slow
class TestManyHistories(TestHistory):
    settings = many


@pytest.mark.slow
class TestManyByGraph(TestByGraph):
    settings = many


@pytest.mark.slow
class TestManyIvfHistories(TestIvfHistory):
    settings = many


@pytest.mark.slow
class TestManyByCodes(TestByCodes):
    settings = many

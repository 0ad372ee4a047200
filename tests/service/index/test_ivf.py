"""Approximate search with the vectors in a store: what it finds, against exact search."""

import os

import faiss
import numpy as np
import pytest

from service.errors import InvalidIndex
from service.index import DamagedSnapshot
from service.index import ivf as ivf_module
from service.index.flat import ExactIndex
from service.index.hnsw import HnswIndex
from service.index.ivf import IvfIndex
from service.index.segment import Effort, Segment
from service.index.snapshot import Draft
from service.similarity import COSINE, SIMILARITIES
from tests.service.index.test_hnsw import build, clustered, never, recall
from tests.support.sources import Source
from tests.support.tiers import first_fast

DIM = 16


class Small(IvfIndex):
    """Has segments of a few vectors."""

    exact_below = 50
    most_tail = 40
    most_of_segment = 600


class Changed:
    """An index, what it reads from, and an exact one that changes likewise."""

    def __init__(self, kind, similarity, folder=None, dim=DIM):
        self.similarity = similarity
        self.source = Source(dim)
        self.exact = ExactIndex(dim, similarity)
        self.index = kind(dim, similarity, folder=folder, source=self.source)

    def add(self, keys, vectors):
        self.source.add(keys, vectors)
        self.exact.add(keys, vectors)
        self.index.add(keys, vectors)

    def remove(self, keys):
        self.source.remove(keys)
        self.exact.remove(keys)
        self.index.remove(keys)

    def same(self, queries, k=2000, **options):
        """Checks that the index finds what the exact one finds, which is all of it."""
        found, truth = self.index.search(queries, k, **options), self.exact.search(queries, k, **options)
        for got, expected in zip(found, truth, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.fixture(autouse=True)
def _small_samples(monkeypatch):
    monkeypatch.setattr(ivf_module, "QUERIES", 30)


@pytest.fixture
def by_codes(monkeypatch):
    """Lets codes be searched where reading all vectors would be quicker."""
    monkeypatch.setattr(ivf_module, "_FEW", 0)
    monkeypatch.setattr(ivf_module, "_MODEST", 0)


@pytest.mark.parametrize("similarity", first_fast(SIMILARITIES))
def test_finds_what_exact_search_finds_with_its_scores(by_codes, similarity):
    rng = np.random.default_rng(5)
    count = 2000
    vectors = clustered(rng, count)
    keys = np.sort(rng.integers(0, 2 * count, count))  # a third of them several times
    changed = Changed(Small, SIMILARITIES[similarity])
    for start in range(0, 1600, 400):
        cut = np.searchsorted(keys, keys[[start, start + 400]])
        changed.add(keys[cut[0] : cut[1]], vectors[cut[0] : cut[1]])
        build(changed.index)
    changed.add(keys[cut[1] :], vectors[cut[1] :])
    removed = rng.choice(keys, 250)
    changed.remove(removed)
    index, exact = changed.index, changed.exact
    assert (len(index), index.count) == (len(exact), exact.count)
    state = index.view().state
    assert (state.uses, state.target, state.problem) == ("ivf", 0.95, None)
    assert state.recall >= 0.95 and state.tail < 401 and state.deleted > 150
    assert len(index.view().body.segments) > 1

    queries = clustered(np.random.default_rng(5), 8)  # from the same clusters
    recalls = []
    far = keys[vectors[:, 0] > np.quantile(vectors[:, 0], 0.9)]
    for allowed in (None, keys[keys % 2 == 0], keys[keys % 50 == 0], far, keys[:3], keys[:0], np.array([-1])):
        for k in (10, 70):
            for distinct in (False, True):
                options = {"distinct": distinct}
                truth = exact.search(queries, k, allowed, **options)
                found = index.search(queries, k, allowed, **options)
                assert [part.shape for part in found] == [part.shape for part in truth]
                if truth[0].size:
                    assert recall(found[0], truth[0]) >= 0.9
                    recalls.append(recall(found[0], truth[0]))
                scores, found_keys, ordinals = found
                for row in range(len(queries)):  # each result is what it says, and in its place
                    places = np.searchsorted(keys, found_keys[row]) + ordinals[row]
                    assert np.array_equal(keys[places], found_keys[row])
                    assert len({*places.tolist()}) == len(places)
                    assert not np.isin(found_keys[row], removed).any()
                    assert np.array_equal(
                        np.lexsort((ordinals[row], found_keys[row], -scores[row])), range(len(places))
                    )
                for got, expected in zip(
                    index.search(queries, k, allowed, exact=True, **options), truth, strict=True
                ):
                    np.testing.assert_array_equal(got, expected)
    assert np.mean(recalls) >= 0.95


def test_a_filter_whose_documents_lie_elsewhere_hides_none(by_codes):
    """The lists near the query hold none of them, although half of all vectors match."""
    rng = np.random.default_rng(8)
    near, far = (clustered(rng, 1000) / 9 + sign * np.eye(DIM)[0] for sign in (1, -1))
    changed = Changed(IvfIndex, COSINE)
    changed.index.exact_below = 1000
    changed.add(np.arange(2000), np.concatenate([near, far], dtype=np.float32))
    build(changed.index)
    allowed = np.arange(1000, 2000)
    found, truth = (each.search(near[:5], 20, allowed) for each in (changed.index, changed.exact))
    assert recall(found[0], truth[0]) >= 0.95


@pytest.mark.parametrize("similarity", ["euclidean", "dot"])
def test_a_filter_that_leaves_few_that_lie_far_from_a_query(similarity, monkeypatch):
    """All of their codes are compared, and tell less of vectors that are far than of near ones."""
    monkeypatch.setattr(ivf_module, "_FEW", 0)
    rng = np.random.default_rng(10)
    changed = Changed(IvfIndex, SIMILARITIES[similarity])
    changed.index.exact_below = 1000
    vectors = (rng.normal(size=(4000, DIM)) * np.exp(rng.normal(size=(4000, 1)))).astype(np.float32)
    changed.add(np.arange(4000), vectors)
    build(changed.index)
    queries = (rng.normal(size=(20, DIM)) + 2).astype(np.float32)
    allowed = np.sort(np.argsort(vectors @ queries.mean(0))[:2000])
    found, truth = (each.search(queries, 10, allowed) for each in (changed.index, changed.exact))
    assert recall(found[0], truth[0]) >= 0.98


def test_segments_grow_until_they_are_full_and_shrink_together():
    rng = np.random.default_rng(1)
    changed = Changed(Small, COSINE)

    def segments():
        return [each.length for each in changed.index.view().body.segments]

    changed.add(np.arange(100), clustered(rng, 100))
    build(changed.index)
    assert segments() == [100]
    (first,) = changed.index.view().body.segments
    changed.add(np.arange(100, 200), clustered(rng, 100))
    build(changed.index)
    (grown,) = changed.index.view().body.segments
    assert (first.length, grown.length) == (100, 200)  # the earlier view keeps its own
    assert grown.part.trained == first.part.trained == 100
    changed.add(np.arange(200, 500), clustered(rng, 300))
    build(changed.index)
    assert segments() == [500] and changed.index.view().body.segments[0].part.trained == 500
    changed.add(np.arange(500, 620), clustered(rng, 120))
    build(changed.index)
    assert segments() == [500, 120]
    changed.same(clustered(rng, 5))
    changed.remove(np.arange(10, 200))
    assert changed.index.due
    build(changed.index)
    assert segments() == [430]
    changed.same(clustered(rng, 5))


def test_what_the_tail_may_not_hold_is_read_until_it_has_codes(by_codes):
    class Cramped(Small):
        most_tail_bytes = 100 * (4 * DIM + 8)

    rng = np.random.default_rng(1)
    vectors, keys = clustered(rng, 400), np.arange(400)
    changed = Changed(Cramped, COSINE)
    changed.add(keys[:90], vectors[:90])
    build(changed.index)
    for start in range(90, 390, 30):
        changed.add(keys[start : start + 30], vectors[start : start + 30])
    begun = changed.index.begin()
    changed.remove(keys[150:170])
    changed.add(keys[390:], vectors[390:])
    state = changed.index.view().state
    assert (state.uses, state.tail) == ("ivf", 290) and changed.index.memory_bytes < 40_000
    changed.same(vectors[::40])
    changed.index.adopt(begun.run(never))
    changed.same(vectors[::40])
    build(changed.index)
    assert changed.index.view().state.tail < 41
    assert (len(changed.index), changed.index.count) == (380, 380)
    changed.same(vectors[::40])


def test_without_any_codes_all_is_read():
    class Cramped(Small):
        exact_below = 1000
        most_tail_bytes = 0

    rng = np.random.default_rng(1)
    changed = Changed(Cramped, COSINE)
    changed.add(np.arange(80), clustered(rng, 80))
    assert changed.index.view().state.uses == "exact" and changed.index.due
    for options in ({}, {"distinct": True}, {"allowed": np.arange(0, 80, 2)}, {"allowed": np.array([3, 1, 90])}):
        changed.same(clustered(rng, 3), **options)


def test_what_the_store_lost_is_not_found(by_codes):
    rng = np.random.default_rng(1)
    vectors = clustered(rng, 100)
    changed = Changed(Small, COSINE)
    changed.add(np.arange(100), vectors)
    build(changed.index)
    changed.source.remove(np.arange(0, 100, 3))
    changed.exact.remove(np.arange(0, 100, 3))
    for got, expected in zip(
        changed.index.search(vectors[:4], 100), changed.exact.search(vectors[:4], 100), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_equal_vectors_meet_any_recall(by_codes):
    changed = Changed(Small, COSINE)
    changed.add(np.arange(400), np.ones((400, DIM), np.float32))
    build(changed.index)
    state = changed.index.view().state
    assert (state.uses, state.recall, state.problem) == ("ivf", 1.0, None)
    scores, keys, _ = changed.index.search(np.ones((1, DIM), np.float32), 20)
    assert len(set(keys[0].tolist())) == 20 and np.allclose(scores, 1)


def test_changes_during_a_build_are_kept_and_earlier_views_stay(tmp_path):
    rng = np.random.default_rng(1)
    vectors, keys = clustered(rng, 200), np.arange(200)
    changed = Changed(Small, COSINE, tmp_path)
    index = changed.index
    changed.add(keys[:100], vectors[:100])
    begun = index.begin()
    assert not index.due
    changed.remove(keys[10:20])
    changed.add(keys[100:], vectors[100:])
    changed.remove(keys[95:105])
    before = index.view()
    name = index.adopt(begun.run(never))
    assert (len(index), index.count, len(before)) == (180, 180, 180)
    assert index.view().state.tail == 95
    changed.same(vectors[:3])
    assert len(before.search(vectors[:1], 500)[1][0]) == 180
    assert [path.name for path in tmp_path.iterdir()] == [name]
    changed.remove(keys)
    assert len(index) == 0 and index.search(vectors[:1], 5)[1].shape == (1, 0)
    assert index.due  # all of the segment is gone
    build(index)
    assert len(index) == 0 and index.view().state.uses == "exact"


def test_a_stopped_build_leaves_nothing(tmp_path):
    rng = np.random.default_rng(1)
    changed = Changed(Small, COSINE, tmp_path)
    changed.add(np.arange(100), clustered(rng, 100))
    for patience in range(12):
        asked = iter([False] * patience)
        assert changed.index.begin().run(lambda asked=asked: next(asked, True)) is None
        changed.index.abandon()
        assert list(tmp_path.iterdir()) == [] and changed.index.due
    (tmp_path / "file").touch()
    changed = Changed(Small, COSINE, tmp_path / "file")
    changed.add(np.arange(100), clustered(rng, 100))
    with pytest.raises(OSError, match="file"):
        changed.index.begin().run(never)
    changed.index.abandon("there is no place")
    assert not changed.index.due and changed.index.view().state.problem == "there is no place"
    changed.add(np.arange(100, 160), clustered(rng, 60))
    assert changed.index.due  # after some more, it is tried again


@pytest.mark.parametrize("wrong", [0.0, 1.0, float("nan")])
def test_recalls_that_cannot_be(wrong):
    with pytest.raises(InvalidIndex, match=r"not from 0\.5 to 0\.999; .* 'flat'"):
        IvfIndex(3, COSINE, recall=wrong)


# Snapshots


@pytest.fixture
def saved(tmp_path):
    """An index of several segments, and the name of its snapshot."""
    changed = Changed(Small, COSINE, tmp_path)
    rng = np.random.default_rng(2)
    for start in range(0, 1000, 250):
        changed.add(np.arange(start, start + 250) * 2, clustered(rng, 250))
        name = build(changed.index)
    return changed, name, tmp_path


def reopened(saved, kind=Small, similarity=COSINE, dim=DIM):
    changed, _, folder = saved
    changed.index = kind(dim, similarity, folder=folder, source=changed.source)
    return changed.index


def test_a_snapshot_holds_what_the_index_held(saved):
    changed, name, folder = saved
    assert len(name.split()) == 2 and {path.name for path in folder.iterdir()} >= {*name.split()}
    before = changed.index.view().state
    changed.source.remove(np.arange(100, 200))
    changed.exact.remove(np.arange(100, 200))
    index = reopened(saved)
    assert index.restore(name, np.append(changed.source.keys, 5000)) == 1998
    state = index.view().state
    assert (state.uses, state.recall, state.deleted) == ("ivf", before.recall, 50)
    changed.same(changed.source.vectors[:5])
    with pytest.raises(ValueError, match="ascend"):
        index.add(np.array([1998]), changed.source.vectors[:1])
    changed.add(np.array([5000]), changed.source.vectors[:1])
    assert len(index) == 951


@pytest.mark.parametrize("share", [0.0, 0.1, 0.99, 1.0])
def test_a_truncated_file_is_refused(saved, share):
    changed, name, folder = saved
    path = folder / name.split()[1]
    os.truncate(path, int(path.stat().st_size * share) - (share == 1))
    with pytest.raises(DamagedSnapshot):
        reopened(saved).restore(name, changed.source.keys)


def test_a_flipped_bit_anywhere_is_refused(saved):
    changed, name, folder = saved
    path = folder / name.split()[0]
    content = path.read_bytes()
    rng = np.random.default_rng(4)
    for place in [*range(0, len(content[:4096].rstrip()), 17), *rng.integers(4096, len(content), 30).tolist()]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DamagedSnapshot):
            reopened(saved).restore(name, changed.source.keys)
    path.write_bytes(content)
    assert reopened(saved).restore(name, changed.source.keys) == 1998


def test_a_snapshot_of_something_else_is_refused(saved):
    changed, name, _ = saved
    keys = changed.source.keys
    with pytest.raises(DamagedSnapshot, match="vectors of 16 numbers, compared by cosine"):
        reopened(saved, similarity=SIMILARITIES["dot"]).restore(name, keys)
    with pytest.raises(DamagedSnapshot, match="kind 'ivf'"):
        reopened(saved, HnswIndex).restore(name.split()[0], keys)
    with pytest.raises(DamagedSnapshot, match="do not follow"):
        reopened(saved).restore(" ".join(reversed(name.split())), keys)
    with pytest.raises(DamagedSnapshot, match="lacks 500 doc"):
        reopened(saved).restore(name.split()[1], keys)
    with pytest.raises(OSError, match="missing"):
        reopened(saved).restore("missing", keys)


def test_a_snapshot_with_the_lists_of_an_earlier_version_is_searched_until_it_is_built_anew(by_codes, tmp_path):
    rng = np.random.default_rng(3)
    changed = Changed(Small, COSINE, tmp_path)
    vectors, keys = clustered(rng, 300), np.arange(300)
    changed.source.add(keys, vectors)
    changed.exact.add(keys, vectors)
    prepared = COSINE.prepared(vectors)
    lists = faiss.IndexFlatIP(DIM)  # where there is a graph now
    lists.add(prepared[:20])
    codes = faiss.ScalarQuantizer.QT_4bit_uniform
    ivf = faiss.IndexIVFScalarQuantizer(lists, DIM, 20, codes, faiss.METRIC_INNER_PRODUCT, True)
    turn = faiss.RandomRotationMatrix(DIM, DIM)
    turn.init(DIM)
    before = faiss.IndexPreTransform(turn, ivf)
    before.train(prepared)
    before.add_with_ids(prepared, keys)
    effort = Effort((20, 20), (100, 300), 1.0, 300)
    name = Segment(keys, before, 300, effort).written(Draft(tmp_path, DIM), COSINE).name

    index = changed.index
    assert index.restore(name, keys) == 299 and index.view().state.uses == "ivf"
    assert index.memory_bytes < 50_000
    changed.same(vectors[:5])
    assert index.due
    assert build(index) != name and not index.due
    changed.same(vectors[:5])

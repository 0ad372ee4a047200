"""Approximate search: what it finds, against exact search."""

import os

import faiss
import numpy as np
import pytest

from service.errors import InvalidIndex
from service.index import DamagedSnapshot
from service.index import graph as graph_module
from service.index.flat import ExactIndex
from service.index.hnsw import AutoIndex, HnswIndex
from service.index.snapshot import Draft
from service.similarity import COSINE, SIMILARITIES
from tests.support.tiers import first_fast

DIM = 16


class Small(HnswIndex):
    """Has a graph from a few vectors on."""

    exact_below = 50
    most_tail = 40


def clustered(rng, count, dim=DIM, clusters=40):
    centres = rng.normal(size=(clusters, dim))
    points = centres[rng.integers(clusters, size=count)] + rng.normal(scale=0.5, size=(count, dim))
    return points.astype(np.float32)


def never():
    return False


def build(index):
    """Builds until nothing is due; returns the name of the last snapshot."""
    name = None
    while index.due:
        name = index.adopt(index.begin().run(never))
    return name


def recall(found, truth):
    """The share of the true scores that were found, equal ones counted as one."""
    return np.mean([np.isin(row, best).mean() for row, best in zip(found, truth, strict=True)])


@pytest.fixture
def by_graph(monkeypatch):
    """Lets graphs be searched where reading all vectors would be quicker."""
    monkeypatch.setattr(graph_module, "_FEW", 0)
    monkeypatch.setattr(graph_module, "_COST_OF_CODE", 1e6)


@pytest.fixture
def by_codes(monkeypatch):
    """Lets codes be compared one by one."""
    monkeypatch.setattr(graph_module, "_FEW", 0)
    monkeypatch.setattr(graph_module, "_COST_OF_EFFORT", 1e6)


@pytest.mark.parametrize("way", first_fast(["by_graph", "by_codes"]))
@pytest.mark.parametrize("similarity", first_fast(SIMILARITIES))
def test_finds_what_exact_search_finds_with_its_scores(request, way, similarity):
    request.getfixturevalue(way)
    rng = np.random.default_rng(5)
    count = 2000
    vectors = clustered(rng, count)
    keys = np.sort(rng.integers(0, 2 * count, count))  # a third of them several times
    index, exact = HnswIndex(DIM, SIMILARITIES[similarity]), ExactIndex(DIM, SIMILARITIES[similarity])
    cut = int(np.searchsorted(keys, keys[1700]))
    for each in (index, exact):
        each.add(keys[:cut], vectors[:cut])
    assert index.view().state.uses == "exact" and index.due
    build(index)
    removed = rng.choice(keys, 250)
    for each in (index, exact):
        each.add(keys[cut:], vectors[cut:])
        each.remove(removed)
    assert (len(index), index.count) == (len(exact), exact.count)
    state = index.view().state
    assert (state.uses, state.target, state.problem) == ("hnsw", 0.98, None)
    assert state.recall >= 0.98 and state.tail < 300 and state.deleted > 150

    queries = clustered(np.random.default_rng(5), 20)  # from the same clusters
    far = keys[vectors[:, 0] > np.quantile(vectors[:, 0], 0.9)]
    for allowed in (None, keys[keys % 2 == 0], keys[keys % 50 == 0], far, keys[:3], keys[:0], np.array([-1])):
        for k in (1, 10, 100):
            for distinct in (False, True):
                options = {"distinct": distinct}
                truth = exact.search(queries, k, allowed, **options)
                found = index.search(queries, k, allowed, **options)
                assert [part.shape for part in found] == [part.shape for part in truth]
                if truth[0].size:
                    assert recall(found[0], truth[0]) >= (0.98 if allowed is None else 0.97)
                scores, found_keys, ordinals = found
                for row in range(len(queries)):  # each result is what it says, and in its place
                    places = np.searchsorted(keys, found_keys[row]) + ordinals[row]
                    assert np.array_equal(keys[places], found_keys[row])
                    assert len({*places.tolist()}) == len(places)
                    assert np.array_equal(
                        np.lexsort((ordinals[row], found_keys[row], -scores[row])), range(len(places))
                    )
                for got, expected in zip(
                    index.search(queries, k, allowed, exact=True, **options), truth, strict=True
                ):
                    np.testing.assert_array_equal(got, expected)


def test_a_filter_whose_documents_lie_elsewhere_hides_none(by_graph, monkeypatch):
    """The graph's neighbourhood of the query holds none of them, although half of all vectors match."""
    monkeypatch.setattr(graph_module, "_COST_OF_CODE", 1.0)
    rng = np.random.default_rng(8)
    near = rng.normal(scale=0.1, size=(1500, DIM)) + np.eye(DIM)[0]
    far = rng.normal(scale=0.1, size=(1500, DIM)) - np.eye(DIM)[0]
    keys = np.arange(3000)
    index, exact = HnswIndex(DIM, COSINE), ExactIndex(DIM, COSINE)
    for each in (index, exact):
        each.add(keys, np.concatenate([near, far]).astype(np.float32))
    build(index)
    query = np.eye(DIM, dtype=np.float32)[:1]
    found, truth = index.search(query, 20, keys[1500:]), exact.search(query, 20, keys[1500:])
    assert found[1].tolist() == truth[1].tolist()


@pytest.mark.slow
def test_a_filter_of_whole_clusters_finds_the_nearest_of_them(by_graph):
    """The graph's answers end in the cluster of the query and come upon a few of the others by chance."""
    rng = np.random.default_rng(9)
    dim, clusters, size = 64, 100, 150
    centres = rng.normal(size=(clusters, dim))
    cluster = np.repeat(np.arange(clusters), size)
    vectors = centres[cluster] + rng.normal(scale=0.7, size=(clusters * size, dim))
    index, exact = HnswIndex(dim, COSINE), ExactIndex(dim, COSINE)
    for each in (index, exact):
        each.add(np.arange(len(vectors)), vectors.astype(np.float32))
    build(index)
    queries = (centres + rng.normal(scale=0.7, size=centres.shape)).astype(np.float32)
    allowed = np.flatnonzero(cluster % 10 == 0)
    found, truth = (each.search(queries, 10, allowed)[0] for each in (index, exact))
    assert recall(found, truth) >= 0.995


def test_changes_during_a_build_are_kept_and_earlier_views_stay(tmp_path):
    rng = np.random.default_rng(1)
    vectors, keys = clustered(rng, 200), np.arange(200)
    index = Small(DIM, COSINE, folder=tmp_path)
    index.add(keys[:100], vectors[:100])
    begun = index.begin()
    assert not index.due
    index.remove(keys[10:20])
    index.add(keys[100:], vectors[100:])
    index.remove(keys[95:105])
    before = index.view()
    name = index.adopt(begun.run(never))
    assert (len(index), index.count, len(before)) == (180, 180, 180)
    assert index.view().state.tail == 95
    left = np.concatenate([keys[:10], keys[20:95], keys[105:]])
    assert sorted(index.search(vectors[:1], 500)[1][0].tolist()) == left.tolist()
    assert sorted(before.search(vectors[:1], 500)[1][0].tolist()) == left.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    index.remove(keys)
    assert len(index) == 0 and index.search(vectors[:1], 5)[1].shape == (1, 0)
    assert len(before.search(vectors[:1], 500)[1][0]) == 180
    assert index.due  # all of the graph is gone
    build(index)
    assert len(index) == 0 and index.view().state.uses == "exact"


def test_a_stopped_build_leaves_nothing(tmp_path):
    rng = np.random.default_rng(1)
    index = Small(DIM, COSINE, folder=tmp_path)
    index.add(np.arange(100), clustered(rng, 100))
    for patience in range(4):
        asked = iter([False] * patience)
        assert index.begin().run(lambda asked=asked: next(asked, True)) is None
        index.abandon()
        assert list(tmp_path.iterdir()) == [] and index.due
    (tmp_path / "file").touch()
    index = Small(DIM, COSINE, folder=tmp_path / "file")
    index.add(np.arange(100), clustered(rng, 100))
    with pytest.raises(OSError, match="file"):
        index.begin().run(never)
    index.abandon("there is no place")
    assert not index.due and index.view().state.problem == "there is no place"
    index.add(np.arange(100, 160), clustered(rng, 60))
    assert index.due  # after some more, it is tried again


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_vectors_that_are_nearly_equal_are_told_apart(by_graph, similarity):
    """Such as those of many versions of a few texts: within a cluster, cosines are from 0.99 to 1.

    Some clusters have vectors three times as long as others. A fifth of the vectors comes once there is a graph.
    """
    rng = np.random.default_rng(8)
    centres = rng.normal(size=(20, 64)) * np.linspace(1, 3, 20)[:, None]
    vectors = centres[rng.integers(0, 20, 2500)] + rng.normal(scale=0.05, size=(2500, 64))
    vectors = vectors.astype(np.float32)
    queries = vectors[::25] + rng.normal(scale=0.02, size=(100, 64)).astype(np.float32)
    index = Small(64, SIMILARITIES[similarity])
    for start, end in ((0, 2000), (2000, 2500)):
        index.add(np.arange(start, end), vectors[start:end])
        build(index)
    view = index.view()
    assert (view.state.problem, view.state.tail) == (None, 0)
    for k in (10, 100):
        found, _, _ = view.search(queries, k)
        assert recall(found, view.search(queries, k, exact=True)[0]) > 0.98


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e9])
def test_vectors_by_product_may_have_any_length_and_longer_ones_may_come(by_graph, length):
    rng = np.random.default_rng(8)
    vectors, longer = clustered(rng, 1000) * np.float32(length), clustered(rng, 200) * np.float32(length * 3e5)
    index, exact = Small(DIM, SIMILARITIES["dot"]), ExactIndex(DIM, SIMILARITIES["dot"])
    for each in (index, exact):
        each.add(np.arange(1000), vectors)
    build(index)
    for each in (index, exact):
        each.add(np.arange(1000, 1200), longer)
    build(index)
    assert index.view().state.tail == 0
    queries = clustered(rng, 50)
    found, truth = (each.search(queries, 10)[0] for each in (index, exact))
    assert recall(found, truth) > 0.98


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_graph_of_an_earlier_version_is_searched_until_it_is_built_anew(by_graph, tmp_path, similarity):
    """It compared products of 8-bit codes."""
    vectors, keys = clustered(np.random.default_rng(9), 200), np.arange(200)
    compared = SIMILARITIES[similarity]
    prepared = compared.prepared(vectors)
    earlier = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 32, faiss.METRIC_INNER_PRODUCT)
    earlier.train(prepared)
    earlier.add(prepared)
    draft = Draft(tmp_path, DIM)
    draft.append(prepared)
    name = draft.finish(
        "hnsw", compared, keys, earlier, {"effort": 64, "stretch": 1.0, "recall": 0.99, "measured": 200}
    )
    index, exact = Small(DIM, compared, folder=tmp_path), ExactIndex(DIM, compared)
    exact.add(keys, vectors)
    assert index.restore(name, keys) == 199 and index.due
    truth = exact.search(vectors[:20], 10)
    assert recall(index.search(vectors[:20], 10)[0], truth[0]) > 0.98
    name = build(index)
    again = Small(DIM, compared, folder=tmp_path)
    assert again.restore(name, keys) == 199 and not again.due
    for each in (index, again):
        assert recall(each.search(vectors[:20], 10)[0], truth[0]) > 0.98


@pytest.mark.slow
def test_a_recall_that_cannot_be_met_says_what_can():
    """Lengths of vectors that differ by orders of magnitude hide the short ones from a graph by inner product."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(1000, 32)) * rng.lognormal(sigma=10, size=(1000, 1))
    index = HnswIndex(32, SIMILARITIES["dot"], recall=0.999)
    index.add(np.arange(1000), vectors.astype(np.float32))
    build(index)
    state = index.view().state
    assert state.recall < 0.999
    assert state.problem == f"a recall of 0.999 is not met; {state.recall:.3f} is what the index reaches at most"


@pytest.mark.parametrize("wrong", [0.0, 0.4, 1.0, -1.0, float("nan")])
def test_recalls_that_cannot_be(wrong):
    with pytest.raises(InvalidIndex, match=r"not from 0\.5 to 0\.999; .* 'flat'"):
        HnswIndex(3, COSINE, recall=wrong)


def test_auto_is_exact_while_small():
    index = AutoIndex(2, COSINE)
    rows = AutoIndex.exact_below - 1
    index.add(np.arange(rows), np.ones((rows, 2), np.float32))
    assert not index.due
    index.add(np.array([rows]), np.ones((1, 2), np.float32))
    assert index.due


# Snapshots


@pytest.fixture
def snapshot(tmp_path):
    """The folder and name of a snapshot, the vectors in it and their keys."""
    vectors, keys = clustered(np.random.default_rng(2), 120), np.arange(10, 130) * 2
    index = Small(DIM, COSINE, folder=tmp_path)
    index.add(keys, vectors)
    return tmp_path, build(index), keys, vectors


def test_a_snapshot_holds_what_the_index_held(snapshot):
    folder, name, keys, vectors = snapshot
    index = Small(DIM, COSINE, folder=folder)
    assert index.restore(name, np.append(keys[5:], 500)) == keys[-1]
    exact = ExactIndex(DIM, COSINE)
    exact.add(keys[5:], vectors[5:])
    for got, expected in zip(index.search(vectors, 10), exact.search(vectors[:], 10), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    with pytest.raises(ValueError, match="ascend"):
        index.add(keys[-1:], vectors[-1:])
    index.add(np.array([500]), vectors[:1])
    assert len(index) == 116


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_a_truncated_snapshot_is_refused(snapshot, share):
    folder, name, keys, _ = snapshot
    size = (folder / name).stat().st_size
    os.truncate(folder / name, int(size * share) - (share == 1))
    with pytest.raises(DamagedSnapshot):
        Small(DIM, COSINE, folder=folder).restore(name, keys)


def test_a_flipped_bit_anywhere_is_refused(snapshot):
    folder, name, keys, _ = snapshot
    content = (folder / name).read_bytes()
    rng = np.random.default_rng(4)
    header = len(content[:4096].rstrip())
    for place in [*range(0, header, 7), *rng.integers(4096, len(content), 60).tolist(), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(damaged)
        with pytest.raises(DamagedSnapshot):
            Small(DIM, COSINE, folder=folder).restore(name, keys)
    (folder / name).write_bytes(content)
    assert Small(DIM, COSINE, folder=folder).restore(name, keys) == keys[-1]


def test_a_snapshot_of_something_else_is_refused(snapshot):
    folder, name, keys, _ = snapshot
    with pytest.raises(DamagedSnapshot, match="vectors of 16 numbers, compared by cosine"):
        Small(DIM, SIMILARITIES["dot"], folder=folder).restore(name, keys)
    with pytest.raises(DamagedSnapshot, match="vectors of 16 numbers"):
        Small(DIM + 1, COSINE, folder=folder).restore(name, keys)
    with pytest.raises(DamagedSnapshot, match="lacks 1 doc"):
        Small(DIM, COSINE, folder=folder).restore(name, np.insert(keys, 4, keys[4] - 1))
    with pytest.raises(OSError, match="no such"):
        Small(DIM, COSINE, folder=folder).restore("no such", keys)

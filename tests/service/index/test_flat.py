import threading

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.index import flat as index_module
from service.index.flat import ExactIndex
from service.similarity import COSINE, SIMILARITIES


def brute_force(keys, vectors, query, k, similarity):
    """Scores in float64, best first."""
    wide = vectors.astype(np.float64)
    scores = -np.linalg.norm(wide - query, axis=1) if similarity == "euclidean" else wide @ query
    if similarity == "cosine":
        scores = scores / np.linalg.norm(wide, axis=1) / np.linalg.norm(query)
    order = np.lexsort((keys, -scores))[:k]
    return scores[order], keys[order]


@pytest.mark.parametrize("queries", [1, 7, 40])  # FAISS takes another path from 20 queries on
@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_agrees_with_brute_force(queries, share, similarity):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(500, 24)).astype(np.float32) * rng.uniform(0.01, 100, (500, 1)).astype(np.float32)
    keys = np.cumsum(rng.integers(1, 9, 500)).astype(np.int64)
    index = ExactIndex(24, SIMILARITIES[similarity])
    index.add(keys[:200], vectors[:200])
    index.add(keys[200:], vectors[200:])
    removed = rng.choice(keys, 50, replace=False)
    index.remove(removed)
    index.remove(removed)
    left = ~np.isin(keys, removed)
    assert len(index) == 450

    allowed = None if share is None else rng.permutation(keys)[: int(500 * share)]
    eligible = left if allowed is None else left & np.isin(keys, allowed)
    asked = rng.normal(size=(queries, 24)).astype(np.float32)
    scores, found, ordinals = index.search(asked, 20, allowed)
    assert scores.shape == found.shape == ordinals.shape == (queries, min(20, eligible.sum()))
    assert not ordinals.any()
    for row, query in enumerate(asked):
        expected_scores, expected = brute_force(keys[eligible], vectors[eligible], query, 20, similarity)
        np.testing.assert_array_equal(found[row], expected)
        rounding = 1e-6 * max(1, np.abs(expected_scores).max(initial=0))
        np.testing.assert_allclose(scores[row], expected_scores, atol=rounding)


def test_the_callers_arrays_stay_as_they_are():
    vectors = np.array([[3, 4], [0, 2]], np.float32)
    keys = np.array([1, 2], np.int64)
    query, allowed = np.array([[5, 5]], np.float32), np.array([2, 1], np.int64)
    before = [array.copy() for array in (vectors, keys, query, allowed)]
    index = ExactIndex(2, COSINE)
    index.add(keys, vectors)
    index.search(query, 2, allowed)
    index.remove(keys)
    for array, copy in zip((vectors, keys, query, allowed), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@given(
    st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=60),
    st.integers(1, 70),
    st.sampled_from([*SIMILARITIES.values()]),
    st.data(),
)
def test_equal_scores_come_by_key(choices, k, similarity, data):
    """With three distinct vectors almost every cut goes through equal scores; each is nearest to the first."""
    distinct = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    keys = np.arange(10, 10 + len(choices), dtype=np.int64)
    allowed = np.array(data.draw(st.lists(st.sampled_from(keys.tolist()), unique=True)), np.int64)
    index = ExactIndex(2, similarity)
    index.add(keys, distinct[choices])
    for subset, eligible in ((None, keys), (allowed, np.sort(allowed))):
        found = index.search(distinct[:1], k, subset)[1]
        assert found[0].tolist() == sorted(eligible.tolist(), key=lambda key: (choices[key - 10], key))[:k]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 2])), min_size=1, max_size=120),
    st.integers(1, 30),
    st.booleans(),
    st.data(),
)
def test_several_vectors_a_key(choices, k, grouped, data):
    """Against sorting everything; a true says that a new key begins there."""
    distinct = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    keys = 10 + np.cumsum([new for new, _ in choices])
    ordinals = [place - int(np.searchsorted(keys, key)) for place, key in enumerate(keys)]
    rows = list(zip(keys.tolist(), ordinals, [which for _, which in choices], strict=True))
    index = ExactIndex(2, COSINE)
    half = int(np.searchsorted(keys, keys[len(keys) // 2]))
    for part in (slice(0, half), slice(half, None)):
        index.add(keys[part], distinct[[which for _, _, which in rows[part]]])
    gone = data.draw(st.sets(st.sampled_from(keys.tolist())))
    index.remove(np.array([*gone, 9, 1000], np.int64))
    rows = [row for row in rows if row[0] not in gone]
    assert (len(index), index.count) == (len(rows), len({key for key, _, _ in rows}))
    allowed = data.draw(st.none() | st.sets(st.integers(8, 80)))
    rows = [row for row in rows if allowed is None or row[0] in allowed]
    queries = np.array([[1, 0], [0, 1], [1, 2]], np.float32)
    found = index.search(queries, k, None if allowed is None else np.array([*allowed], np.int64), distinct=grouped)
    for query, scores, found_keys, found_ordinals in zip(queries, *found, strict=True):
        cosines = COSINE.prepared(distinct) @ COSINE.prepared(query[None])[0]
        ranked = sorted(rows, key=lambda row: (-cosines[row[2]], row))
        if grouped:
            ranked = list({row[0]: row for row in reversed(ranked)}.values())
            ranked.sort(key=lambda row: (-cosines[row[2]], row))
        expected = ranked[:k]
        assert list(zip(found_keys, found_ordinals, strict=True)) == [(key, place) for key, place, _ in expected]
        np.testing.assert_allclose(scores, [cosines[which] for _, _, which in expected], atol=1e-6)


@pytest.mark.parametrize("queries", [1, 30])
def test_keys_with_most_of_the_best_hide_no_other(monkeypatch, queries):
    """Two keys hold the 3,000 nearest vectors; those behind them are found all the same, a few rows at a time."""
    monkeypatch.setattr(index_module, "_CELLS", 5000)
    rng = np.random.default_rng(7)
    near = np.array([1, 0, 0]) + rng.normal(scale=0.01, size=(3000, 3))
    far = np.array([0, 1, 0]) + rng.normal(scale=0.1, size=(40, 3))
    vectors = np.concatenate([near, far]).astype(np.float32)
    keys = np.concatenate([np.repeat([3, 5], 1500), np.repeat(np.arange(6, 26), 2)])
    index = ExactIndex(3, COSINE)
    index.add(keys, vectors)
    asked = (np.array([1, 0, 0]) + rng.normal(scale=0.01, size=(queries, 3))).astype(np.float32)
    scores, found, ordinals = index.search(asked, 10, distinct=True)
    for row, query in enumerate(asked):
        cosines = COSINE.prepared(vectors) @ COSINE.prepared(query[None])[0]
        best = {int(key): cosines[keys == key].max() for key in np.unique(keys)}
        ranked = sorted(best, key=lambda key: -best[key])[:10]
        assert found[row].tolist() == ranked and set(ranked[:2]) == {3, 5}
        np.testing.assert_allclose(scores[row], [best[key] for key in ranked], atol=1e-6)
        places = np.searchsorted(keys, found[row]) + ordinals[row]
        assert keys[places].tolist() == ranked
        np.testing.assert_allclose(cosines[places], scores[row], atol=1e-6)
    assert index.search(asked, 5000, distinct=True)[1].shape == (queries, 22)


@pytest.mark.parametrize("queries", [1, 19, 20, 200])
def test_small_distances_between_long_vectors_keep_their_digits(queries):
    """Squared distances by way of inner products would all be 0 or noise here."""
    vectors = (1000 + np.array([[0, 0], [0.25, 0], [0, 0.5], [1, 0]])).astype(np.float32)
    index = ExactIndex(2, SIMILARITIES["euclidean"])
    index.add(np.arange(4), vectors)
    scores, keys, _ = index.search(np.repeat(vectors[:1], queries, 0), 4)
    assert keys.tolist() == [[0, 1, 2, 3]] * queries
    assert scores.tolist() == [[0.0, -0.25, -0.5, -1.0]] * queries and not np.signbit(scores[:, 0]).any()


@pytest.mark.parametrize("k", [5, 100, 400])
def test_distances_whose_squares_alone_differ_come_by_key(k):
    """All vectors lie on a circle around the query: many squares of one last digit more have an equal root."""
    angles = np.random.default_rng(4).uniform(0, 7, 400)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    index = ExactIndex(2, SIMILARITIES["euclidean"])
    index.add(np.arange(400), vectors)
    (scores,), (keys,), _ = index.search(np.zeros((1, 2), np.float32), k)
    squares = (vectors[keys] ** 2).sum(1)
    assert len(np.unique(scores)) < len(np.unique(squares)) <= 10
    assert np.array_equal(np.lexsort((keys, -scores)), np.arange(k))
    (all_keys,) = index.search(np.zeros((1, 2), np.float32), 400)[1]
    assert keys.tolist() == all_keys[:k].tolist()


def test_numbers_at_the_ends_of_float32():
    index = ExactIndex(2, COSINE)
    index.add(np.array([1, 2], np.int64), np.array([[3e38, 3e38], [1e-44, 0]], np.float32))
    scores, keys, _ = index.search(np.array([[1, 0]], np.float32), 2)
    assert keys.tolist() == [[2, 1]]
    np.testing.assert_allclose(scores, [[1, np.sqrt(0.5)]], atol=1e-6)


def test_no_queries_and_no_vectors():
    index = ExactIndex(3, COSINE)
    query = np.ones((1, 3), np.float32)
    assert index.search(query, 5)[1].shape == (1, 0)
    assert index.search(query, 5, np.array([4], np.int64))[1].shape == (1, 0)
    index.remove(np.array([4], np.int64))
    index.add(np.array([4], np.int64), query)
    assert index.search(query[:0], 5)[1].shape == (0, 1)
    assert index.search(query, 5, np.array([3, 5], np.int64))[1].shape == (1, 0)


def test_memory_follows_the_vectors():
    index = ExactIndex(10, COSINE)
    assert index.memory_bytes == 0
    index.add(np.arange(100, dtype=np.int64), np.ones((100, 10), np.float32))
    assert index.memory_bytes == 100 * (10 * 4 + 8)
    index.remove(np.arange(60, dtype=np.int64))
    assert index.memory_bytes == 40 * (10 * 4 + 8)


@pytest.mark.parametrize("keys", [[5, 6], [4, 9], [6, 7], [6, 6], [9, 8]])
def test_keys_only_ascend(keys):
    index = ExactIndex(1, COSINE)
    index.add(np.array([3, 6], np.int64), np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="ascend"):
        index.add(np.array(keys, np.int64), np.ones((2, 1), np.float32))
    assert len(index) == 2
    assert index.search(np.ones((1, 1), np.float32), 9)[1].tolist() == [[3, 6]]


def test_a_search_leaves_the_threads_openmp_setting():
    index = ExactIndex(1, COSINE)
    index.add(np.array([1], np.int64), np.ones((1, 1), np.float32))
    seen = []

    def search():
        faiss.omp_set_num_threads(2)
        index.search(np.ones((1, 1), np.float32), 1)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [2]

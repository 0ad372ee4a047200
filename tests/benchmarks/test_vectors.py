"""The vectors that stores are measured with, the requests that send them, and what is compared with what."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import lean, mixed, search, stores
from benchmarks.load import Client, Outcome
from benchmarks.machine import Usage
from benchmarks.millpond import Millpond
from benchmarks.mixed import ALONE, REPLACE, SEARCH, Changes
from benchmarks.peers import MissingPeer
from benchmarks.servers import Measured
from benchmarks.stored import Stored
from benchmarks.vectors import BATCH, DIM, PARTS, SPREAD_OUT, TOGETHER, Corpus, Nearest, Upserts, recall


def test_a_corpus_is_the_same_whenever_it_is_drawn() -> None:
    corpus = Corpus(2_500)
    drawn = list(corpus.batches())
    assert [(start, len(vectors)) for start, vectors, _ in drawn] == [(0, BATCH), (BATCH, BATCH), (2 * BATCH, 500)]
    for start, vectors, clusters in drawn:
        again, of = pickle.loads(pickle.dumps(corpus)).batch(start, len(vectors))
        np.testing.assert_array_equal(vectors, again)
        np.testing.assert_array_equal(clusters, of)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    rows = np.concatenate([*(vectors for _, vectors, _ in drawn), corpus.queries(50)])
    assert rows.dtype == np.float32
    assert len(np.unique(rows, axis=0)) == 2_550


def test_vectors_of_a_cluster_are_near_to_each_other() -> None:
    vectors, clusters = Corpus(4_000).batch(0)
    cosines = vectors @ vectors.T
    same = clusters[:, None] == clusters
    assert np.quantile(cosines[same], 0.01) > np.quantile(cosines[~same], 0.999)


def test_shares_of_the_metadata_are_what_they_say() -> None:
    corpus = Corpus(200_000)
    _, clusters = corpus.batch(0)
    found = [corpus.metadata(place, cluster) for place, cluster in enumerate(clusters.tolist())]
    assert Counter(each[SPREAD_OUT] for each in found) == dict.fromkeys(range(PARTS), 1)
    assert {corpus.metadata(0, cluster)[TOGETHER] for cluster in range(1_000)} == set(range(PARTS))


def test_requests_hold_every_place_once_and_travel_unmade() -> None:
    corpus = Corpus(130)
    upserts = Upserts(corpus, "/somewhere", range(130), each=64)
    assert len(pickle.dumps(upserts)) < 20_000
    requests = list(pickle.loads(pickle.dumps(upserts)))
    assert [request.texts for request in requests] == [64, 64, 2]
    documents = [document for request in requests for document in json.loads(request.body)["documents"]]
    assert [document["id"] for document in documents] == [str(place) for place in range(130)]
    np.testing.assert_array_equal(np.float32(documents[64]["vector"]), corpus.batch(64, 64)[0][0])
    assert documents[129]["metadata"][SPREAD_OUT] == 129


def test_the_nearest_are_those_of_all_that_were_shown() -> None:
    corpus = Corpus(2_500)
    queries, nearest = corpus.queries(5), Nearest(corpus.queries(5), 7)
    for start, vectors, _ in corpus.batches():
        nearest.show(np.arange(start, start + len(vectors)), vectors)
    every = np.concatenate([vectors for _, vectors, _ in corpus.batches()])
    best = np.argsort(-(queries @ every.T), 1)[:, :7]
    assert nearest.ids == [{str(place) for place in row} for row in best.tolist()]


def test_recall_is_of_the_queries_that_anything_matches() -> None:
    assert recall([{"a", "x"}, set(), {"b"}], [{"a", "b"}, set(), {"b"}]) == 0.75
    assert recall([set()], [set()]) == 1


def test_searches_over_http_cost_more_than_faiss_in_the_same_round() -> None:
    def measured(cpu: float) -> Measured:
        return Measured(Outcome(2.0, 100, [0.001] * 100, cpu=0.01), Usage(cpu=cpu))

    found = {"1 client": [measured(0.09), measured(0.12)], search.ALONE: [{search.ALONE: 0.4}, {search.ALONE: 0.6}]}
    rows = search.table(found)
    assert rows["1 client"] == {
        "queries/s": "50.0 (50.0-50.0)",
        "p50": "1.00 (1.00-1.00)",
        "p99": "1.00 (1.00-1.00)",
        "CPU": "1.05 (0.90-1.20)",
        "client's CPU": "0.10 (0.10-0.10)",
        "CPU over FAISS": "0.55 (0.50-0.60)",
    }
    assert rows[search.ALONE] == {"CPU": "0.50 (0.40-0.60)"}


def test_what_runs_side_by_side_has_a_row_each() -> None:
    one, other = Outcome(1.0, 1), Outcome(2.0, 2)
    found = {(SEARCH, ALONE): [{SEARCH: one}], (SEARCH, REPLACE): [{SEARCH: one, REPLACE: other}]}
    assert mixed.by_row(found) == {
        f"{SEARCH}, alone": [one],
        f"{SEARCH}, beside {REPLACE}": [one],
        f"{REPLACE}, beside {SEARCH}": [other],
    }


def test_other_stores_are_missing_unless_a_variable_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stores.VARIABLE, str(tmp_path))
    with pytest.raises(MissingPeer, match="there is no bin/chroma"):
        stores.python()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory):
    """A small corpus in a server, and the client that stored it."""
    server = Millpond("M", store=tmp_path_factory.mktemp("vectors") / "store", backend="torch")
    with server.serving(), Client() as client:
        stored = Stored(server, Corpus(1_500))
        stored.create("hnsw")
        filled = stored.fill(client)
        assert filled.count == stored.described()["count"] == 1_500
        assert 0 < filled.stored < filled.built
        yield stored, client


@pytest.mark.slow
def test_a_corpus_is_stored_built_and_searched(stored: tuple[Stored, Client]) -> None:
    store, client = stored
    assert store.described()["index_state"]["uses"] == "hnsw"
    queries = store.corpus.queries(10)
    nearest = Nearest(queries, 10)
    for start, vectors, _ in store.corpus.batches():
        nearest.show(np.arange(start, start + len(vectors)), vectors)
    assert store.found(queries, exact=True) == nearest.ids
    assert store.recall(queries) > 0.9
    assert {len(found) for found in store.found(queries, filter={SPREAD_OUT: {"$lt": 2}})} == {4}
    assert client.run(store.load(queries, 2)).texts == 10
    alone = search.apart(search.bare, store.indexes, queries)
    assert alone[search.ALONE] > 0


@pytest.mark.slow
def test_changes_are_paced_and_none_comes_twice(stored: tuple[Stored, Client]) -> None:
    store, client = stored
    changes = Changes(store, 1)
    loads = [changes.replacements(), changes.deletions(), changes.replacements(), changes.checks()]
    ids = [json.loads(one.body) for load in loads[:3] for one in load.requests]
    named = [body["ids"][0] if "ids" in body else body["documents"][0]["id"] for body in ids]
    assert len(set(named)) == len(named) == 150
    for load in loads:
        outcome = client.run(load)
        assert outcome.texts == len(outcome.latencies) == 50
        assert outcome.seconds >= 0.97  # 49 pauses of 20 ms, which timers may cut a little short
    stored_before = store.described()["count"]
    assert stored_before == 1_450
    ingested = client.run(changes.ingest())
    store.settle()
    assert store.described()["count"] == stored_before + ingested.texts


@pytest.mark.slow
def test_a_store_that_is_filled_without_http_is_served(tmp_path: Path) -> None:
    corpus = Corpus(1_200)
    queries = corpus.queries(5)
    filled = search.apart(lean.fill, tmp_path / "store", corpus, "hnsw", queries)
    server = Millpond("M", store=tmp_path / "store", backend="torch")
    with server.serving():
        stored = Stored(server, corpus, lean.NAME)
        described = stored.described()
        assert (described["count"], described["foreign"], described["dimension"]) == (1_200, True, DIM)
        assert stored.found(queries, exact=True) == filled["truth"]


@pytest.mark.peers
@pytest.mark.parametrize("name", list(stores.PEERS))
def test_a_peer_finds_what_is_near(tmp_path: Path, name: str) -> None:
    try:
        stores.python()
    except MissingPeer as error:
        pytest.skip(str(error))
    corpus = Corpus(1_000)
    queries, nearest = corpus.queries(5), Nearest(corpus.queries(5), 10)
    vectors, _ = corpus.batch(0)
    nearest.show(np.arange(1_000), vectors)
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", queries)
    found = stores.peer(stores.PEERS[name][0], tmp_path)
    assert recall([ids for _, ids in found["searches"][None]], nearest.ids) > 0.5
    assert all(ids == {"0"} for _, ids in found["searches"][1])
    assert found["memory"] > 50 and found["disk"] > 1 and found["opened"] > 0

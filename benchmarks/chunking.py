"""Late against early chunking: Cranfield's abstracts joined into long texts, and found again by spans of those."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import Request
from benchmarks.millpond import Millpond
from benchmarks.report import Report, progress
from benchmarks.texts import Vectors, cranfield, unit
from pooling.tasks import paired_bootstrap, retrieval

JOINED: Final = 8
"""Abstracts in one long text."""
POOLINGS: Final = ("mean", "cls", "max")
SPANS: Final[Mapping[str, Any]] = {"an abstract": None, "64 tokens, overlap 16": {"tokens": 64, "overlap": 16}}
"""What a span is: the abstracts themselves, or what `/embed_spans` is asked to cut."""
METRICS: Final = retrieval.METRICS[:3]

Scores = NDArray[np.float64]
"""(queries, metrics)."""


@dataclass(frozen=True)
class Long:
    """A long text, and the character span of each abstract in it by id."""

    text: str
    abstracts: dict[str, tuple[int, int]]


def joined(documents: Mapping[str, str], size: int = JOINED) -> list[Long]:
    """Join documents in their order, `size` to a text, a blank line between them."""
    found, items = [], list(documents.items())
    for start in range(0, len(items), size):
        some = items[start : start + size]
        ends = np.cumsum([len(text) + 2 for _, text in some]).tolist()
        places = {name: (end - 2 - len(text), end - 2) for (name, text), end in zip(some, ends, strict=True)}
        found.append(Long("\n\n".join(text for _, text in some), places))
    return found


def owner(span: tuple[int, int], abstracts: Mapping[str, tuple[int, int]]) -> str:
    """Find the abstract that has most characters in common with a span."""
    return max(abstracts, key=lambda name: min(span[1], abstracts[name][1]) - max(span[0], abstracts[name][0]))


def embed_spans(server: Millpond, texts: Sequence[Long], cut: Any, mode: str) -> tuple[Sequence[str], list[Vectors]]:
    """Embed the spans of long texts; gives the abstract that each belongs to, and (spans, dim) for each pooling."""

    def ask(text: Long) -> list[tuple[str, list[float]]]:
        spans = cut or list(text.abstracts.values())
        body = {"inputs": text.text, "spans": spans, "mode": mode, "pooling": " + ".join(POOLINGS), "truncate": True}
        (found,) = server.ask(Request("POST", "/embed_spans", json.dumps(body)))
        owners = [owner(span, text.abstracts) for span in found["spans"]]
        return list(zip(owners, found["vectors"], strict=True))

    with ThreadPoolExecutor(4) as pool:
        owners, vectors = zip(*chain.from_iterable(pool.map(ask, texts)), strict=True)
    return owners, by_pooling(np.array(vectors, np.float32))


def by_pooling(vectors: Vectors) -> list[Vectors]:
    """Split vectors that hold all poolings one after the other into unit vectors of each."""
    return [unit(part) for part in np.split(vectors, len(POOLINGS), axis=1)]


def score(owners: Sequence[str], spans: Vectors, queries: Vectors, judged: Sequence[Mapping[str, int]]) -> Scores:
    """Score each query, where an abstract ranks by the best of its spans."""
    rankings = []
    for cosines in queries @ spans.T:
        order = np.argsort(-cosines, kind="stable")
        rankings.append(list(dict.fromkeys(owners[place] for place in order))[: retrieval.CUT])
    return retrieval.measure(rankings, judged)[:, : len(METRICS)]


def run(report: Report) -> None:
    """Measure, and fill the report."""
    data = cranfield()
    documents = dict(list(data.documents.items())[: report.size(10_000, 160)])
    texts = joined(documents)
    judged = {
        query: here
        for query, grades in data.relevance.items()
        if (here := {name: grade for name, grade in grades.items() if name in documents})
    }
    found: dict[str, dict[str, Scores]] = {}
    server = Millpond("Millpond")
    with server.serving():
        queries = by_pooling(server.vectors([data.queries[query] for query in judged], " + ".join(POOLINGS)))
        for span, cut in SPANS.items():
            for mode in ("late", "early"):
                progress(f"chunking: {span}, {mode}")
                owners, spans = embed_spans(server, texts, cut, mode)
                for place, pooling in enumerate(POOLINGS):
                    scores = score(owners, spans[place], queries[place], list(judged.values()))
                    found.setdefault(f"{span}, {pooling}", {})[mode] = 100 * scores
        runs_on = server.runs_on
    report.say(
        f"all-MiniLM-L6-v2 ({runs_on}) on Cranfield: {len(documents)} abstracts in the order of the corpus, {JOINED} "
        f"of them joined into each of {len(texts)} long texts, whose spans are embedded by `/embed_spans`; "
        f"{len(judged)} queries. A span counts for the abstract that it has most characters of, and an abstract "
        "ranks by the best of its spans."
    )
    report.say(
        "Early chunking embeds each span by itself: with an abstract a span it is the same as never joining them, "
        "and one longer than the model's 256 tokens is cut. Late chunking pools a span from windows over the whole "
        "text. Figures are x 100; the difference is late - early, in brackets its 95 % interval by paired bootstrap "
        "over the queries."
    )
    means = {
        name: {mode: dict(zip(METRICS, scores.mean(axis=0).tolist(), strict=True)) for mode, scores in modes.items()}
        for name, modes in found.items()
    }
    table = {
        name: {f"{metric} {mode}": f"{modes[mode][metric]:.2f}" for metric in METRICS for mode in modes}
        | {f"{METRICS[0]} difference": difference(**found[name])}
        for name, modes in means.items()
    }
    report.table("a span is, pooling", table)
    report.keep(scores=means)


def difference(late: Scores, early: Scores) -> str:
    """Format the difference in the first metric with its interval."""
    values = (late - early)[:, 0]
    low, high = paired_bootstrap(lambda chosen: float(values[chosen].mean()), len(values))
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"

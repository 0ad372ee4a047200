"""Late against early chunking: Cranfield's abstracts joined into long texts, and found again by spans of those.

python -m benchmarks.chunking
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks import datasets
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.report import Report
from benchmarks.service import Millpond
from pooling.tasks import paired_bootstrap, retrieval

JOINED: Final = 8
"""Abstracts in one long text."""
POOLINGS: Final = ("mean", "cls", "max")
CUTS: Final[Mapping[str, Any]] = {"an abstract": "given", "64 tokens, overlap 16": {"tokens": 64, "overlap": 16}}
MODES: Final = ("late", "early")
K: Final = retrieval.CUT

Vectors = NDArray[np.float32]
Spans = list[tuple[int, int]]
Scores = dict[str, NDArray[np.float64]]
"""Each measure, of each query."""


@dataclass(frozen=True)
class Long:
    """A long text, and for each abstract in it the id and where it stands."""

    text: str
    abstracts: dict[str, tuple[int, int]]


def joined(documents: Mapping[str, str], size: int = JOINED) -> list[Long]:
    """Documents in their order, `size` to a text, a blank line between them; empty ones are left out."""
    found = []
    items = [(name, text) for name, text in documents.items() if text]
    for start in range(0, len(items), size):
        some = items[start : start + size]
        ends = np.cumsum([len(text) + 2 for _, text in some]).tolist()
        places = {name: (end - 2 - len(text), end - 2) for (name, text), end in zip(some, ends, strict=True)}
        found.append(Long("\n\n".join(text for _, text in some), places))
    return found


def owner(span: tuple[int, int], abstracts: Mapping[str, tuple[int, int]]) -> str:
    """The abstract that has most characters in common with a span."""
    return max(abstracts, key=lambda name: min(span[1], abstracts[name][1]) - max(span[0], abstracts[name][0]))


def embed_spans(url: str, texts: Sequence[Long], cut: Any, mode: str) -> tuple[list[str], Vectors]:
    """The abstract that each span belongs to, and its vector under all poolings together, (spans, poolings * dim)."""

    def ask(text: Long) -> list[dict[str, Any]]:
        spans = list(text.abstracts.values()) if cut == "given" else cut
        body = {"inputs": text.text, "spans": spans, "mode": mode, "pooling": " + ".join(POOLINGS), "truncate": True}
        answer = client.post("/embed_spans", json=body)
        answer.raise_for_status()
        found: list[dict[str, Any]] = orjson.loads(answer.content)
        return found

    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(4) as pool:
        answers = [found for (found,) in pool.map(ask, texts)]
    owners = [
        owner((start, end), text.abstracts)
        for text, found in zip(texts, answers, strict=True)
        for start, end in found["spans"]
    ]
    return owners, np.concatenate([np.array(found["vectors"], np.float32) for found in answers])


def one_pooling(vectors: Vectors, place: int) -> Vectors:
    """Its unit vectors, out of those that have all poolings one after the other."""
    own = np.split(vectors, len(POOLINGS), axis=1)[place]
    return own / np.linalg.norm(own, axis=1, keepdims=True)


def scores(
    owners: Sequence[str],
    vectors: Vectors,
    queries: Mapping[str, Vectors],
    relevance: Mapping[str, Mapping[str, int]],
) -> Scores:
    """nDCG, recall and MRR of each query, where an abstract ranks by the best of its spans."""
    rankings = []
    for vector in queries.values():
        order = np.argsort(-(vectors @ vector), kind="stable")
        rankings.append(list(dict.fromkeys(owners[place] for place in order))[:K])
    found = retrieval.measure(rankings, [relevance[query] for query in queries])
    return dict(zip(retrieval.METRICS[:3], found.T[:3], strict=True))


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("chunking", "Late and early chunking", settings)
    data = datasets.cranfield()
    texts = joined(dict(list(data.documents.items())[: settings.some(10_000, 160)]))
    there = {name for text in texts for name in text.abstracts}
    judged = {
        query: {name: grade for name, grade in grades.items() if name in there}
        for query, grades in data.relevance.items()
    }
    judged = {query: grades for query, grades in judged.items() if grades}
    rows, kept = [], {}
    with tempfile.TemporaryDirectory() as name, Millpond("Millpond", Path(name)) as server:
        runs_on = server.runs_on
        asked = [data.queries[query] for query in judged]
        with httpx.Client(base_url=server.url, timeout=600) as client:
            answer = client.post("/embed", json={"inputs": asked, "pooling": " + ".join(POOLINGS)})
            answer.raise_for_status()
        query_vectors = np.array(orjson.loads(answer.content), np.float32)
        for title, cut in CUTS.items():
            by_mode = {}
            for mode in MODES:
                progress(f"chunking: {title}, {mode}")
                by_mode[mode] = embed_spans(server.url, texts, cut, mode)
            for place, pooling in enumerate(POOLINGS):
                queries = dict(zip(judged, one_pooling(query_vectors, place), strict=True))
                late, early = (
                    scores(owners, one_pooling(vectors, place), queries, judged)
                    for owners, vectors in by_mode.values()
                )
                rows.append(_row([title, pooling], late, early))
                kept[f"{title}, {pooling}"] = {
                    mode: {key: float(values.mean()) * 100 for key, values in of.items()}
                    for mode, of in (("late", late), ("early", early))
                }
    report.say(
        f"all-MiniLM-L6-v2 ({runs_on}) on Cranfield: {len(there)} abstracts in the order of the corpus, {JOINED} of "
        f"them joined into each of {len(texts)} long texts, whose spans are embedded by `/embed_spans`; "
        f"{len(judged)} queries. A span counts for the abstract that it has most characters of, and an abstract "
        "ranks by the best of its spans."
    )
    report.say(
        "Early chunking embeds each span by itself: with an abstract a span it is the same as never joining them, "
        "and one longer than the model's 256 tokens is cut. Late chunking pools a span from windows over the whole "
        "text. Figures are x 100; the difference is late - early, in brackets its 95 % interval by paired bootstrap "
        "over the queries."
    )
    heads = [f"nDCG@{K} late", "early", "difference", f"recall@{K} late", "early", f"MRR@{K} late", "early"]
    report.table(["a span is", "pooling", *heads], rows)
    report.keep("scores", kept)
    report.write()


def _row(begin: list[str], late: Scores, early: Scores) -> list[str]:
    cells = list(begin)
    for key in late:
        cells += [f"{of[key].mean() * 100:.2f}" for of in (late, early)]
        if key == f"ndcg@{K}":
            difference = late[key] - early[key]
            low, high = paired_bootstrap(lambda chosen, values=difference: values[chosen].mean(), len(difference))
            cells.append(f"{difference.mean() * 100:+.2f} ({low * 100:+.2f} to {high * 100:+.2f})")
    return cells


if __name__ == "__main__":
    run(from_command_line(__doc__))

"""Cranfield searched by vectors, by words and by both, under each tokenizer, through the running service."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.millpond import Millpond, millpond
from benchmarks.quality import Scores, score_searches
from benchmarks.report import Report, progress
from benchmarks.texts import copy_head, cranfield
from pooling.tasks import retrieval
from service.store.tokenizers import TOKENIZERS
from tests.support import datasets

MODES: Final = ("dense", "keyword", "hybrid")
METRIC: Final = retrieval.METRICS[0]


def run(report: Report) -> None:
    """Measure, and fill the report; it takes two minutes."""
    server = Millpond("Millpond")
    found: dict[str, dict[str, Scores]] = {}
    with tempfile.TemporaryDirectory() as name, server.serving():
        folder = Path(name)
        source = copy_head(
            datasets.folder() / "cranfield", folder / "cranfield", ["corpus.jsonl"], report.size(10_000, 100)
        )
        for tokenizer in TOKENIZERS:
            progress(f"retrieval: {tokenizer}")
            server.running.http.put(
                f"/collections/{tokenizer}", json={"keyword": {"tokenizer": tokenizer}}
            ).raise_for_status()
            millpond("index", source, "--collection", tokenizer, "--truncate", "--url", server.running.url)
            found[tokenizer] = {mode: score_searches(server, tokenizer, mode=mode) for mode in MODES}
            # Those that follow take the vectors from here.
            exported = folder / f"{tokenizer}.jsonl"
            millpond("export", tokenizer, exported, "--vectors", "--url", server.running.url)
            source = exported
        runs_on = server.runs_on
    report.say(
        f"Cranfield's {len(cranfield().relevance)} queries over its abstracts, through `millpond index` and "
        f"`/collections/.../search`; all-MiniLM-L6-v2, {runs_on}, exact search. Mean of {METRIC} x 100, by mode:"
    )
    rows = {tokenizer: {mode: of[METRIC] for mode, of in by.items()} for tokenizer, by in found.items()}
    report.table("tokenizer", rows, "{:.2f}".format)
    report.keep(scores=found)

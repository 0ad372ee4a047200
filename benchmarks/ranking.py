"""Re-ranking beside a bare forward pass over the same pairs: what tokenizing, batching and the queue cost.

The cross-encoder has the sizes of MiniLM-L6 and random weights, since only time is measured, and the tokenizer of the
bundled model. The bare pass is the same runtime, over all pairs in one padded batch on all cores.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from benchmarks.report import Report
from service.checkpoint import find_folder
from service.config import make_config
from service.encoder.pairs import PairTokenizer
from service.encoder.tokenizer import pad
from service.ranking import Reranker, Rerankers

_DOCUMENTS: Final = 20
_TOKENS: Final = 200
"""Of a document."""
_QUERY: Final = "which wing loads do thin plates bear in fast flows"
_WORDS: Final = [
    *("the", "flow", "over", "a", "thin", "wing", "at", "high", "speed", "has", "pressure", "drag", "lift", "and"),
    *("heat", "that", "grow", "with", "its", "angle"),
]


def run(report: Report) -> None:
    """Measure, and fill the report."""
    turns = report.size(20, 3)
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name:
        folder = checkpoint(Path(name) / "model")
        rerankers = Rerankers(_config(folder))
        try:
            rerankers.encoders.warm_up()
            rows = measured(rerankers.get(), turns)
            backend = rerankers.get().encoder.runtime.backend
        finally:
            rerankers.close()
    report.say(
        f"A query and {_DOCUMENTS} documents of {_TOKENS} tokens, on {backend} in fp32; milliseconds, medians of "
        f"{turns} turns, in which each row has its own one after the other."
    )
    report.table("", rows, lambda value: f"{value:.1f}")
    ours, bare = rows["Reranker.score"], rows["the bare pass"]
    ratios = {head: ours[head] / bare[head] for head in ours}
    report.note([f"{head}: {ratio:.2f} times the bare pass." for head, ratio in ratios.items()])
    report.keep(rows=rows, ratios=ratios)


def checkpoint(folder: Path) -> Path:
    """Save a cross-encoder with random weights."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertForSequenceClassification(BertConfig(**sizes | {"num_labels": 1})).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_folder("bundled/all-MiniLM-L6-v2", None)).save_pretrained(folder)
    return folder


def measured(reranker: Reranker, turns: int) -> dict[str, dict[str, float]]:
    """Return medians of wall-clock and processor time in milliseconds, of the reranker and of the bare pass."""
    draw = random.Random(0)
    documents = [" ".join(draw.choices(_WORDS, k=_TOKENS)) for _ in range(_DOCUMENTS)]
    pairs = PairTokenizer(reranker.encoder.tokenizer, reranker.recipe.max_tokens)
    rows = [text.ids for text in pairs.encode([(_QUERY, text) for text in documents])]
    ids, mask = pad(rows, reranker.encoder.tokenizer.pad_id)
    runtime = reranker.encoder.runtime
    runtime.prepare_thread()
    ways: dict[str, Callable[[], Any]] = {
        "Reranker.score": lambda: asyncio.run(reranker.score(_QUERY, documents)),
        "the bare pass": lambda: runtime.states(ids, mask, wide=True),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(turns + 2):
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            way()
            if turn >= 2:  # the first ones allocate
                spent[name].append((time.perf_counter() - began, time.process_time() - used))
    return {
        name: {"wall": 1e3 * median(wall for wall, _ in each), "processor": 1e3 * median(cpu for _, cpu in each)}
        for name, each in spent.items()
    }


def _config(folder: Path) -> Any:
    values = {
        "models": {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}},
        "rerankers": {"default": {"encoder": str(folder), "max_tokens": 512}},
        "runtime": {"precision": "fp32"},
    }
    return make_config(values, "the benchmark", env={})

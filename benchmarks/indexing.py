"""Indexing Cranfield through the service against `SentenceTransformer.encode` of the same texts, interleaved.

    python -m benchmarks.indexing

The service does more: its documents are durable and searchable when the clock stops.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx
from transformers import AutoTokenizer

from benchmarks import datasets
from benchmarks.limit import gigaflop_of, gigaflops
from benchmarks.loop import Loop, bundled
from benchmarks.service import ROOT, machine
from tests.servers import Server

ROUNDS = 3
BATCH = 64
IN_FLIGHT = 2


async def index(url: str, collection: str, documents: list[dict[str, str]]) -> float:
    """Documents a second into a new collection, as `millpond index` sends them."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        (await client.put(f"/collections/{collection}")).raise_for_status()
        batches = iter([documents[start : start + BATCH] for start in range(0, len(documents), BATCH)])

        async def one() -> None:
            for batch in batches:
                body = {"documents": batch, "truncate": True}
                (await client.post(f"/collections/{collection}/documents", json=body)).raise_for_status()

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
        rate = len(documents) / (time.perf_counter() - start)
        (await client.delete(f"/collections/{collection}")).raise_for_status()
        return rate


def main() -> None:
    documents = [{"id": key, "text": text} for key, text in datasets.cranfield().documents.items() if text]
    texts = [document["text"] for document in documents]
    print(machine())
    served, library = "millpond: embedded, durable, searchable", "SentenceTransformer.encode, defaults"
    results: dict[str, list[float]] = {library: [], served: []}
    tokenizer = AutoTokenizer.from_pretrained(bundled())
    work = gigaflop_of([len(ids) for ids in tokenizer(texts, truncation=True, max_length=256)["input_ids"]])
    limits: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(Server(ROOT / "configs/mean.yaml", Path(folder) / "store"))
        loop = stack.enter_context(Loop("benchmarks.library", texts=texts))
        for number in range(ROUNDS):
            limits.append(gigaflops())
            results[library].append(loop.round())
            results[served].append(asyncio.run(index(server.url, f"round-{number}", documents)))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    base = median(results[library])
    print(f"\n| {len(texts)} Cranfield documents, fp32 | documents/s (median of {ROUNDS}) | ratio |\n|---|---|---|")
    for name, rates in results.items():
        print(f"| {name} | {median(rates):.1f} | {median(rates) / base:.2f} |")
    limit = len(texts) * median(limits) / work
    print(f"| limit of fp32 matrix products here, {median(limits):.0f} GFLOP/s | {limit:.1f} | {limit / base:.2f} |")


if __name__ == "__main__":
    main()

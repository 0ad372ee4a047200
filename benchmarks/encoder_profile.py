"""Where a forward pass's time goes, by kind of operation, and how near its matrix products are to this CPU's limit.

One stream on one core, over all-MiniLM-L6-v2 as OpenVINO converts it. This says what the encoder allows; how much of
that arrives over HTTP is what `throughput` measures.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from benchmarks.ceiling import compiled
from benchmarks.encoder import Batch, Ids, batches, gigaflop_of, gigaflops, token_ids
from benchmarks.machine import has_bf16
from benchmarks.report import Report, progress
from benchmarks.texts import cranfield, sentences, sts

SHOWN: Final = 7
KINDS: Final[Mapping[str, str]] = {
    "ScaledDotProductAttention": "attention",
    "FullyConnected": "matrix products",
    "MatMul": "matrix products",
    "MVN": "layer norm",
    "Subgraph": "GELU, sums and the like, fused",
}


def run(report: Report) -> None:
    """Measure, and fill the report."""
    kinds = {
        "STS-B sentences": token_ids(sentences(sts())[: report.size(512, 64)]),
        "Cranfield abstracts": token_ids(list(cranfield().documents.values())[: report.size(48, 8)]),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        request = compiled(precision, NUM_STREAMS=1, INFERENCE_NUM_THREADS=1, PERF_COUNT=True).create_infer_request()
        for kind, ids in kinds.items():
            progress(f"{precision}: {kind}")
            report.say(f"## OpenVINO, {precision}: {kind}")
            measure(report, request, ids)
    torch.set_num_threads(threads)


def profile(request: Any, batches: Sequence[Batch]) -> Mapping[str, float]:
    """Run batches, and give the seconds that each kind of node took by OpenVINO's own counters."""
    spent: dict[str, float] = defaultdict(float)
    for _, ids, mask in batches:
        request.infer([ids, mask.astype(np.int64)])
        for node in request.profiling_info:
            spent[KINDS.get(node.node_type, node.node_type)] += node.real_time.total_seconds()
    return spent


def measure(report: Report, request: Any, texts: Sequence[Ids]) -> None:
    """Add a table of the kinds of operation, and the rate of the matrix products."""
    padded, gigaflop = batches(texts), gigaflop_of(texts)
    profile(request, padded)  # shapes that are new are set up first
    limit = gigaflops()
    began = time.perf_counter()
    kinds = profile(request, padded)
    seconds = time.perf_counter() - began
    total = sum(kinds.values())
    most = sorted(kinds.items(), key=lambda item: -item[1])[:SHOWN]
    table = {kind: {"ms": f"{each * 1e3:.0f}", "share": f"{each / total:.0%}"} for kind, each in most}
    report.table("operation", table)
    report.say(
        f"{gigaflop:.1f} billion operations in {seconds:.2f} s; in the matrix products alone "
        f"{gigaflop / kinds['matrix products']:.0f} GFLOP/s, where one core's fp32 products of these shapes reach {limit:.0f}."
    )

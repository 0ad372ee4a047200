"""Where a forward pass's time goes, by kind of operation, and how near its matrix products are to this CPU's limit.

One stream on one core, over all-MiniLM-L6-v2, as the service cuts batches. This says what the encoder allows; how
much of that arrives over HTTP is what `throughput` measures.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import openvino
import torch

from benchmarks.encoder import MINILM, Batch, Ids, batches, gigaflop_of, gigaflops, token_ids
from benchmarks.report import Report, progress
from benchmarks.texts import cranfield, sentences, sts
from service.checkpoint import read_checkpoint
from service.encoder.loading import load_module
from service.encoder.runtimes.openvino import convert

SHOWN: Final = 7
KINDS: Final[Mapping[str, str]] = {
    "ScaledDotProductAttention": "attention",
    "FullyConnected": "matrix products",
    "MatMul": "matrix products",
    "MVN": "layer norm",
    "Subgraph": "GELU, sums and the like, fused",
}

Profile = Callable[[Sequence[Batch]], Mapping[str, float]]
"""Runs batches and gives the seconds that each operation took."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    kinds = {
        "STS-B sentences": token_ids(sentences(sts())[: report.size(512, 64)]),
        "Cranfield abstracts": token_ids(list(cranfield().documents.values())[: report.size(48, 8)]),
    }
    profile = openvino_fp32()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, ids in kinds.items():
        progress(f"OpenVINO, fp32: {kind}")
        report.say(f"## OpenVINO, fp32: {kind}")
        measure(report, profile, ids)
    torch.set_num_threads(threads)


def openvino_fp32() -> Profile:
    """Use OpenVINO's own counters."""
    graph = convert(load_module(read_checkpoint(MINILM), torch.float32))
    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def profile(batches: Sequence[Batch]) -> Mapping[str, float]:
        spent: dict[str, float] = defaultdict(float)
        for _, ids, mask in batches:
            request.infer([ids, mask.astype(np.int64)])
            for node in request.profiling_info:
                spent[node.node_type] += node.real_time.total_seconds()
        return spent

    return profile


def measure(report: Report, profile: Profile, texts: Sequence[Ids]) -> None:
    """Add a table of the kinds of operation, and the rate of the matrix products."""
    padded, gigaflop = batches(texts), gigaflop_of(texts)
    profile(padded)  # shapes that are new are set up first
    limit = gigaflops()
    began = time.perf_counter()
    spent = profile(padded)
    seconds = time.perf_counter() - began
    kinds: dict[str, float] = defaultdict(float)
    for operation, each in spent.items():
        kinds[KINDS.get(operation, operation)] += each
    total = sum(kinds.values())
    products = sum(each for kind, each in kinds.items() if kind.startswith("matrix products"))
    most = sorted(kinds.items(), key=lambda item: -item[1])[:SHOWN]
    table = {kind: {"ms": f"{each * 1e3:.0f}", "share": f"{each / total:.0%}"} for kind, each in most}
    report.table("operation", table)
    report.say(
        f"{gigaflop:.1f} billion operations in {seconds:.2f} s; in the matrix products alone "
        f"{gigaflop / products:.0f} GFLOP/s, where one core's fp32 products of these shapes reach {limit:.0f}."
    )

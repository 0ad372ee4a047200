"""Where a forward pass's time goes, by kind of operation, and how near its matrix products are to this CPU's limit.

    python -m benchmarks.encoder_profile

One stream on one core, over all-MiniLM-L6-v2, as the service cuts batches. This says what the encoder allows; how
much of that arrives over HTTP is what `benchmarks.throughput` measures.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks import datasets
from benchmarks.bare import MAX_TOKENS, Batch, batches_of
from benchmarks.limit import gigaflop_of, gigaflops
from benchmarks.loop import bundled
from benchmarks.machine import machine

PAGE: Final = Path(__file__).with_name("encoder-profile.md")
SHOWN: Final = 7
KINDS: Final[Mapping[str, str]] = {
    "quantized::linear_with_input_q_dq_qweight_dq_output_fp32": "matrix products in int8, and to int8 and back",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "ScaledDotProductAttention": "attention",
    "FullyConnected": "matrix products",
    "MatMul": "matrix products",
    "aten::native_layer_norm": "layer norm",
    "MVN": "layer norm",
    "Subgraph": "GELU, sums and the like, fused",
    "aten::gelu": "GELU",
    "aten::mul": "scaling of inputs",
    "aten::add": "sums",
}


def main() -> None:
    texts = {
        "STS-B sentences": datasets.sts_sentences()[:512],
        "Cranfield abstracts": [text for text in datasets.cranfield().documents.values() if text][:48],
    }
    parts = ["# Where a forward pass goes", f"{machine()}.", "```\npython -m benchmarks.encoder_profile\n```"]
    ids = {kind: _tokenize(some) for kind, some in texts.items()}
    for name, profile in (("OpenVINO, fp32", openvino_fp32), ("PyTorch and FBGEMM, int8", torch_int8)):
        measure = profile()
        for kind, some in ids.items():
            print(name, kind, file=sys.stderr)
            parts += [f"## {name}: {kind}", _report(some, measure)]
    page = "\n\n".join(parts) + "\n"
    print(page)
    PAGE.write_text(page)


Measure = Callable[[list[Batch]], Counter[str]]


def openvino_fp32() -> Measure:
    """OpenVINO's own counters."""
    import openvino

    from service.checkpoint.checkpoint import read_checkpoint
    from service.encoder.loading import load_module
    from service.encoder.runtimes.openvino import convert

    graph = convert(load_module(read_checkpoint(bundled()), torch.float32))
    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def measure(batches: list[Batch]) -> Counter[str]:
        spent: Counter[str] = Counter()
        for ids, mask in batches:
            request.infer([ids, mask.astype(np.int64)])
            for node in request.profiling_info:
                spent[node.node_type] += node.real_time.total_seconds()
        return spent

    return measure


def torch_int8() -> Measure:
    """PyTorch's profiler over the runtime that the service uses where a CPU has no instructions for int8."""
    from service.config import Config
    from service.embedding.models import Models

    config = {"models": {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}, "runtime": {"precision": "int8"}}
    runtime = Models(Config.model_validate(config)).get().encoder.runtime

    def measure(batches: list[Batch]) -> Counter[str]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for ids, mask in batches:
                runtime.states(ids, mask)
        return Counter({event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()})

    return measure


def _tokenize(texts: list[str]) -> list[Sequence[int]]:
    from service.checkpoint.checkpoint import read_checkpoint
    from service.encoder.tokenizer import Tokenizer, load_tokenizer

    tokenizer = Tokenizer(load_tokenizer(read_checkpoint(bundled()), trust_remote_code=False))
    return [tokenizer.truncate(text, MAX_TOKENS).ids.tolist() for text in tokenizer.encode(texts)]


def _report(ids: list[Sequence[int]], measure: Measure) -> str:
    batches, gigaflop = batches_of(ids), gigaflop_of([len(each) for each in ids])
    measure(batches)  # shapes that are new are set up first
    torch.set_num_threads(1)
    limit = gigaflops()
    began = time.perf_counter()
    spent = measure(batches)
    seconds = time.perf_counter() - began
    kinds: Counter[str] = Counter()
    for name, each in spent.items():
        kinds[KINDS.get(name, name)] += each
    total = sum(kinds.values())
    products = sum(each for kind, each in kinds.items() if kind.startswith("matrix products"))
    lines = ["| operation | ms | share |", "|---|---:|---:|"]
    lines += [f"| {kind} | {each * 1e3:.0f} | {each / total:.0%} |" for kind, each in kinds.most_common(SHOWN)]
    return "\n".join(lines) + (
        f"\n\n{gigaflop:.1f} billion operations in {seconds:.2f} s; in the matrix products alone "
        f"{gigaflop / products:.0f} GFLOP/s, where one core's fp32 products of these shapes reach {limit:.0f}."
    )


if __name__ == "__main__":
    main()

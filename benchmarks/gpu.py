"""A GPU: are the vectors the same, what does it give over HTTP, and does its memory stay level?

Needs a CUDA build of PyTorch. sentence-transformers encodes the same texts on the same GPU, without a server.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from itertools import islice
from statistics import median
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.encoder import MAX_TOKENS, minilm
from benchmarks.load import Client, percentiles
from benchmarks.machine import usage_of
from benchmarks.millpond import Millpond, millponds_in
from benchmarks.report import Report, nested, number, progress, spread
from benchmarks.servers import Measured, by_round, field_of
from benchmarks.soak import EVERY, SETTLED, Soak, fill, requests
from benchmarks.texts import Vectors, spearman, sts, unit
from benchmarks.texts import sentences as sentences_of
from benchmarks.throughput import KINDS, SOURCES, Row
from tests.support.servers import ROOT

PRECISIONS: Final = ("fp32", "bf16", "fp16")
TOKENS: Final = (1024, 16384)
"""Most tokens of a pass: what the config has by default, and what fills a GPU better."""
SAMPLES: Final = {"STS-B": 4096, "Cranfield": 1024}
"""How many texts sentence-transformers encodes."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    seconds, soaked = report.size(8, 2), report.size(30, 20)
    texts = {name: list(islice(source(), report.size(SAMPLES[name], 64))) for name, source in SOURCES.items()}
    servers = [
        Millpond(
            f"Millpond {precision}, {tokens:,} tokens a pass",
            max_batch_tokens=tokens,
            device="cuda",
            precision=precision,
        )
        for precision in PRECISIONS
        for tokens in (TOKENS if precision == "bf16" else TOKENS[1:])
    ]
    with field_of(servers) as field, Client() as client:
        contestants: dict[tuple[str, str], Any] = {}
        for server in field.servers:
            progress(f"warming {server.name} up")
            for kind in KINDS:
                row = Row(server, kind)
                row.warm_up(client, 2)
                contestants[server.name, kind.name] = partial(measure, client, row, seconds)
        for precision in PRECISIONS[:2]:
            contestants[f"sentence-transformers {precision}", ""] = partial(encoding, precision, texts)
        found: dict[str, dict[str, list[Any]]] = nested(report.interleave(contestants))
        bare = {one: by.pop("") for one, by in found.items() if "" in by}
        found = {one: by for one, by in found.items() if by}
        show(report, found)
        report.say("sentence-transformers, `encode` of all texts at once, texts a second by texts a batch:")
        encoded = {one: {name: spread([each[name] for each in of]) for name in of[0]} for one, of in bare.items()}
        report.table("encode", encoded)
        reference = vectors_by("fp32", "cpu", [*texts["STS-B"][:1024], *texts["Cranfield"][:128]])
        pairs = sts(report.size(10_000, 50))
        parity = {}
        for server in millponds_in(field):
            scored = spearman(server.vectors(sentences_of(pairs)), pairs)
            parity[server.name] = agreement(server, texts, reference) | {"STS-B": number(scored)}
        report.say(
            "Vectors against those of sentence-transformers on the CPU in fp32; STS-B is Spearman's correlation:"
        )
        report.table("vectors", parity)
        soaks = {server.name: soak(server, soaked) for server in millponds_in(field)}
        report.say(f"{soaked} s of 32 clients in random shapes, memory in MB, early being after a fifth of the time:")
        report.table("memory", soaks)
        report.servers(field)
    report.keep(encode=bare, parity=parity, memory=soaks)


def show(report: Report, found: dict[str, dict[str, list[Measured]]]) -> None:
    """Fill the report with what the servers did."""
    rates, cpu = by_round(found, lambda each: each.outcome.rate), by_round(found, lambda each: each.cpu_ms)
    report.say(
        f"On {gpu()}. A load is *clients x texts a request*, fresh texts cut to {MAX_TOKENS} tokens; texts a second, "
        f"medians of {report.rounds} (least-most)."
    )
    report.table("texts/s", {one: {kind: spread(of) for kind, of in by.items()} for one, by in rates.items()})
    report.say("The server's milliseconds of processor time a text:")
    report.table("CPU", {one: {kind: number(median(of)) for kind, of in by.items()} for one, by in cpu.items()})
    report.say("Latency of a single client's sentence, milliseconds:")
    waits = {one: percentiles([each.outcome for each in by[KINDS[-1].name]]) for one, by in found.items()}
    report.table("latency", {one: {p: number(median(of)) for p, of in by.items()} for one, by in waits.items()})
    report.keep(rates=rates, cpu_ms=cpu)


def measure(client: Client, row: Row, seconds: float) -> Measured:
    """Measure one load of a server."""
    return row.server.measure(client, row.load(seconds, repeated=True))


def agreement(server: Millpond, texts: dict[str, list[str]], reference: Vectors) -> dict[str, str]:
    """Compare a server's vectors with others, of the first texts of both data sets."""
    found = server.vectors([*texts["STS-B"][:1024], *texts["Cranfield"][:128]])
    cosines = (unit(found) * unit(reference)).sum(axis=1)
    return {"least cosine": f"{cosines.min():.6f}", "greatest difference": f"{np.abs(found - reference).max():.1e}"}


def soak(server: Millpond, seconds: float) -> dict[str, str]:
    """Send random shapes; gives the cells of a table."""
    found, early = Soak(), gpu_mb()
    with usage_of(server.running.process.pid) as found.usage:
        uvloop.run(fill(found, server, requests(server, 64, 250), seconds))
    row = found.row(max(1, round(SETTLED * seconds / EVERY)))
    return {head: row[head] for head in ("early", "at the end", "at most", "p50", "p99", "longest", "requests")} | {
        "all of the GPU's, before": number(early),
        "and after": number(gpu_mb()),
    }


def encoding(precision: str, texts: dict[str, list[str]]) -> dict[str, float]:
    """Time sentence-transformers on the GPU, in a process of its own: texts a second, by data and texts a batch."""
    return dict(json.loads(_apart("encode", precision, "cuda", texts)))


def vectors_by(precision: str, device: str, texts: Sequence[str]) -> Vectors:
    """Give sentence-transformers' vectors, (texts, dim)."""
    return np.array(json.loads(_apart("vectors", precision, device, texts)), np.float32)


def gpu() -> str:
    """Name the GPU and its driver."""
    return _asked("name,driver_version")


def gpu_mb() -> float:
    """Give the memory in use on the GPU, in MB (2^20 bytes)."""
    return float(_asked("memory.used").split()[0])


def _asked(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _apart(*words: Any) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu"]
    run = subprocess.run(command, input=json.dumps(words), stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return run.stdout


def main(what: str, precision: str, device: str, texts: Any) -> Any:
    """Encode with sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = SentenceTransformer(minilm(), device=device, model_kwargs={"dtype": kind})
    model.max_seq_length = MAX_TOKENS
    if what == "vectors":
        return model.encode(texts, normalize_embeddings=True).tolist()
    found = {}
    for name, some in texts.items():
        for size in (32, 256):
            model.encode(some[:512], batch_size=size)
            began = time.perf_counter()
            model.encode(some, batch_size=size, convert_to_numpy=True)
            found[f"{name}, {size}"] = len(some) / (time.perf_counter() - began)
    return found


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        answer = main(*json.load(sys.stdin))
    print(json.dumps(answer))

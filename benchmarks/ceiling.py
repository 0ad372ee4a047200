"""The most that a server could give on this machine: the encoder as it comes, the tokenizer, and a little for HTTP.

The encoder is the unmodified graph that `openvino.convert_model` makes of the checkpoint, a stream a core, over texts
sorted by length in batches of 1,024 tokens; HTTP counts as 30 microseconds a request, what a server written in C
takes. Nothing of the service is in it, so that it stays where it is while the service changes.

    python -m benchmarks.ceiling bf16      # lists of texts by name, as JSON on stdin; their costs on stdout
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.encoder import MAX_TOKENS, batches, minilm, token_ids
from benchmarks.load import Outcome
from benchmarks.machine import Usage
from benchmarks.servers import Measured
from service.cores import available_cores
from service.process import prepare_process
from tests.support.servers import ROOT

PRECISIONS: Final = {"fp32": "f32", "bf16": "bf16"}
"""Those of the unmodified graph, as OpenVINO calls them."""
HTTP_MS: Final = 0.03
"""A request's, on one core."""


class Cost(NamedTuple):
    """Milliseconds a text: of the encoder, on the clock and of processor time, and of the tokenizer, on one core."""

    encoder: float
    encoder_cpu: float
    tokenizer: float

    def load(self, each: int, client: Outcome) -> Measured:
        """Give what a load of 1,000 texts, so many a request, would show with a client as busy as this one was."""
        beside = self.tokenizer + HTTP_MS / each
        shared = beside + 1000 * client.cpu / client.texts  # in one thread at a time, while the others encode
        seconds = self.encoder + shared / available_cores()
        return Measured(Outcome(seconds, 1000), Usage(cpu=self.encoder_cpu + beside))


def costs(precision: str, texts: Mapping[str, Sequence[str]]) -> dict[str, Cost]:
    """Measure what texts cost, by name, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ceiling", precision]
    quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    run = partial(subprocess.run, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=quiet)
    return {name: Cost(*cost) for name, cost in json.loads(run(command, input=json.dumps(texts)).stdout).items()}


def compiled(precision: str) -> Any:
    """Convert the checkpoint as it is and compile it: ids and mask (batch, time) -> states (batch, time, dim)."""
    import openvino
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(minilm(), add_pooling_layer=False).eval()
    example = torch.ones(2, 7, dtype=torch.long)
    graph = openvino.convert_model(model, example_input={"input_ids": example, "attention_mask": example})
    hint = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    streams = {"NUM_STREAMS": available_cores(), "INFERENCE_NUM_THREADS": available_cores()}
    return openvino.Core().compile_model(graph, "CPU", hint | streams)


def encoder_ms(model: Any, texts: Sequence[str]) -> tuple[float, float]:
    """Time a compiled graph over texts, again and again for three seconds: on the clock, and processor time.

    The first time does not count.
    """
    import openvino

    padded = [(ids, mask.astype(np.int64)) for _, ids, mask in batches(token_ids(texts))]
    queue = openvino.AsyncInferQueue(model, available_cores())

    def run() -> None:
        for batch in padded:
            queue.start_async(batch, share_inputs=True)
        queue.wait_all()

    run()
    rounds, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < 3:
        run()
        rounds += 1
    each = 1000 / (rounds * len(texts))
    return each * (time.perf_counter() - start), each * (time.process_time() - cpu)


def tokenizer_ms(texts: Sequence[str]) -> float:
    """Time the library `tokenizers`; the first time does not count."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(minilm()) / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    for _ in range(2):
        start = time.process_time()  # of all its threads
        tokenizer.encode_batch_fast(texts)
    return 1000 * (time.process_time() - start) / len(texts)


def main(precision: str) -> None:
    """Measure the texts on stdin."""
    prepare_process()
    with redirect_stdout(sys.stderr):
        model, given = compiled(precision), json.load(sys.stdin)
        found = {name: Cost(*encoder_ms(model, texts), tokenizer_ms(texts)) for name, texts in given.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

"""The most that a runtime gives on this machine: a loop over token ids, sorted by length and batched by tokens.

    python -m benchmarks.bare torch 2           # transformers on PyTorch, as two streams
    python -m benchmarks.bare service int8      # what the service runs at int8, with as many streams as it takes

Texts are tokenized and batched before the clock starts; `benchmarks.loop` times how it infers, pools and normalises.
The second form is the service's own runtime without queue, event loop and HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel

from benchmarks.encoder import MINILM, Batch, batches, load, minilm, token_ids
from benchmarks.loop import time_plan
from service.process import prepare_process

States = Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor]
"""From token ids and mask, both (batch, time), to states (batch, time, dim)."""


def transformers(streams: int) -> None:
    """Time a transformers model as it comes: one stream over all cores, or several of one core each."""
    model: Any = AutoModel.from_pretrained(minilm()).eval()

    def states(ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        attention_mask = torch.from_numpy(mask.astype(np.int64))
        found: Tensor = model(input_ids=torch.from_numpy(ids), attention_mask=attention_mask).last_hidden_state
        return found

    def prepare_thread() -> None:
        if streams > 1:
            torch.set_num_threads(1)

    time_streams(streams, prepare_thread, states)


def service(precision: str) -> None:
    """Time the runtime that the service chooses for a precision."""
    _, runtime = load(MINILM, precision=precision)
    time_streams(runtime.streams, runtime.prepare_thread, runtime.states)


def time_streams(streams: int, prepare_thread: Callable[[], None], states: States) -> None:
    """Time the mean-pooled unit vectors of texts, with a number of batches computed at once."""
    threads = ThreadPoolExecutor(streams, "stream", prepare_thread)

    def embed(batch: Batch) -> NDArray[np.float32]:
        counted = torch.from_numpy(batch.mask).unsqueeze(2)
        with torch.inference_mode():
            sums = (states(batch.ids, batch.mask) * counted).sum(1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(sums / counted.sum(1), dim=1).numpy()
        return vectors

    def plan(texts: list[str]) -> Callable[[], object]:
        padded = batches(token_ids(texts))
        return lambda: list(threads.map(embed, padded))

    time_plan(plan)


if __name__ == "__main__":
    prepare_process()
    kind, value = sys.argv[1:]
    if kind == "torch":
        transformers(int(value))
    else:
        service(value)

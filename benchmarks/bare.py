"""The most that a runtime gives on this machine: a loop over token ids, sorted by length and batched by tokens.

    python -m benchmarks.bare torch 2           # transformers on PyTorch, as two streams
    python -m benchmarks.bare service int8      # what the service runs at int8, as many streams as it takes

Texts are tokenized and batched before the clock starts; what is timed infers, pools and normalises. The second form
is the service's own runtime object without queue, event loop and HTTP. `benchmarks.loop` drives it.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.loop import Plan, bundled, serve_rounds

BATCH_TOKENS: Final = 1024
MAX_TOKENS: Final = 256

Batch = tuple[NDArray[np.int64], NDArray[np.bool_]]


class Bare(Protocol):
    """An encoder without anything around it."""

    streams: int

    def tokenize(self, texts: list[str]) -> list[Sequence[int]]:
        """Token ids of each text, cut to `MAX_TOKENS`."""

    def prepare_thread(self) -> None:
        """Called by each thread before its first `states`."""

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        """Token ids and mask, both (batch, time) -> states (batch, time, dim)."""


class Transformers:
    """A transformers model as it comes: one stream over all cores, or one a core."""

    def __init__(self, streams: int) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.streams = streams
        self._tokenizer: Any = AutoTokenizer.from_pretrained(bundled())
        self._model: Any = AutoModel.from_pretrained(bundled()).eval()

    def tokenize(self, texts: list[str]) -> list[Sequence[int]]:
        """As the checkpoint says."""
        ids: list[Sequence[int]] = self._tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return ids

    def prepare_thread(self) -> None:
        """One core for each of several streams."""
        if self.streams > 1:
            torch.set_num_threads(1)

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        """One forward pass."""
        output = self._model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64)))
        states: Tensor = output.last_hidden_state
        return states


class OfTheService:
    """The runtime that the service loads for a precision, with as many streams as it has."""

    def __init__(self, precision: str) -> None:
        from service.config import Config
        from service.embedding.models import Models

        config = Config.model_validate(
            {"models": {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}, "runtime": {"precision": precision}}
        )
        encoder = Models(config).get().encoder
        self._tokenizer, self._runtime = encoder.tokenizer, encoder.runtime
        self.streams = self._runtime.streams
        self.prepare_thread, self.states = self._runtime.prepare_thread, self._runtime.states

    def tokenize(self, texts: list[str]) -> list[Sequence[int]]:
        """As the service does."""
        found = self._tokenizer.encode(texts)
        return [self._tokenizer.truncate(text, MAX_TOKENS).ids.tolist() for text in found]


def batches_of(ids: list[Sequence[int]], tokens: int = BATCH_TOKENS) -> list[Batch]:
    """Padded batches, the longest texts first; none has more than so many tokens, or it is one text."""
    ids = sorted(ids, key=len, reverse=True)
    batches = []
    while ids:
        width = len(ids[0])
        some, ids = ids[: max(1, tokens // width)], ids[max(1, tokens // width) :]
        padded = np.zeros((len(some), width), dtype=np.int64)
        mask = np.zeros(padded.shape, dtype=np.bool_)
        for place, row in enumerate(some):
            padded[place, : len(row)] = row
            mask[place, : len(row)] = True
        batches.append((padded, mask))
    return batches


def over(bare: Bare) -> Plan:
    """What `serve_rounds` asks for."""
    streams = ThreadPoolExecutor(bare.streams, "stream", bare.prepare_thread)

    def plan(texts: list[str]) -> Callable[[], None]:
        batches = batches_of(bare.tokenize(texts))

        def work(waiting: queue.SimpleQueue[Batch]) -> None:
            with torch.inference_mode():
                while True:
                    try:
                        ids, mask = waiting.get_nowait()
                    except queue.Empty:
                        return
                    counted = torch.from_numpy(mask).unsqueeze(2)
                    states = bare.states(ids, mask)
                    torch.nn.functional.normalize((states * counted).sum(1) / counted.sum(1), dim=1).numpy()

        def run() -> None:
            waiting: queue.SimpleQueue[Batch] = queue.SimpleQueue()
            for batch in batches:
                waiting.put(batch)
            for done in [streams.submit(work, waiting) for _ in range(bare.streams)]:
                done.result()

        run()
        return run

    return plan


if __name__ == "__main__":
    kind, value = sys.argv[1:]
    serve_rounds(over(Transformers(int(value)) if kind == "torch" else OfTheService(value)))

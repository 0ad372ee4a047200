"""Embeds many texts with several poolings at once, and measures the cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.layers import LAST, LayerStates, Stack
from pooling.tasks import Part
from service.arrays import Vectors
from service.embedding.embedder import Embedder
from service.embedding.perturbations import spans_of
from service.embedding.postprocessing import ToVectors, WithoutPrompt
from service.encoder import PostProcess
from service.encoder.tokenizer import pad
from service.evaluation.report import Speed

_PADDING: Final = 16
"""Padding tokens after the longest text."""
_ROUNDS: Final = 3
SPEED_PASSES: Final = 2 * _ROUNDS
"""Passes of `Encoding.speed` over each text."""
_BLOCK: Final = 1024
"""Texts that are tokenized at once."""
BATCH: Final = 128
"""Texts that are queued at a time where the encoder has no other work."""

Advance = Callable[[int], None]


class Encoding:
    """One encoder with several poolings.

    Args:
        model: whose encoder runs, and whose prompts are used.
        poolings: what makes vectors of its states.
        batch_size: texts that are queued at a time.
    """

    def __init__(self, model: Embedder, poolings: Sequence[ToVectors], batch_size: int = BATCH) -> None:
        self._model = model
        self._batch_size = batch_size
        self._poolings = poolings
        self._tokenizer = model.encoder.tokenizer
        self._layers = Stack(tuple(sorted({layer for each in poolings for layer in each.recipe.layers.used})))

    def vectors(self, part: Part, folder: Path, advance: Advance) -> list[Vectors]:
        """Embed texts with each pooling, in one pass of the encoder.

        Returns:
            (texts, dim) for each pooling, memory-mapped from new files in `folder`.

        Raises:
            ServiceError: a text has no token, or a vector is not finite.
        """
        folder.mkdir(parents=True)
        found: list[Vectors] = [
            np.lib.format.open_memmap(folder / f"{number}.npy", "w+", np.float32, (len(part.texts), pooling.dim))
            for number, pooling in enumerate(self._poolings)
        ]
        for text, row in enumerate(self._run(part, self._all_at_once(), advance, self._layers)):
            for vectors, vector in zip(found, row, strict=True):
                vectors[text] = vector
        return found

    def few_vectors(self, part: Part, advance: Advance) -> list[Vectors]:
        """Embed a few texts with each pooling, in memory."""
        rows = self._run(part, self._all_at_once(), advance, self._layers)
        return [np.stack(vectors) for vectors in zip(*rows, strict=True)]

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the token ids of each text as the encoder reads it, truncated and without a prompt."""
        limit = self._model.recipe.max_tokens
        return [self._tokenizer.truncate(text, limit).ids for text in self._tokenizer.encode(texts)]

    def truncated(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than the model takes, so that their ends are not read."""
        blocks = (texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK))
        encoded = (text for block in blocks for text in self._tokenizer.encode(block))
        return sum(text.full_length > self._model.recipe.max_tokens for text in encoded)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the start and end of each token that stands for characters, in order and without overlap."""
        limit = self._model.recipe.max_tokens
        encoded = self._tokenizer.encode(texts, offsets=True)
        return [spans_of(self._tokenizer.truncate(text, limit).offsets) for text in encoded]

    def speed(self, part: Part, advance: Advance) -> tuple[Speed, list[float]]:
        """Time passes of the encoder alone and with every pooling, in turn; the fastest of several rounds count.

        Returns:
            Both times, and the time of each pooling as a share of the encoder's pass alone.
        """
        alone, together, shares = [], [], []
        for _ in range(_ROUNDS):
            alone.append(self._timed(part, _nothing, advance, LAST))
            pooled = self._all_at_once()
            together.append(self._timed(part, pooled, advance, self._layers))
            shares.append(pooled.seconds)
        seconds = np.min(shares, axis=0) / self._model.encoder.runtime.streams
        tokens = sum(map(len, self.ids(part.texts)))
        return Speed(len(part.texts), tokens, min(alone), min(together)), (seconds / min(alone)).tolist()

    def padding(self, part: Part, advance: Advance) -> list[float]:
        """Measure the largest change that padding makes to a component of a unit vector, for each pooling.

        Each text is embedded alone, after its prompt, and in a batch of all that is padded beyond the longest text,
        as far as the model's length allows.
        """
        with ThreadPoolExecutor(1) as thread:  # a runtime changes settings of its thread
            return thread.submit(self._padding, part, advance).result()

    def _padding(self, part: Part, advance: Advance) -> list[float]:
        prompt, limit = self._model.prompt(role=part.role), self._model.recipe.max_tokens
        front = self._tokenizer.prompt_length(prompt) if prompt else 0
        encoded = self._tokenizer.encode(part.texts, prompt=prompt)
        ids = [self._tokenizer.truncate(text, limit, front=front).ids for text in encoded]
        skip = 0 if self._model.recipe.include_prompt else front
        width = min(max(map(len, ids)) + _PADDING, limit)
        padded = self._unit_vectors(*pad(ids, self._tokenizer.pad_id, width), skip)
        alone = []
        for row in ids:
            alone.append(self._unit_vectors(row[None], np.ones((1, len(row)), np.bool_), skip))
            advance(1)
        return [
            max(float(np.abs(rows[text] - single[strategy][0]).max()) for text, single in enumerate(alone))
            for strategy, rows in enumerate(padded)
        ]

    def _unit_vectors(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], skip: int) -> list[Vectors]:
        runtime = self._model.encoder.runtime
        runtime.prepare_thread()
        with torch.inference_mode():
            states = self._layers(runtime.by_layer(ids, mask, self._layers.used))
            rows = WithoutPrompt(self._all_at_once(), skip)(states, torch.from_numpy(mask), torch.from_numpy(ids))
            return [_unit(np.stack(vectors)) for vectors in zip(*rows, strict=True)]

    def _all_at_once(self) -> _AllAtOnce:
        return _AllAtOnce(self._poolings, self._layers)

    def _timed(self, part: Part, post_process: PostProcess, advance: Advance, layers: LayerStates) -> float:
        began = time.perf_counter()
        for _ in self._run(part, post_process, advance, layers):
            pass
        return time.perf_counter() - began

    def _run(self, part: Part, post_process: PostProcess, advance: Advance, layers: LayerStates) -> Iterator[Any]:
        prompt = self._model.prompt(role=part.role)
        recipes = [pooling.recipe for pooling in self._poolings]
        run = partial(self._model.run, prompt=prompt, layers=layers, poolings=recipes, advance=advance)
        return run(part.texts, post_process, batch_size=self._batch_size)


class _AllAtOnce:
    """Converts states of layers side by side to the vectors of every pooling; `seconds` of each are summed."""

    def __init__(self, poolings: Sequence[ToVectors], layers: Stack) -> None:
        self._poolings = poolings
        self._layers = layers
        self._lock = threading.Lock()
        self.seconds = np.zeros(len(poolings))

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[tuple[Vectors, ...]]:
        by_layer = self._layers.split(states)
        found, moments = [], [time.perf_counter()]
        for pooling in self._poolings:
            found.append(pooling(pooling.recipe.layers(by_layer), mask, ids))
            moments.append(time.perf_counter())
        with self._lock:
            self.seconds += np.diff(moments)
        return list(zip(*found, strict=True))


def _nothing(states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[None]:
    return [None] * len(states)


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found

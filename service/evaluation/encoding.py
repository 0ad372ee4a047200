"""Vectors of many texts under several poolings at once, and what that costs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.tasks import Part
from service.arrays import Vectors
from service.embedding import bulk
from service.embedding.embedder import Embedder, Role
from service.encoder import PostProcess
from service.evaluation.report import Speed

_PADDING: Final = 16
"""Tokens of padding behind the longest text."""
_ROUNDS: Final = 3
_BLOCK: Final = 1024
"""Texts that are tokenized at once."""

Advance = Callable[[int], None]


class Encoding:
    """One encoder and several poolings of its states.

    Args:
        model: whose encoder runs, and whose prompts are used.
        embedders: the poolings, over the same encoder.

    """

    def __init__(self, model: Embedder, embedders: Sequence[Embedder]) -> None:
        self._model = model
        self._embedders = embedders
        self._tokenizer = model.encoder.tokenizer

    def vectors(self, part: Part, folder: Path, advance: Advance) -> list[Vectors]:
        """Vectors of each pooling, (texts, dim), from one pass; kept in `folder` and mapped from there.

        Raises:
            ServiceError: a text has no token, or a vector is not finite.

        """
        folder.mkdir(parents=True)
        found: list[Vectors] = [
            np.lib.format.open_memmap(folder / f"{place}.npy", "w+", np.float32, (len(part.texts), embedder.dim))
            for place, embedder in enumerate(self._embedders)
        ]

        def keep(place: int, row: Any) -> None:
            for vectors, vector in zip(found, row, strict=True):
                vectors[place] = vector

        self._pass(part.texts, part.role, _AllAtOnce(self._embedders), keep, advance)
        return found

    def few_vectors(self, part: Part) -> list[Vectors]:
        """The same for texts that are few, in memory."""
        rows: list[Sequence[Vectors]] = []
        self._pass(part.texts, part.role, _AllAtOnce(self._embedders), lambda _, row: rows.append(row))
        return [np.stack(vectors) for vectors in zip(*rows, strict=True)]

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The token ids that the encoder reads of each text, without a prompt."""
        limit = self._model.max_tokens
        return [self._tokenizer.truncate(text, limit).ids for text in self._tokenizer.encode(texts)]

    def cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the model takes, so that their ends are not read."""
        blocks = (texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK))
        encoded = (text for block in blocks for text in self._tokenizer.encode(block))
        return sum(text.full_length > self._model.max_tokens for text in encoded)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Where each token that stands for characters begins and ends, in order and without overlap."""
        limit = self._model.max_tokens
        found = []
        for text in self._tokenizer.encode(texts, offsets=True):
            spans: list[tuple[int, int]] = []
            for offset in self._tokenizer.truncate(text, limit).offsets:
                # Tokens may share a character of several bytes.
                if offset is not None and (not spans or offset[0] >= spans[-1][1]):
                    spans.append(offset)
            found.append(spans)
        return found

    @property
    def speed_passes(self) -> int:
        """How often `speed` reads each text."""
        return 2 * _ROUNDS

    def speed(self, part: Part, advance: Advance) -> tuple[Speed, list[float]]:
        """The encoder's pass alone and with every pooling, in turns, the fastest of some rounds each.

        Returns:
            Both, and for each pooling its time as a share of the encoder's pass alone.

        """
        alone, together, shares = [], [], []
        for _ in range(_ROUNDS):
            alone.append(self._timed(part, _nothing, advance))
            pooled = _AllAtOnce(self._embedders)
            together.append(self._timed(part, pooled, advance))
            shares.append(pooled.seconds)
        seconds = np.min(shares, axis=0) / self._model.encoder.runtime.streams
        tokens = sum(map(len, self.ids(part.texts)))
        return Speed(len(part.texts), tokens, min(alone), min(together)), (seconds / min(alone)).tolist()

    def padding(self, texts: Sequence[str]) -> list[float]:
        """For each pooling, how far padding moves a number of a unit vector: each text alone, then all in one batch.

        The batch is padded beyond the longest text, as far as the model's length allows.
        """
        with ThreadPoolExecutor(1) as own:  # a runtime changes settings of the thread that it runs in
            return own.submit(self._padding, texts).result()

    def _padding(self, texts: Sequence[str]) -> list[float]:
        ids = self.ids(texts)
        width = min(max(map(len, ids)) + _PADDING, self._model.max_tokens)
        batch = np.full((len(ids), width), self._tokenizer.pad_id, dtype=np.int64)
        mask = np.zeros(batch.shape, dtype=np.bool_)
        for place, row in enumerate(ids):
            batch[place, : len(row)], mask[place, : len(row)] = row, True
        padded = self._unit_vectors(batch, mask)
        alone = [self._unit_vectors(row[None], np.ones((1, len(row)), np.bool_)) for row in ids]
        return [
            max(float(np.abs(rows[place] - single[strategy][0]).max()) for place, single in enumerate(alone))
            for strategy, rows in enumerate(padded)
        ]

    def _unit_vectors(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[Vectors]:
        runtime = self._model.encoder.runtime
        runtime.prepare_thread()
        with torch.inference_mode():
            states = runtime.states(ids, mask)
            vectors = zip(*_AllAtOnce(self._embedders)(states, torch.from_numpy(mask)), strict=True)
            return [_unit(np.stack(rows)) for rows in vectors]

    def _timed(self, part: Part, post_process: PostProcess, advance: Advance) -> float:
        began = time.perf_counter()
        self._pass(part.texts, part.role, post_process, lambda *_: None, advance)
        return time.perf_counter() - began

    def _pass(
        self,
        texts: Sequence[str],
        role: Role | None,
        post_process: PostProcess,
        keep: Callable[[int, Any], None],
        advance: Advance = lambda _: None,
    ) -> None:
        async def run() -> None:
            place = 0
            async for row in bulk.results(self._model, texts, post_process, role=role, advance=advance):
                keep(place, row)
                place += 1

        asyncio.run(run())


class _AllAtOnce:
    """States to the vectors of every pooling, and the seconds that each took, of all threads together."""

    def __init__(self, embedders: Sequence[Embedder]) -> None:
        self._post_processes = [embedder.post_process() for embedder in embedders]
        self._lock = threading.Lock()
        self.seconds = np.zeros(len(embedders))

    def __call__(self, states: Tensor, mask: Tensor) -> Sequence[tuple[Vectors, ...]]:
        found, moments = [], [time.perf_counter()]
        for post_process in self._post_processes:
            found.append(post_process(states, mask))
            moments.append(time.perf_counter())
        with self._lock:
            self.seconds += np.diff(moments)
        return list(zip(*found, strict=True))


def _nothing(states: Tensor, mask: Tensor) -> Sequence[None]:
    return [None] * len(states)


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found

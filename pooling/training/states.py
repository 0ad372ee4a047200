"""Token states on disk: written once, memory-mapped, read in batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.masks import from_lengths
from pooling.tasks.task import Indices

STATES_FILE: Final = "states.bin"
OFFSETS_FILE: Final = "offsets.npy"
ABOUT_FILE: Final = "states.json"
POOLED_TOKENS: Final = 8192
"""Tokens, padding included, that are pooled at once where nothing is fitted."""

DType = Literal["float16", "float32"]
Encode = Callable[[Tensor, Tensor], Tensor]
"""From states (batch, time, dim) and mask (batch, time) to vectors (batch, any)."""


class StatesError(ValueError):
    """States cannot be stored as requested; the message says what would be right."""


class Writer:
    """Writes the states of texts to a folder, one text at a time, so that memory stays small.

    Args:
        folder: an existing folder.
        dim: size of a token state.
        dtype: `float16` takes half the space and keeps three decimal digits of each number.
    """

    def __init__(self, folder: Path, dim: int, dtype: DType) -> None:
        self._folder, self._dim, self._dtype = folder, dim, dtype
        self._offsets = [0]
        self._file = (folder / STATES_FILE).open("wb")

    def __enter__(self) -> Self:
        return self

    def add(self, states: NDArray[np.floating]) -> None:
        """Append the states of the next text, (tokens, dim), without those of padding.

        Raises:
            StatesError: a state is not finite, or too large for float16.
        """
        with np.errstate(over="ignore"):
            kept = states.astype(self._dtype, copy=False)
        if not np.isfinite(kept).all():
            if np.isfinite(states).all():
                raise StatesError(
                    f"a token state of {np.abs(states).max():.0f} is more than float16 holds; keep float32"
                )
            raise StatesError("the encoder gave a token state that is not finite; its weights are damaged")
        kept.tofile(self._file)
        self._offsets.append(self._offsets[-1] + len(kept))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            np.save(self._folder / OFFSETS_FILE, np.array(self._offsets, dtype=np.int64))
            about = {"dim": self._dim, "dtype": self._dtype}
            (self._folder / ABOUT_FILE).write_text(json.dumps(about))


class States:
    """The states of many texts, in memory-mapped files.

    `select` returns other views of the same files, so that each task can count its texts from 0.
    """

    def __init__(self, maps: Sequence[NDArray[np.floating]], part: Indices, start: Indices, lengths: Indices) -> None:
        self._maps, self._part, self._start = maps, part, start
        self.lengths = lengths
        """Tokens of each text, without padding."""

    @classmethod
    def open(cls, folders: Sequence[Path]) -> Self:
        """Open several folders that a `Writer` wrote, one after the other."""
        maps: list[NDArray[np.floating]] = []
        parts, starts, lengths = [], [], []
        for number, folder in enumerate(folders):
            about = json.loads((folder / ABOUT_FILE).read_text())
            offsets: Indices = np.load(folder / OFFSETS_FILE)
            shape = (int(offsets[-1]), int(about["dim"]))
            maps.append(np.memmap(folder / STATES_FILE, dtype=about["dtype"], mode="r", shape=shape))
            parts.append(np.full(len(offsets) - 1, number, dtype=np.int64))
            starts.append(offsets[:-1])
            lengths.append(np.diff(offsets))
        return cls(maps, np.concatenate(parts), np.concatenate(starts), np.concatenate(lengths))

    @property
    def dim(self) -> int:
        """Size of a token state."""
        return int(self._maps[0].shape[1])

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, texts: Indices) -> States:
        """Return the states of these texts only, in this order."""
        return States(self._maps, self._part[texts], self._start[texts], self.lengths[texts])

    def batch(self, texts: Indices) -> tuple[Tensor, Tensor]:
        """Return states (texts, longest, dim) in float32, zero-padded, and mask (texts, longest)."""
        lengths = self.lengths[texts]
        tokens = np.zeros((len(texts), int(lengths.max()), self.dim), dtype=np.float32)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            start = self._start[text]
            tokens[row, :length] = self._maps[self._part[text]][start : start + length]
        return torch.from_numpy(tokens), from_lengths(torch.from_numpy(lengths))

    def pooled(self, encode: Encode) -> Tensor:
        """Compute the vector of every text, (texts, any), without gradients, batching texts of similar length."""
        vectors: Tensor | None = None
        with torch.inference_mode():
            for texts in self._batches():
                found = encode(*self.batch(texts))
                if vectors is None:
                    vectors = found.new_empty(len(self), found.shape[1])
                vectors[torch.from_numpy(texts)] = found
        assert vectors is not None  # data has at least one text
        return vectors

    def _batches(self) -> Iterator[Indices]:
        order = np.argsort(-self.lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(1, POOLED_TOKENS // int(self.lengths[order[start]]))
            yield order[start : start + size]
            start += size

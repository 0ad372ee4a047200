"""A cache on disk of the token states of many texts, in shards that later runs reuse."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pooling.layers import LAST, Stack
from pooling.tasks import DataError, Part, Role
from pooling.training import DType, States, Writer
from service.embedding.embedder import Embedder
from service.encoder.artifacts import Artifacts
from service.errors import ConfigError, shortened

_KIND: Final = "states"
_FORMAT: Final = 1
_SHARD: Final = 2048
"""Texts per shard; an interrupted run keeps the shards that are complete."""
_TOKENIZED: Final = 1024
"""Texts that are tokenized at once."""


@dataclass(frozen=True)
class Shard:
    """Texts whose states are stored in one folder, which `key` identifies; `bytes` is their size."""

    part: Part
    key: dict[str, Any]
    bytes: int


@dataclass(frozen=True)
class CachedStates:
    """The states of the texts of some shards; `rows` is the index of each text, by its role and itself."""

    states: States
    rows: dict[tuple[Role | None, str], int]

    def of(self, parts: Sequence[Part]) -> States:
        """Return the states of the texts of some parts, in order."""
        return self.states.select(np.array([self.rows[part.role, text] for part in parts for text in part.texts]))


class StateCache:
    """Stores the token states that an encoder computes for texts.

    Args:
        model: whose encoder, prompts and maximum length apply.
        artifacts: the folder cache to store states in.
        dtype: of the stored states.
        limit: bytes that all states in the cache may take; beyond, the least recently used ones are removed.
        layers: whose states to store, side by side; by default those that the model pools.
    """

    def __init__(
        self, model: Embedder, artifacts: Artifacts, *, dtype: DType, limit: int, layers: Stack | None = None
    ) -> None:
        self._model, self._artifacts, self._dtype, self._limit = model, artifacts, dtype, limit
        self._layers = layers
        self._dim = model.encoder.dim * (1 if layers is None else len(layers.used))

    def plan(self, parts: Sequence[Part]) -> list[Shard]:
        """Cut parts into shards, each text once.

        A shard holds texts of one part only, so that further parts leave the shards of the others unchanged.

        Raises:
            DataError: a text has no token that the model knows.
        """
        seen: set[tuple[Role | None, str]] = set()
        shards: list[Shard] = []
        for part in parts:
            new = [text for text in dict.fromkeys(part.texts) if (part.role, text) not in seen]
            seen.update((part.role, text) for text in new)
            shards += (self._shard(Part(texts, part.role)) for texts in _batches(new, _SHARD))
        return shards

    def missing(self, shards: Sequence[Shard]) -> int:
        """Return the number of bytes that are not in the cache yet."""
        return sum(shard.bytes for shard in shards if not self._folder(shard).exists())

    def make_room(self, shards: Sequence[Shard]) -> None:
        """Remove the least recently used states of other runs, as far as the shards need their space.

        Raises:
            ConfigError: the limit or the disk is too small.
        """
        total, missing = sum(shard.bytes for shard in shards), self.missing(shards)
        remedy = "Use fewer texts or a smaller --max-tokens"
        if total > self._limit:
            raise ConfigError(
                f"the token states need {size(total)}, and --cache-limit is {size(self._limit)}. {remedy}, or raise "
                "the limit."
            )
        own = {self._folder(shard) for shard in shards}
        others = [folder for folder in self._artifacts.root.glob(f"{_KIND}-*") if folder not in own]
        room = self._limit - total
        for folder in sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True):
            room -= sum(file.stat().st_size for file in folder.iterdir())
            if room < 0:
                shutil.rmtree(folder)
        free = shutil.disk_usage(_existing(self._artifacts.root)).free
        if missing > free:
            raise ConfigError(
                f"the token states need {size(missing)} more in {self._artifacts.root}, where {size(free)} are free. "
                f"{remedy}, or set --cache to a folder with room."
            )

    def states(self, shards: Sequence[Shard], advance: Callable[[int], None] = lambda _: None) -> CachedStates:
        """Return the states of all shards, after encoding those that are missing.

        An interrupted call keeps the shards that are complete. `advance` is called with the number of further texts
        that are done.
        """
        folders = [self._stored(shard, advance) for shard in shards]
        texts = [(shard.part.role, text) for shard in shards for text in shard.part.texts]
        return CachedStates(States.open(folders), {text: row for row, text in enumerate(texts)})

    def _stored(self, shard: Shard, advance: Callable[[int], None]) -> Path:
        part, done = shard.part, 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            advance(count)

        def build(folder: Path) -> None:
            prompt = self._model.prompt(role=part.role)
            with Writer(folder, self._dim, self._dtype) as writer:
                run = partial(self._model.run, prompt=prompt, layers=self._layers, advance=more)
                for states in run(part.texts, _unpadded):
                    writer.add(states)

        folder = self._artifacts.get(_KIND, shard.key, build)
        now = time.time_ns()  # finer than the clock that the file system stamps with
        os.utime(folder, ns=(now, now))
        advance(len(part.texts) - done)
        return folder

    def _shard(self, part: Part) -> Shard:
        prompt = self._model.prompt(role=part.role)
        tokenizer = self._model.encoder.tokenizer
        least = tokenizer.framed_length(prompt) if prompt else tokenizer.num_special
        tokens = 0
        for some in _batches(part.texts, _TOKENIZED):
            for text, tokenized in zip(some, tokenizer.encode(some, prompt=prompt), strict=True):
                if len(tokenized.ids) <= least and tokenizer.is_blank(text):
                    raise DataError(f"the text {shortened(text)} has no token that this model knows; leave it out.")
                tokens += min(len(tokenized.ids), self._model.recipe.max_tokens)
        key = {
            "format": _FORMAT,
            "encoder": self._model.encoder.fingerprint,
            "precision": self._model.encoder.runtime.precision,
            "tokenizer": tokenizer.fingerprint(),
            "max_tokens": self._model.recipe.max_tokens,
            "prompt": prompt,
            "include_prompt": self._model.recipe.include_prompt,
            "dtype": self._dtype,
            **self._of_layers(),
            "texts": hashlib.sha256(json.dumps(part.texts).encode()).hexdigest(),
        }
        bytes_per_token = self._dim * np.dtype(self._dtype).itemsize
        return Shard(part, key, tokens * bytes_per_token)

    def _of_layers(self) -> dict[str, Any]:
        if self._layers is not None:
            return {"side_by_side": self._layers.used}
        return {} if self._model.recipe.layers == LAST else {"layers": self._model.recipe.layers.spec}

    def _folder(self, shard: Shard) -> Path:
        return self._artifacts.path(_KIND, shard.key)


def size(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _unpadded(states: Tensor, mask: Tensor, ids: Tensor) -> list[NDArray[np.float32]]:
    """Return the states of each text without those of padding, (tokens, any): of several layers side by side."""
    return [state[kept].flatten(1).float().numpy() for state, kept in zip(states, mask, strict=True)]


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())

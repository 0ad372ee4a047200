"""Token states of many texts, kept on disk: encoded once, in parts, and found again by later runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pooling.tasks.data import DataError
from pooling.training import DType, States, Text, Writer
from service.embedding.embedder import Embedder
from service.embedding.recipe import Role
from service.encoder.artifacts import Artifacts
from service.errors import ConfigError, shortened

_KIND: Final = "states"
_FORMAT: Final = 1
_PART: Final = 2048
"""Texts that are kept or lost together when a run is interrupted."""
_TOKENIZED: Final = 1024
"""Texts whose tokens are counted at once."""


@dataclass(frozen=True)
class Part:
    """Texts of one role whose states stand in one folder, which is named by `key`; `bytes` is their size."""

    role: str
    texts: tuple[str, ...]
    key: dict[str, Any]
    bytes: int


class StateCache:
    """Keeps what an encoder gives for texts.

    Args:
        model: whose encoder, prompts and longest text count.
        artifacts: the folder cache to keep states in.
        dtype: what they are kept in.
        limit: bytes that all states in the cache may take; where they would take more, those that were not used
            for longest are removed.

    """

    def __init__(self, model: Embedder, artifacts: Artifacts, *, dtype: DType, limit: int) -> None:
        self._model, self._artifacts, self._dtype, self._limit = model, artifacts, dtype, limit

    def plan(self, groups: Sequence[Sequence[Text]]) -> list[Part]:
        """How the texts are cut into parts: each text once, and every group into parts of its own.

        So data that is added as a further group leaves the parts of the others as they were.

        Raises:
            DataError: a text has no token that the model knows.

        """
        seen: set[Text] = set()
        parts: list[Part] = []
        for group in groups:
            roles: dict[str, list[str]] = {}
            for text in group:
                if text not in seen:
                    seen.add(text)
                    roles.setdefault(text.role, []).append(text.text)
            for role, texts in roles.items():
                parts += (self._part(role, part) for part in _cut(texts, _PART))
        return parts

    def missing(self, parts: Sequence[Part]) -> int:
        """Bytes that are not in the cache yet."""
        return sum(part.bytes for part in parts if not self._folder(part).exists())

    def make_room(self, parts: Sequence[Part]) -> None:
        """See that there is room for the parts.

        Raises:
            ConfigError: the limit or the disk does not allow for it.

        """
        total, missing = sum(part.bytes for part in parts), self.missing(parts)
        remedy = "Use fewer texts or a smaller --max-tokens"
        if total > self._limit:
            raise ConfigError(
                f"the token states need {size(total)}, and --cache-limit is {size(self._limit)}. {remedy}, or raise "
                "the limit."
            )
        own = {self._folder(part) for part in parts}
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

    def states(
        self, parts: Sequence[Part], advance: Callable[[int], None] = lambda _: None
    ) -> tuple[States, dict[Text, int]]:
        """The states of all parts, those that are not there yet encoded first; and at which place each text is.

        Interrupted, it keeps the parts that are whole. `advance` is told how many texts more are done.
        """
        folders = []
        for part in parts:
            told = 0

            def more(count: int) -> None:
                nonlocal told
                told += count
                advance(count)

            def build(folder: Path, part: Part = part, more: Callable[[int], None] = more) -> None:
                self._encode(folder, part, more)

            folder = self._artifacts.get(_KIND, part.key, build)
            now = time.time_ns()  # finer than the clock that the file system stamps with
            os.utime(folder, ns=(now, now))
            folders.append(folder)
            advance(len(part.texts) - told)
        texts = [Text(part.role, text) for part in parts for text in part.texts]
        return States.open(folders), {text: place for place, text in enumerate(texts)}

    def _encode(self, folder: Path, part: Part, advance: Callable[[int], None]) -> None:
        prompt = self._model.recipe.prompt(role=_role(part.role))
        found = self._model.run(part.texts, _counted, prompt=prompt, advance=advance)
        with Writer(folder, self._model.encoder.dim, self._dtype) as writer:
            for states in found:
                writer.add(states)

    def _part(self, role: str, texts: Sequence[str]) -> Part:
        prompt = self._model.recipe.prompt(role=_role(role))
        tokenizer = self._model.encoder.tokenizer
        least = tokenizer.framed_length(prompt) if prompt else tokenizer.num_special
        tokens = 0
        for some in _cut(texts, _TOKENIZED):
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
            "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        }
        bytes_a_token = self._model.encoder.dim * np.dtype(self._dtype).itemsize
        return Part(role, tuple(texts), key, tokens * bytes_a_token)

    def _folder(self, part: Part) -> Path:
        return self._artifacts.path(_KIND, part.key)


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _counted(states: Tensor, mask: Tensor) -> list[NDArray[np.float32]]:
    """Of each text, the states of the tokens that count."""
    return [state[counts].float().numpy() for state, counts in zip(states, mask, strict=True)]


def _cut(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _role(role: str) -> Role | None:
    return cast(Role, role) if role else None


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())

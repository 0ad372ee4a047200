"""MiniLM without a server: token ids, padded batches of them, and the service's runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from service.checkpoint import read_checkpoint
from service.checkpoint.folder import find_folder
from service.config import RuntimeConfig
from service.encoder.loading import Source
from service.encoder.runtimes.base import Runtime
from service.encoder.runtimes.registry import load_runtime
from service.encoder.tokenizer import Tokenizer

MINILM: Final = "bundled/all-MiniLM-L6-v2"
DIM: Final = 384
BATCH_TOKENS: Final = 1024
MAX_TOKENS: Final = 256

Ids = Sequence[int] | NDArray[np.int64]


class Batch(NamedTuple):
    """Some texts: their places among all, token ids and mask, both (texts, time)."""

    places: list[int]
    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]


def minilm() -> str:
    """Give MiniLM's folder."""
    return str(find_folder(MINILM))


def load(checkpoint: str, **runtime: str) -> tuple[Tokenizer, Runtime]:
    """Load a checkpoint as the service does, with keys of the config's section `runtime`."""
    source = Source(read_checkpoint(checkpoint))
    return source.tokenizer, load_runtime(source, RuntimeConfig.model_validate(runtime), lambda _: None)[0]


def token_ids(texts: Sequence[str]) -> list[list[int]]:
    """Give the token ids of each text, special tokens included, truncated to `MAX_TOKENS`."""
    tokenizer: Any = AutoTokenizer.from_pretrained(minilm())
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return ids


def batches(texts: Sequence[Ids], tokens: int = BATCH_TOKENS, *, least: int = 0, pad: int = 0) -> list[Batch]:
    """Pad texts to batches, the longest first.

    Args:
        texts: token ids of each.
        tokens: the most in a batch, padding included; a longer text is a batch of its own.
        least: the least length to pad to.
        pad: the id to pad with.

    """
    order, found = sorted(range(len(texts)), key=lambda place: -len(texts[place])), []
    while order:
        width = max(len(texts[order[0]]), least)
        count = max(1, tokens // width)
        places, order = order[:count], order[count:]
        ids = np.full((len(places), width), pad, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.bool_)
        for row, place in enumerate(places):
            ids[row, : len(texts[place])] = texts[place]
            mask[row, : len(texts[place])] = True
        found.append(Batch(places, ids, mask))
    return found

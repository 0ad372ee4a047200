"""Published checkpoints: weights of which it is known how they were trained, whatever their folder declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.checkpoint import BUNDLED, Checkpoint, sha256


@dataclass(frozen=True, slots=True)
class Published:
    """What a published checkpoint declares."""

    name: str
    pooling: str
    normalize: bool


PUBLISHED: Final = {
    BUNDLED["all-MiniLM-L6-v2"][1]: Published("sentence-transformers/all-MiniLM-L6-v2", "mean", True),
}
"""By the SHA-256 of `model.safetensors`."""


def sum_of(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of the weights; empty if they are in several files."""
    files = checkpoint.weight_files()
    return sha256(files[0]) if len(files) == 1 else ""


def published(checkpoint: Checkpoint) -> Published | None:
    """Return how these weights were published, if known, with a pooling that was fitted to them since."""
    known = PUBLISHED.get(sum_of(checkpoint))
    if known is None or checkpoint.pooler is None or checkpoint.pooling is None:
        return known
    return Published(f"{known.name} with a fitted pooling", checkpoint.pooling, known.normalize)

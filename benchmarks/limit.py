"""What the processor's matrix products allow: the bound that no fp32 implementation passes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

LAYERS, DIM, INNER = 6, 384, 1536
"""The shape of all-MiniLM-L6-v2."""


def gigaflops(seconds: float = 1.0) -> float:
    """fp32 matrix products of the encoder's shapes over all cores, in billions of operations a second."""
    tokens = 1024
    left, right = torch.randn(tokens, DIM), torch.randn(DIM, INNER)
    for _ in range(5):
        left @ right
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        left @ right
        rounds += 1
    return rounds * 2 * tokens * DIM * INNER / (time.perf_counter() - start) / 1e9


def gigaflop_of(lengths: Sequence[int]) -> float:
    """Billions of operations in the matrix products of one pass over texts of these lengths in tokens."""
    weights = LAYERS * (4 * DIM * DIM + 2 * DIM * INNER)
    return sum(2 * length * weights + LAYERS * 4 * length * length * DIM for length in lengths) / 1e9

"""The service with an encoder that takes no time: every request to embed is given vectors that were made before.

python -m benchmarks.hollow serve --config FILE    # as `millpond serve`
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from service.cli import main
from service.embedding.embedder import Embedder, Embeddings

_MOST: Final = 1_024
"""Texts of a request."""
_TOKENS: Final = 16
"""Of a text, as the answers say."""


def hollow(dim: int) -> None:
    """Give all embedders the same vectors, (texts, dim), each of length 1."""
    vectors = np.random.default_rng(0).normal(size=(_MOST, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    async def embed(self: Embedder, inputs: Any, **_: Any) -> Embeddings:
        return Embeddings(vectors[: len(inputs)].copy(), _TOKENS * len(inputs), [])

    setattr(Embedder, "embed", embed)  # noqa: B010 (a method is not assigned to)


if __name__ == "__main__":
    hollow(384)
    main()

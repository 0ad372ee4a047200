"""Strategies over documents that are cut into spans, as a collection has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.collections.vectorize import embed_documents
from service.embedding.chunking import Chunking, Mode
from service.errors import Place, shortened
from service.evaluation.encoding import Advance
from service.evaluation.strategies import Strategy
from service.store import Chunked, Document

_BLOCK: Final = 32
"""Documents a request."""


@dataclass(frozen=True)
class BySpans(Strategy):
    """One way to pool the states of spans.

    Args:
        chunking: how documents are cut into them.

    """

    chunking: Chunking = field(kw_only=True)

    @property
    def yaml(self) -> str:
        """The line of a config that chooses the pooling, and what a collection is to be defined with."""
        return f"{super().yaml}\nchunking: {json.dumps(self.chunking.to_json())}"

    def vectors(self, texts: Sequence[str], file: Path, advance: Advance) -> tuple[Vectors, NDArray[np.int64]]:
        """The vectors of all spans, kept in `file` and mapped from there, and where those of each text start.

        Returns:
            (spans, dim), and (texts + 1,), the last of which is the number of spans.

        Raises:
            ServiceError: a text has no span or too many tokens, or a vector is not finite.

        """
        counts = [0]
        with file.open("xb") as opened:
            for start in range(0, len(texts), _BLOCK):
                found = asyncio.run(self._embedded(texts[start : start + _BLOCK]))
                found.vectors.astype(np.float32, copy=False).tofile(opened)
                counts += map(len, found.spans)
                advance(len(found.spans))
        shape = sum(counts), self.embedder.dim
        return np.memmap(file, np.float32, "r", shape=shape), np.cumsum(counts)

    async def _embedded(self, texts: Sequence[str]) -> Chunked:
        found = await embed_documents(
            self.embedder,
            self.chunking,
            [Document(str(place), text, {}) for place, text in enumerate(texts)],
            truncate=True,
            where=lambda place: Place("texts", place, name=f"the text {shortened(texts[place])}"),
        )
        assert isinstance(found, Chunked)
        return found


def both_modes(strategies: Sequence[Strategy], chunking: Chunking) -> list[BySpans]:
    """Each strategy over spans that are embedded late, and early."""
    return [
        BySpans(f"{each.name}, {mode}", each.embedder, each.weights, chunking=replace(chunking, mode=mode))
        for each in strategies
        for mode in get_args(Mode)
    ]

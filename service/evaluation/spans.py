"""Strategies over documents that are cut into spans, as in a collection."""

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
from service.embedding.chunking import Chunking, Mode
from service.embedding.embedder import SpanVectors
from service.errors import Place, shortened
from service.evaluation.encoding import Advance
from service.evaluation.strategies import Strategy

_BLOCK: Final = 32
"""Documents embedded at a time."""
_MOST_SPANS: Final = 65_536
"""Spans of those documents, whose vectors are in memory at once."""


@dataclass(frozen=True)
class BySpans(Strategy):
    """A strategy that embeds spans of documents.

    Args:
        chunking: how documents are cut into them.
    """

    chunking: Chunking = field(kw_only=True)

    @property
    def yaml(self) -> str:
        """The line of a config that selects the pooling, and the chunking of a collection."""
        return f"{super().yaml}\nchunking: {json.dumps(self.chunking.to_json())}"

    def vectors(self, texts: Sequence[str], file: Path, advance: Advance) -> tuple[Vectors, NDArray[np.int64]]:
        """Embed all spans of some texts.

        Returns:
            Vectors (spans, dim), memory-mapped from `file`, and where those of each text start, (texts + 1,), with
            the number of spans at the end.

        Raises:
            ServiceError: a text has no span or too many tokens, or a vector is not finite.
        """
        counts = [0]
        with file.open("xb") as opened:
            for start in range(0, len(texts), _BLOCK):
                found = asyncio.run(self._embedded(texts[start : start + _BLOCK]))
                for text in found:
                    text.vectors.tofile(opened)
                counts += [len(text.spans) for text in found]
                advance(len(found))
        shape = sum(counts), self.embedder.dim
        return np.memmap(file, np.float32, "r", shape=shape), np.cumsum(counts)

    async def _embedded(self, texts: Sequence[str]) -> list[SpanVectors]:
        def where(index: int) -> Place:
            return Place("texts", index, name=f"the text {shortened(texts[index])}")

        assert self.chunking.chunker is not None  # documents of an evaluation come without spans
        return await self.embedder.embed_spans(
            texts,
            self.chunking.chunker,
            mode=self.chunking.mode,
            role="document",
            truncate="right",
            most=_MOST_SPANS,
            where=where,
            where_span=lambda index, span: where(index).at_span(span),
        )


def both_modes(strategies: Sequence[Strategy], chunking: Chunking) -> list[BySpans]:
    """Return each strategy over spans that are embedded late, and over spans that are embedded early."""
    return [
        BySpans(f"{each.name}, {mode}", each.embedder, each.weights, chunking=replace(chunking, mode=mode))
        for each in strategies
        for mode in get_args(Mode)
    ]

"""From the documents of a collection to their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.errors import InvalidInput, Place
from service.store import Chunked, Document, Embedded, Spans

MOST_CHUNKS: Final = 65_536
"""Spans of all documents of a request, whose vectors are in memory at once."""


async def embed_documents(
    embedder: Embedder,
    chunking: Chunking | None,
    documents: Sequence[Document],
    *,
    truncate: bool,
    where: Callable[[int], Place],
) -> Embedded:
    """Embed documents: each as a whole where `chunking` is None, or else each of its spans.

    `truncate` cuts off a text that is too long, or a span under `early`; `where` gives a document's place for errors.
    Raises `InvalidInput`, `TooLong`, `TooLarge` and `Unavailable` as `Embedder.embed` and `Embedder.embed_spans` do.
    """
    texts = [document.text for document in documents]
    side: Literal["right"] | None = "right" if truncate else None
    if chunking is None:
        return (await embedder.embed(texts, role="document", truncate=side, where=where)).vectors
    if not texts:
        return Chunked(np.empty((0, embedder.dim), np.float32), [])
    found = await embedder.embed_spans(
        texts,
        chunking.chunker or [_spans(document, where(index)) for index, document in enumerate(documents)],
        mode=chunking.mode,
        role="document",
        truncate=side,
        most=MOST_CHUNKS,
        where=where,
        where_span=lambda index, span: where(index).at_span(span),
    )
    return Chunked(np.concatenate([text.vectors for text in found]), [tuple(text.spans) for text in found])


async def check_documents(
    embedder: Embedder,
    chunking: Chunking | None,
    documents: Sequence[Document],
    *,
    truncate: bool,
    where: Callable[[int], Place],
) -> None:
    """Raise what `embed_documents` would because of the documents, and embed nothing."""
    texts = [document.text for document in documents]
    side: Literal["right"] | None = "right" if truncate else None
    if chunking is None:
        await embedder.check(texts, role="document", truncate=side, where=where)
        return
    await embedder.check_spans(
        texts,
        chunking.chunker or [_spans(document, where(index)) for index, document in enumerate(documents)],
        mode=chunking.mode,
        role="document",
        truncate=side,
        most=MOST_CHUNKS,
        where=where,
        where_span=lambda index, span: where(index).at_span(span),
    )


def _spans(document: Document, where: Place) -> Spans:
    if document.spans is None:
        raise InvalidInput(f"{where} has no spans, and the collection's chunking is by given ones.", where=where)
    return document.spans

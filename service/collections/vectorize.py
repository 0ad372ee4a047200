"""From the documents of a collection to their vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, TypeVar

import numpy as np

from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.errors import InvalidInput, Place
from service.store import Chunked, Document, Embedded, Spans

T = TypeVar("T")

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
    found = await _of_spans(embedder.embed_spans, chunking, documents, truncate=side, where=where)
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
    side: Literal["right"] | None = "right" if truncate else None
    if chunking is None:
        texts = [document.text for document in documents]
        await embedder.check(texts, role="document", truncate=side, where=where)
        return
    await _of_spans(embedder.check_spans, chunking, documents, truncate=side, where=where)


def _of_spans(
    ask: Callable[..., Awaitable[T]],
    chunking: Chunking,
    documents: Sequence[Document],
    *,
    truncate: Literal["right"] | None,
    where: Callable[[int], Place],
) -> Awaitable[T]:
    """Ask an embedder to embed the spans of documents, or to check them."""
    return ask(
        [document.text for document in documents],
        chunking.chunker or [_spans(document, where(index)) for index, document in enumerate(documents)],
        mode=chunking.mode,
        role="document",
        truncate=truncate,
        most=MOST_CHUNKS,
        where=where,
        where_span=lambda index, span: where(index).at_span(span),
    )


def _spans(document: Document, where: Place) -> Spans:
    if document.spans is None:
        raise InvalidInput(f"{where} has no spans, and the collection's chunking is by given ones.", where=where)
    return document.spans

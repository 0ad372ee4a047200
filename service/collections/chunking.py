"""Collections whose documents are cut into spans: how, and what vectors they then have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from service.collections import Definition
from service.embedding.chunking import GIVEN, Chunking
from service.embedding.embedder import Embedder
from service.embedding.spans import Span
from service.errors import InvalidInput, Place
from service.store import Chunked, Document, Embedded

MOST_CHUNKS: Final = 65_536
"""Spans of all documents of a request, whose vectors are in memory at once."""


def chunking_of(definition: Definition) -> Chunking | None:
    """Return what a collection was defined with; None if each document has one vector."""
    stored = definition.get("chunking")
    return None if stored is None else Chunking.from_json(stored)


def check_spans(definition: Definition, documents: Sequence[Document]) -> None:
    """Raise `InvalidInput` if documents come with spans that the collection does not take, or lack those it needs."""
    chunking = chunking_of(definition)
    given = chunking is not None and chunking.by == GIVEN
    for place, document in enumerate(documents):
        if given == (document.spans is not None):
            continue
        problem = (
            "has no 'spans': the collection's chunking is by given ones. Send [[start, end], ...] in characters."
            if given
            else "has 'spans', which only a collection takes whose chunking is by given ones. Leave them out."
        )
        where = Place("documents", place, name=f"documents[{place}] (id {document.id!r})")
        raise InvalidInput(f"{where} {problem}", where=where)


async def embed_documents(
    embedder: Embedder,
    definition: Definition,
    documents: Sequence[Document],
    *,
    truncate: bool,
    where: Callable[[int], Place],
) -> Embedded:
    """The vectors of documents under a definition of a collection, whose embedder it is.

    Args:
        embedder: the definition's.
        definition: what the collection has, or is to have.
        documents: with their spans where those are given.
        truncate: cut a text that is too long, or under `early` a span.
        where: names a document by its place, for errors; a span is named by that, a comma, and `span N`.

    Raises:
        InvalidInput, TooLong, TooLarge, Unavailable: as `Embedder.embed` and `Embedder.embed_spans` do.

    """
    chunking = chunking_of(definition)
    texts = [document.text for document in documents]
    side: Literal["right"] | None = "right" if truncate else None
    if chunking is None:
        return (await embedder.embed(texts, role="document", truncate=side, where=where)).vectors
    if not texts:
        return Chunked(np.empty((0, embedder.dim), np.float32), [])
    found = await embedder.embed_spans(
        texts,
        chunking.chunker or [_spans(document, where(place)) for place, document in enumerate(documents)],
        mode=chunking.mode,
        role="document",
        truncate=side,
        most=MOST_CHUNKS,
        where=where,
        where_span=lambda place, span: where(place).at_span(span),
    )
    return Chunked(np.concatenate([text.vectors for text in found]), [tuple(text.spans) for text in found])


def _spans(document: Document, where: Place) -> Sequence[Span]:
    if document.spans is None:
        raise InvalidInput(f"{where} has no spans, and the collection's chunking is by given ones.", where=where)
    return document.spans

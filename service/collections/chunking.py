"""Collections whose documents are cut into spans: how, and what vectors they then have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from service.collections import Definition
from service.embedding.embedder import Embedder, Mode
from service.embedding.spans import BySentence, ByTokens, Cut, Given
from service.errors import InvalidInput, Place
from service.store import Chunked, Document, Embedded

MOST_CHUNKS: Final = 65_536
"""Spans of all documents of a request, whose vectors are in memory at once."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """Each document is cut into runs of tokens, into sentences, or into spans that come with it.

    Args:
        by: what it is cut into.
        mode: `late` pools each span from one pass over the whole document, `early` embeds it by itself.
        tokens: of a run.
        overlap: tokens that a run shares with the one before.

    """

    by: Literal["tokens", "sentence", "given"]
    mode: Mode
    tokens: int | None = None
    overlap: int = 0

    @classmethod
    def of(cls, definition: Definition) -> Chunking | None:
        """What a collection was defined with; None: each document has one vector."""
        stored = definition.get("chunking")
        return None if stored is None else cls(**stored)

    @property
    def told(self) -> dict[str, Any]:
        """The same as JSON, without what goes without saying."""
        run = {"tokens": self.tokens, "overlap": self.overlap} if self.by == "tokens" else {}
        return {"by": self.by, **run, "mode": self.mode}

    def cut(self, document: Document, where: Place) -> Cut:
        """What cuts a document; raises `InvalidInput` where it lacks the spans that it should come with."""
        if self.by == "sentence":
            return BySentence()
        if self.tokens is not None:
            return ByTokens(self.tokens, self.overlap)
        if document.spans is None:
            raise InvalidInput(f"{where} has no spans, and the collection's chunking is by given ones.", where=where)
        return Given(document.spans)


def check_spans(definition: Definition, documents: Sequence[Document]) -> None:
    """Raises `InvalidInput` where documents come with spans that a collection does not take, or without."""
    chunking = Chunking.of(definition)
    given = chunking is not None and chunking.by == "given"
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
    chunking = Chunking.of(definition)
    texts = [document.text for document in documents]
    side: Literal["right"] | None = "right" if truncate else None
    if chunking is None:
        return (await embedder.embed(texts, role="document", truncate=side, where=where)).vectors
    if not texts:
        return Chunked(np.empty((0, embedder.dim), np.float32), [])
    found = await embedder.embed_spans(
        texts,
        [chunking.cut(document, where(place)) for place, document in enumerate(documents)],
        mode=chunking.mode,
        role="document",
        truncate=side,
        most=MOST_CHUNKS,
        where=where,
        where_span=lambda place, span: where(place).at_span(span),
    )
    return Chunked(np.concatenate([text.vectors for text in found]), [tuple(text.spans) for text in found])

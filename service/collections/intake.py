"""Which documents of a request can be stored, and what is wrong with each of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.arrays import Vectors
from service.collections.provenance import Definition
from service.embedding.chunking import GIVEN
from service.errors import (
    FingerprintMismatch,
    InvalidDocument,
    InvalidInput,
    InvalidVector,
    Place,
    ServiceError,
    TooLarge,
    TooLong,
)
from service.store import Chunked, Document, Embedded
from service.store.document import checked_id, checked_text, checked_vectors, encoded_metadata

FAULTS: Final = (TooLong, TooLarge, InvalidInput)
"""What embedding raises because of a document, or because of all of them together."""
MOST_NAMED: Final = 100
"""Documents that cannot be embedded, after which a request that stores all or nothing looks for no more."""

_MOST_PLACES: Final = 5
"""Documents with one id that a message names."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A document of a request; with its vectors and the fingerprint of what made them, where the client has them.

    `vectors` has one row, or in a chunked collection one for each of the document's spans.
    """

    document: Document
    vectors: Sequence[Sequence[float]] | None = None
    fingerprint: str | None = None


Items = Sequence[Document | Incoming | ServiceError]
"""The documents of a request, and in place of what is none, why."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that can be stored, and its vectors (spans or 1, dim), None where it is to be embedded."""

    document: Document
    vectors: Vectors | None


def place(index: int, document: Document, part: str = "") -> Place:
    """Return the place of a document of a request, or of a part of it such as `.text`."""
    return Place("documents", index, name=f"documents[{index}]{part} (id {document.id!r})")


def sort_out(
    collection: str, definition: Definition, dim: int, items: Items
) -> tuple[dict[int, Admitted], dict[int, ServiceError]]:
    """Return the documents that a collection of this definition can take, by index, and what is wrong with others."""
    admitted: dict[int, Admitted] = {}
    refused: dict[int, ServiceError] = {}
    incoming = [Incoming(item) if isinstance(item, Document) else item for item in items]
    places: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(incoming):
        if isinstance(item, Incoming):
            places[item.document.id].append(index)
    for index, item in enumerate(incoming):
        if isinstance(item, ServiceError):
            refused[index] = item
            continue
        try:
            _check_document(index, item.document, places)
            _check_spans(index, item, definition)
            admitted[index] = Admitted(item.document, _checked_vectors(index, item, collection, definition, dim))
        except ServiceError as error:
            refused[index] = error
    return admitted, refused


async def faults(
    places: Sequence[int], check: Callable[[Sequence[int]], Awaitable[None]], most: int | None = None
) -> dict[int, ServiceError]:
    """Return what is wrong with each of the documents at some places by itself, and of the first `most` alone.

    `check` raises it for some of them. Raises what is the fault of no document.
    """
    found: dict[int, ServiceError] = {}
    waiting = [places]
    while waiting and (most is None or len(found) < most):
        some = waiting.pop()
        try:
            if some:
                await check(some)
        except FAULTS as error:
            if not isinstance(error, TooLarge) and (error.where is None or error.where.index is None):
                raise
            if len(some) == 1:
                found[some[0]] = error
            else:
                waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return found


def assembled(admitted: Mapping[int, Admitted], embedded: Embedded | None, dim: int, *, chunked: bool) -> Embedded:
    """Return the vectors of documents in order: those that they came with, and of the others the `embedded` ones."""
    made = _made(embedded)
    rows: list[Vectors] = []
    spans = []
    for item in admitted.values():
        vectors, cut = (item.vectors, item.document.spans) if item.vectors is not None else next(made)
        rows.append(vectors)
        spans.append(cut or ())
    vectors = np.concatenate(rows) if rows else np.empty((0, dim), np.float32)
    return Chunked(vectors, spans) if chunked else vectors


def _made(embedded: Embedded | None) -> Iterator[tuple[Vectors, tuple[tuple[int, int], ...] | None]]:
    if isinstance(embedded, Chunked):
        start = 0
        for spans in embedded.spans:
            yield embedded.vectors[start : start + len(spans)], spans
            start += len(spans)
    elif embedded is not None:
        for row in embedded:
            yield row[None], None


def _check_document(index: int, document: Document, places: Mapping[str, Sequence[int]]) -> None:
    try:
        checked_id(document.id)
        checked_text(document)
        encoded_metadata(document)
        if len(at := places[document.id]) > 1:
            often = "twice" if len(at) == 2 else f"{len(at)} times"
            named = ", ".join(f"documents[{each}]" for each in at[:_MOST_PLACES]) + ", ..." * (len(at) > _MOST_PLACES)
            raise InvalidDocument(
                f"document id {document.id!r} comes {often} in one request, at {named}; send it once."
            )
    except InvalidDocument as error:
        error.where = error.where or place(index, document)
        raise


def _check_spans(index: int, item: Incoming, definition: Definition) -> None:
    """Check that a document comes with spans where its collection takes them."""
    given = definition.chunking is not None and (definition.chunking.by == GIVEN or item.vectors is not None)
    if given == (item.document.spans is not None):
        return
    where = place(index, item.document)
    if not given:
        problem = "has 'spans', which only a collection takes whose chunking is by given ones. Leave them out."
    elif item.vectors is None:
        problem = (
            "has no 'spans': the collection's chunking is by given ones. Send [[start, end], ...] in characters."
        )
    else:
        problem = "has vectors and no 'spans', and in a chunked collection a vector is that of a span. Send both."
    raise InvalidInput(f"{where} {problem}", where=where)


def _checked_vectors(index: int, item: Incoming, collection: str, definition: Definition, dim: int) -> Vectors | None:
    """Return the vectors that a document comes with, as its collection takes them."""
    where = place(index, item.document, ".vector")
    if item.vectors is None:
        if definition.foreign:
            raise InvalidInput(
                f"{where} is missing: collection {collection!r} holds foreign vectors, so each document comes with "
                f"one, of {dim} numbers.",
                where=where,
            )
        return None
    if definition.model is not None and item.fingerprint != definition.fingerprint:
        if item.fingerprint is not None:
            raise FingerprintMismatch(
                f"{where} was made under fingerprint {item.fingerprint!r}, and collection {collection!r} has "
                f"{definition.fingerprint!r}, so that the two cannot be compared. Leave the vector out, and the text "
                "is embedded.",
                where=where,
            )
        if not definition.foreign:
            raise InvalidInput(
                f"{where}: collection {collection!r} makes vectors of texts itself. Leave the vector out, send the "
                "'fingerprint' that it was made under, or create a collection with a 'dimension' for vectors that "
                "are made elsewhere.",
                where=where,
            )
    spans = item.document.spans
    count = 1 if spans is None else len(spans)
    if len(item.vectors) != count or not count:
        raise InvalidVector(
            f"{where}: {len(item.vectors)} vectors came for {count} spans; send one for each.", where=where
        )
    wrong = next((len(vector) for vector in item.vectors if len(vector) != dim), None)
    if wrong is not None:
        raise InvalidVector(f"{where} has {wrong} numbers; collection {collection!r} takes {dim}.", where=where)
    length = len(item.document.text)
    if outside := next((span for span in spans or () if not 0 <= span[0] < span[1] <= length), None):
        raise InvalidInput(
            f"{where}: span {[*outside]} is none of a text with {length} characters.",
            where=place(index, item.document),
        )
    try:
        vectors = checked_vectors(np.array(item.vectors, np.float64).reshape(count, dim), dim)
        definition.similarity.check(vectors)
    except InvalidVector as error:
        detail = error.detail.removeprefix("vector 0 ")
        raise InvalidVector(f"{where} {detail}", where=where) from None
    return vectors

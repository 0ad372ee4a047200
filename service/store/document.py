"""What is stored, documents and their vectors, and what makes them valid."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Vectors
from service.errors import InvalidDocument, InvalidVector, Place, shortened

MAX_ID_CHARACTERS = 512
MAX_METADATA_DEPTH = 64
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1

Span = tuple[int, int]
"""Start and end (exclusive) of a part of a text, in characters."""
Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an id, and a JSON object of metadata to filter by.

    `spans` are the parts of the text that have a vector each; None where the whole text has one vector, or where the
    spans are still to be found.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    spans: Spans | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document as requests and responses represent it."""
        spans = {} if self.spans is None else {"spans": self.spans}
        return {"id": self.id, "text": self.text, "metadata": self.metadata, **spans}


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it is stored, and its vectors, (1, dim) or (spans, dim), where they were asked for."""

    document: Document
    vectors: Vectors | None


@dataclass(frozen=True, slots=True)
class Chunked:
    """Vectors (chunks, dim) of documents that are cut into spans: those of the first document, then of the next."""

    vectors: NDArray[np.floating[Any]]
    spans: Sequence[Spans]


Embedded = NDArray[np.floating[Any]] | Chunked
"""Vectors of documents: one for each, (documents, dim), or one for each of their spans."""


@dataclass(frozen=True, slots=True)
class ValidatedVectors:
    """Vectors (n, dim) that can be stored; for each document, how many of them it has and of which spans."""

    vectors: Vectors
    counts: list[int]
    spans: Sequence[Spans | None]

    def __iter__(self) -> Iterator[tuple[Vectors, Spans | None]]:
        """Yield each document's vectors (its count, dim) and spans."""
        end = 0
        for count, spans in zip(self.counts, self.spans, strict=True):
            end += count
            yield self.vectors[end - count : end], spans

    def repeated(self, keys: Keys) -> Keys:
        """Return the key of each vector (n,), from the keys of the documents (documents,)."""
        return np.repeat(keys, self.counts)


def validate(embedded: Embedded, dim: int, documents: int) -> ValidatedVectors:
    """Check the vectors, of `dim` numbers, of so many documents; raises `InvalidVector`."""
    if not isinstance(embedded, Chunked):
        vectors = checked_vectors(embedded, dim)
        if len(vectors) != documents:
            raise InvalidVector(f"{documents} documents came with {len(vectors)} vectors; send one for each.")
        return ValidatedVectors(vectors, [1] * documents, [None] * documents)
    counts = [len(spans) for spans in embedded.spans]
    if len(counts) != documents or not all(counts):
        raise InvalidVector(
            f"{documents} documents came with spans for {sum(map(bool, counts))}; send one or more for each."
        )
    vectors = checked_vectors(embedded.vectors, dim)
    if len(vectors) != sum(counts):
        raise InvalidVector(f"{sum(counts)} spans came with {len(vectors)} vectors; send one for each.")
    return ValidatedVectors(vectors, counts, embedded.spans)


def checked_vectors(vectors: NDArray[np.floating[Any]], dim: int) -> Vectors:
    """Return vectors (n, dim) as float32; raises `InvalidVector` where they are no finite numbers of this shape."""
    if not isinstance(vectors, np.ndarray) or not np.issubdtype(vectors.dtype, np.floating):
        kind = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise InvalidVector(f"vectors must be an array of floating-point numbers, not of {kind}.")
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVector(f"vectors of shape {vectors.shape} do not fit the collection, which takes (n, {dim}).")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes inf, which is refused below
        narrow = vectors.astype(np.float32)
    for position in np.flatnonzero(~np.isfinite(narrow).all(axis=1)):
        raise InvalidVector(f"vector {position} holds NaN, infinity or a number beyond float32.")
    return narrow


def checked_id(document_id: str, where: Place | None = None) -> str:
    """Return a document id; raises `InvalidDocument`, about its place, where it is not valid."""
    if not isinstance(document_id, str):
        raise InvalidDocument(f"a document id must be a string, not {type(document_id).__name__}.", where=where)
    if not 1 <= len(document_id) <= MAX_ID_CHARACTERS or "\0" in document_id or has_surrogate(document_id):
        raise InvalidDocument(
            f"document id {shortened(document_id)}: an id has 1 to {MAX_ID_CHARACTERS} characters, "
            "none of them NUL or half of a surrogate pair.",
            where=where,
        )
    return document_id


def checked_ids(ids: Iterable[str], field: str = "ids") -> list[str]:
    """Return the document ids in a field of a request, each once; raises `InvalidDocument` for the first bad one."""
    return list(dict.fromkeys(checked_id(each, Place(field, index)) for index, each in enumerate(ids)))


def require_distinct(documents: Iterable[Document]) -> None:
    """Refuse documents that share an id, since either could be the one that is meant; raises `InvalidDocument`."""
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise InvalidDocument(f"document id {document.id!r} comes twice in one request; send it once.")
        seen.add(document.id)


def checked_text(document: Document) -> str:
    """Return a document's text; raises `InvalidDocument` where it cannot be stored as UTF-8."""
    if not isinstance(document.text, str):
        raise InvalidDocument(f"document {document.id!r}: text must be a string, not {type(document.text).__name__}.")
    if has_surrogate(document.text):
        raise InvalidDocument(f"document {document.id!r}: text holds half of a surrogate pair; send valid Unicode.")
    return document.text


def encoded_metadata(document: Document) -> str:
    """Return a document's metadata as JSON that decodes to an equal value; raises `InvalidDocument`."""
    if not isinstance(document.metadata, dict):
        raise InvalidDocument(
            f"document {document.id!r}: metadata must be a JSON object, not {type(document.metadata).__name__}."
        )
    for problem in _problems(document.metadata, "metadata", 1):
        raise InvalidDocument(f"document {document.id!r}: {problem}.")
    return json.dumps(document.metadata, ensure_ascii=False, separators=(",", ":"))


def canonical_metadata(document: Document) -> str:
    """Return metadata as canonical JSON, in which 1, 1.0 and true differ and the order of keys does not matter."""
    return json.dumps(json.loads(encoded_metadata(document)), sort_keys=True)


def check_metadata(metadata: dict[str, Any], field: str) -> None:
    """Check metadata in a field of a request, which are those of no document yet; raises `InvalidDocument`."""
    for problem in _problems(metadata, field, 1):
        raise InvalidDocument(f"{problem}.", where=Place(field))


def encoded_spans(spans: Spans | None) -> bytes | None:
    """Return spans as they are stored, as pairs of 64-bit integers."""
    return None if spans is None else np.array(spans, "<i8").tobytes()


def decoded_spans(stored: bytes | None) -> Spans | None:
    """Return the spans that `encoded_spans` encoded."""
    if stored is None:
        return None
    return tuple((start, end) for start, end in np.frombuffer(stored, "<i8").reshape(-1, 2).tolist())


def has_surrogate(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _problems(value: object, where: str, depth: int) -> Iterator[str]:
    """Yield what JSON, or SQLite reading it, would not preserve."""
    match value:
        case None | bool():
            pass
        case str():
            yield from _string_problems(value, where)
        case int():
            if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
                yield f"{where} is an integer beyond 64 bits; send it as a string"
        case float():
            if not math.isfinite(value):
                yield f"{where} is {value}; numbers must be finite"
        case dict() | list() if depth > MAX_METADATA_DEPTH:
            yield f"{shortened(where)} is nested deeper than {MAX_METADATA_DEPTH} levels"
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    yield f"{where} has the key {key!r}; keys must be strings"
                else:
                    yield from _string_problems(key, f"a key of {where}")
                    yield from _problems(item, f"{where}.{key}", depth + 1)
        case list():
            for position, item in enumerate(value):
                yield from _problems(item, f"{where}[{position}]", depth + 1)
        case _:
            yield f"{where} is a {type(value).__name__}; metadata holds JSON values only"


def _string_problems(text: str, where: str) -> Iterator[str]:
    if "\0" in text:  # SQLite's JSON functions end a string there, so a filter would see another value
        yield f"{where} holds a NUL character; remove it"
    if has_surrogate(text):
        yield f"{where} holds half of a surrogate pair; send valid Unicode"

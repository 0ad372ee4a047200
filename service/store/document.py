"""What is stored and what is found: documents and hits, and the rules they keep."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import InvalidDocument, shortened

MAX_ID_CHARACTERS = 512
MAX_METADATA_DEPTH = 64
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1

Span = tuple[int, int]
"""Characters of a text: where they start, and where they end, exclusive."""
Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A text, known by its id, with a JSON object of metadata to filter by.

    `spans` are the parts of the text that have a vector each; None where all of it has one, or where they are still
    to be found.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, or a span of one; `score` is the cosine of its vector and the query's."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    span: Span | None = None


def checked_id(document_id: str) -> str:
    """Return the id; raises `InvalidDocument` where no document can have it."""
    if not isinstance(document_id, str):
        raise InvalidDocument(f"a document id must be a string, not {type(document_id).__name__}.")
    if not 1 <= len(document_id) <= MAX_ID_CHARACTERS or "\0" in document_id or has_surrogate(document_id):
        raise InvalidDocument(
            f"document id {shortened(document_id)}: an id has 1 to {MAX_ID_CHARACTERS} characters, "
            "none of them NUL or half of a surrogate pair."
        )
    return document_id


def require_distinct(documents: Iterable[Document]) -> None:
    """Raises `InvalidDocument` where an id comes twice: which of the two would count is not for us to guess."""
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise InvalidDocument(f"document id {document.id!r} comes twice in one request; send it once.")
        seen.add(document.id)


def checked_text(document: Document) -> str:
    """Return the document's text; raises `InvalidDocument` where it cannot be stored as UTF-8."""
    if not isinstance(document.text, str):
        raise InvalidDocument(f"document {document.id!r}: text must be a string, not {type(document.text).__name__}.")
    if has_surrogate(document.text):
        raise InvalidDocument(f"document {document.id!r}: text holds half of a surrogate pair; send valid Unicode.")
    return document.text


def encoded_metadata(document: Document) -> str:
    """Return the document's metadata as JSON text that reads back equal; raises `InvalidDocument`."""
    if not isinstance(document.metadata, dict):
        raise InvalidDocument(
            f"document {document.id!r}: metadata must be a JSON object, not {type(document.metadata).__name__}."
        )
    for problem in _problems(document.metadata, "metadata", 1):
        raise InvalidDocument(f"document {document.id!r}: {problem}.")
    return json.dumps(document.metadata, ensure_ascii=False, separators=(",", ":"))


def encoded_spans(spans: Spans | None) -> bytes | None:
    """Return spans as they are stored: pairs of 64-bit integers."""
    return None if spans is None else np.array(spans, "<i8").tobytes()


def decoded_spans(stored: bytes | None) -> Spans | None:
    """Return what `encoded_spans` was given."""
    if stored is None:
        return None
    return tuple((start, end) for start, end in np.frombuffer(stored, "<i8").reshape(-1, 2).tolist())


def has_surrogate(text: str) -> bool:
    """Tell whether the text holds half of a surrogate pair, which UTF-8 cannot say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _problems(value: object, where: str, depth: int) -> Iterator[str]:
    """Say what JSON, or SQLite reading that JSON, would not keep as it is."""
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

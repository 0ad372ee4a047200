"""Documents as rows in Milvus, one for each vector, and back.

The row of the first vector is the head: it has the id of the document as its key, and text, metadata and spans. The
keys of the other rows have the number of the storing in them, so that those of an earlier storing are told from those
of the head, and are not taken for its own.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from service.arrays import Vectors
from service.collections.milvus.client import Row
from service.collections.milvus.schema import (
    BOUNDS,
    BYTES,
    DOCUMENT,
    KEY,
    METADATA,
    MOST_JSON,
    MOST_SENT,
    MOST_TEXT,
    ORDINAL,
    OWNER,
    REVISION,
    SEQUENCE,
    SPANS,
    TERMS,
    TEXT,
    VECTOR,
)
from service.collections.milvus.terms import indexed_terms
from service.collections.provenance import Definition
from service.errors import InvalidDocument, InvalidVector
from service.similarity import COSINE, Similarity
from service.store.document import (
    Document,
    Embedded,
    Spans,
    ValidatedVectors,
    checked_id,
    checked_text,
    encoded_metadata,
    validate,
)

HEADS: Final = (DOCUMENT, OWNER, SEQUENCE, REVISION, TEXT, METADATA, SPANS)
"""The columns that a document is read from."""
_LEAST_NORM, _MOST_NORM = 1e-15, 1e15
_FIXED_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as it is stored, with all but its vectors checked."""

    document: Document
    owner: str
    terms: list[str]
    bounds: dict[str, list[str]]
    bytes: int

    def rows(self, vectors: Vectors, spans: Spans | None, sequence: int, revision: int) -> list[Row]:
        """Return its rows with vectors (n, dim); raises `InvalidDocument` where they are more than one call takes."""
        shared: Row = {
            OWNER: self.owner,
            DOCUMENT: self.document.id,
            SEQUENCE: sequence,
            REVISION: revision,
            TERMS: self.terms,
            BOUNDS: self.bounds,
        }
        other: Row = {**shared, TEXT: "", METADATA: {}, SPANS: {}, BYTES: 0}
        encoded_spans = None if spans is None else [[*span] for span in spans]
        if spans is not None and (size := len(json.dumps(encoded_spans, separators=(",", ":")))) > MOST_JSON:
            raise InvalidDocument(
                f"document {self.document.id!r}: its {len(spans)} spans take {size} bytes, and Milvus holds "
                f"{MOST_JSON} a document. Cut it into fewer, or store its parts as documents."
            )
        head = {
            **shared,
            TEXT: self.document.text,
            METADATA: self.document.metadata,
            SPANS: {"of": encoded_spans},
            BYTES: self.bytes + vectors.nbytes,
        }
        rows = [
            {**(head if place == 0 else other), **_keyed(self.owner, sequence, place), VECTOR: vector}
            for place, vector in enumerate(vectors)
        ]
        if (size := sum(map(self.size, rows))) > MOST_SENT:
            raise InvalidDocument(
                f"document {self.document.id!r}: its {len(rows)} vectors take {size} bytes with what filters need, "
                f"and one call of Milvus takes {MOST_SENT}. Cut it into fewer spans, or store its parts as documents."
            )
        return rows

    def size(self, row: Row) -> int:
        """Return about how many bytes a row takes in a call."""
        of_terms = 36 * len(self.terms) + sum(
            len(key) + len(low) + len(high) + 16 for key, (low, high) in self.bounds.items()
        )
        return _FIXED_BYTES + of_terms + int(row[VECTOR].nbytes) + (self.bytes if row[ORDINAL] == 0 else 0)


def encoded(document: Document) -> Encoded:
    """Check a document and return it as it is stored; raises `InvalidDocument` for what Milvus does not hold."""
    checked_id(document.id)
    text = checked_text(document).encode()
    metadata = encoded_metadata(document)
    if len(text) > MOST_TEXT:
        raise InvalidDocument(
            f"document {document.id!r}: its text has {len(text)} bytes in UTF-8, and Milvus holds {MOST_TEXT}. Store "
            "its parts as documents, or use the engine 'embedded'."
        )
    if len(metadata.encode()) > MOST_JSON:
        raise InvalidDocument(
            f"document {document.id!r}: its metadata has {len(metadata.encode())} bytes as JSON, and Milvus holds "
            f"{MOST_JSON}. Leave some out, or use the engine 'embedded'."
        )
    terms, bounds = indexed_terms(document.id, document.metadata)
    return Encoded(document, owner_of(document.id), terms, bounds, len(text) + len(metadata.encode()))


def check_lengths(vectors: Vectors, similarity: Similarity) -> None:
    """Check that Milvus can compare vectors (n, dim), which it does in float32; raises `InvalidVector`."""
    if similarity is not COSINE:
        return
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for position in np.flatnonzero((norms < _LEAST_NORM) | (norms > _MOST_NORM)):
        raise InvalidVector(
            f"vector {position} has the length {norms[position]:g}, and Milvus compares by cosine those from "
            f"{_LEAST_NORM:g} to {_MOST_NORM:g}. Scale it; its direction alone counts."
        )


def validated(definition: Definition, vectors: Embedded, dim: int, documents: int) -> ValidatedVectors:
    """Check the vectors of so many documents under a definition; raises `InvalidVector`."""
    found = validate(vectors, dim, documents)
    definition.similarity.check(found.vectors)
    check_lengths(found.vectors, definition.similarity)
    return found


def owner_of(document_id: str) -> str:
    """Return what stands for a document's id in keys and expressions, whatever characters it has."""
    return blake2b(document_id.encode(), digest_size=16).hexdigest()


def document_of(head: Row) -> Document:
    """Return the document of a head."""
    spans = head[SPANS]["of"]
    of = None if spans is None else tuple((start, end) for start, end in spans)
    return Document(head[DOCUMENT], head[TEXT], head[METADATA], of)


def owned_by(owners: Sequence[str]) -> str:
    """Return the expression for all rows of some documents."""
    quoted = ", ".join(f'"{owner}"' for owner in owners)
    return f"{OWNER} in [{quoted}]"


def with_keys(keys: Sequence[str], *, out: bool = False) -> str:
    """Return the expression for rows by their primary keys, or with `out` for all others."""
    quoted = ", ".join(f'"{key}"' for key in keys)
    return f"{KEY} {'not in' if out else 'in'} [{quoted}]"


def parted(documents: Iterable[tuple[Encoded, list[Row]]]) -> Iterator[list[Row]]:
    """Yield the rows of documents in calls that are not too large, those of a document in one."""
    call: list[Row] = []
    room = MOST_SENT
    for of, rows in documents:
        size = sum(map(of.size, rows))
        if call and size > room:
            yield call
            call, room = [], MOST_SENT
        call.extend(rows)
        room -= size
    if call:
        yield call


def _keyed(owner: str, sequence: int, ordinal: int) -> dict[str, Any]:
    key = owner if ordinal == 0 else f"{owner}_{sequence:x}_{ordinal:x}"
    return {KEY: key, ORDINAL: ordinal}


class Clock:
    """Numbers in the order of storing: by the time, and each above those that were given or seen before.

    Services that share a server have the same order as far as their clocks agree. The last bits are the process's
    own, so that no two give the same number.
    """

    _OWN: Final = 10

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._own = random.SystemRandom().getrandbits(self._OWN)

    def next(self, count: int) -> list[int]:
        """Return so many numbers, ascending."""
        with self._lock:
            first = max(time.time_ns() // 1000, self._last + 1)
            self._last = first + count - 1
        return [number << self._OWN | self._own for number in range(first, first + count)]

"""Reading one generation of a collection at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.arrays import Vectors
from service.collections.milvus.client import MOST_ROWS, Client, Row, as_vectors
from service.collections.milvus.generation import Generation
from service.collections.milvus.rows import HEADS, document_of, owned_by
from service.collections.milvus.schema import BYTES, EVERY, HEAD, KEY, ORDINAL, OWNER, REVISION, SEQUENCE, VECTOR
from service.collections.milvus.terms import expression
from service.store.document import Document, Stored
from service.store.filters import Filter

MOST_READ: Final = 1 << 25
"""Bytes of documents and vectors that are read at once."""
_MOST_ASKED: Final = 1_000
"""Ids in one expression."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as it is stored, with the row of each of its vectors, which are read where they are asked for."""

    owner: str
    sequence: int
    revision: int
    document: Document
    vectors: Vectors | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A generation of a collection, and the moment at which it is read: what was written before is seen."""

    client: Client
    generation: Generation
    at: int

    def query(self, where: str, columns: Sequence[str], limit: int = MOST_ROWS) -> list[Row]:
        """Return rows that an expression holds for, in the order of their keys."""
        return self.client.query(self.generation.read_as, where, columns, self.at, limit)

    def count(self, where: str) -> int:
        """Return the number of rows that an expression holds for; see `Client.count` where they are many."""
        rows = self.query(where, [KEY])
        if len(rows) < MOST_ROWS:
            return len(rows)
        return self.client.count(self.generation.read_as, where, self.at)

    def all(self, where: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield all rows that an expression holds for, in the order of their keys."""
        after = ""
        while True:
            rows = self.query(f'({where}) and {KEY} > "{after}"', [KEY, *columns])
            yield from rows
            if len(rows) < MOST_ROWS:
                return
            after = rows[-1][KEY]

    def among(self, owners: Sequence[str], where: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of some documents that an expression holds for."""
        for start in range(0, len(owners), _MOST_ASKED):
            yield from self.all(f"{owned_by(owners[start : start + _MOST_ASKED])} and {where}", columns)

    def in_order(self, where: str, after: int, least: int) -> list[Row]:
        """Return the next heads behind a number in the order of storing, with their numbers, owner and bytes.

        They are `least` or more, and fewer only where no others follow. `least` is at most half of `MOST_ROWS`.
        Milvus has no order but that of keys, so this asks for a part of the numbers that has few enough rows.
        """
        last: int | None = None
        while True:
            until = "" if last is None else f" and {SEQUENCE} <= {last}"
            rows = self.query(f"{where} and {SEQUENCE} > {after}{until}", [SEQUENCE, REVISION, OWNER, BYTES])
            rows.sort(key=lambda row: int(row[SEQUENCE]))
            if len(rows) < MOST_ROWS:
                return rows
            last = int(rows[MOST_ROWS // 2 - 1][SEQUENCE])  # keys are digests, so these are a sample of all numbers

    def every_in_order(self) -> list[Row]:
        """Return numbers, owner and bytes of all heads, in the order of storing."""
        return sorted(self.all(HEAD, [SEQUENCE, REVISION, OWNER, BYTES]), key=lambda row: int(row[SEQUENCE]))

    def heads(self, owners: Sequence[str], columns: Sequence[str] = HEADS) -> dict[str, Row]:
        """Return the heads of documents by their owner, of those that there are."""
        return {row[OWNER]: row for row in self.among(owners, HEAD, columns)}

    def read(self, owners: Sequence[str], *, vectors: bool = False) -> dict[str, Kept]:
        """Return documents by their owner, of those that there are; all of one is of one storing."""
        found: dict[str, Kept] = {}
        if not vectors:
            for owner, head in self.heads(owners).items():
                found[owner] = Kept(owner, int(head[SEQUENCE]), int(head[REVISION]), document_of(head), None)
            return found
        by_owner: dict[str, list[Row]] = {}
        for row in self.among(owners, EVERY, [*HEADS, ORDINAL, VECTOR]):
            by_owner.setdefault(row[OWNER], []).append(row)
        for owner, rows in by_owner.items():
            rows.sort(key=lambda row: int(row[ORDINAL]))
            head = rows[0]
            if head[ORDINAL] != 0:
                continue  # of a document that is gone
            own = [row for row in rows if row[SEQUENCE] == head[SEQUENCE]]
            of = as_vectors(own, self.generation.dim)
            found[owner] = Kept(owner, int(head[SEQUENCE]), int(head[REVISION]), document_of(head), of)
        return found

    def matching(self, filter_: Filter | None) -> str:
        """Return the expression for the heads that a filter matches; raises `InvalidFilter`."""
        return HEAD if filter_ is None else f"{HEAD} and {expression(filter_.condition)}"

    def average(self, vectors: Vectors) -> Vectors:
        """Return the vector (dim,) of a document with vectors (n, dim): their average, as they are compared."""
        average: Vectors = (
            vectors[0] if len(vectors) == 1 else self.generation.similarity.prepared(vectors).mean(axis=0)
        )
        return average


def stored(kept: Kept) -> Stored:
    """Return a document as the service shows it."""
    return Stored(kept.document, kept.vectors)


def blocks_of(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield the owners of heads in blocks that can be read at once; `rows` have the bytes of each."""
    block: list[str] = []
    room = MOST_READ
    for row in rows:
        if block and (int(row[BYTES]) > room or len(block) == _MOST_ASKED):
            yield block
            block, room = [], MOST_READ
        block.append(row[OWNER])
        room -= int(row[BYTES])
    if block:
        yield block

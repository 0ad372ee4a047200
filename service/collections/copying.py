"""Copying collections from one engine to another, with their vectors bit for bit: nothing is embedded anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from service.arrays import Vectors
from service.collections.protocols import Collection, Engine
from service.errors import NameConflict, NotFound, ServiceError, TooLarge
from service.store.document import Chunked, Document, Embedded, Stored, canonical_metadata
from service.store.tokenizers import Tokenizer

_MOST_DOCUMENTS: Final = 500
_MOST_BYTES: Final = 8 << 20
"""Texts and vectors that are read and written at once, in bytes."""
_MOST_TOLD: Final = 10
"""Documents of a kind that are told by name."""

Advance = Callable[[int], object]
"""Called with the number of documents that were just done."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some documents, each with its vectors (spans or 1, dim); either all of them are cut into spans, or none is."""

    documents: Sequence[Document]
    vectors: Sequence[Vectors]

    @property
    def embedded(self) -> Embedded:
        """Their vectors as they are stored."""
        stacked = np.concatenate(self.vectors)
        spans = [document.spans for document in self.documents if document.spans is not None]
        return Chunked(stacked, spans) if spans else stacked

    def without(self, ids: set[str]) -> Batch:
        """Return the others."""
        kept = [place for place, document in enumerate(self.documents) if document.id not in ids]
        return Batch([self.documents[place] for place in kept], [self.vectors[place] for place in kept])

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half."""
        middle = len(self.documents) // 2
        return (
            Batch(self.documents[:middle], self.vectors[:middle]),
            Batch(self.documents[middle:], self.vectors[middle:]),
        )


@dataclass
class Several:
    """How many documents something is said of, and what of the first ones."""

    count: int = 0
    told: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.told) < _MOST_TOLD:
            self.told.append(what)


@dataclass
class Findings:
    """What was found of the documents of a collection before they are copied, or afterwards.

    Args:
        documents: how many there are.
        equal: how many the target has with equal text, metadata, spans and vectors.
        refused: those that the target cannot hold, with the reason.
        other: the ids of those that it has otherwise.
    """

    documents: int = 0
    equal: int = 0
    refused: Several = field(default_factory=Several)
    other: Several = field(default_factory=Several)

    @property
    def missing(self) -> int:
        """How many the target does not have."""
        return self.documents - self.equal - self.other.count


@dataclass
class Copied:
    """How many documents were copied, and how many the target had already."""

    copied: int = 0
    unchanged: int = 0


class CollectionCopy:
    """A collection that is copied to another engine, under its own name.

    `examine` and `begin` come before `run`, and `compare` after it. A copy that was interrupted is gone on with by
    another one: what the target has already is left as it is.

    Args:
        source: the collection.
        of: the engine that has it.
        target: the engine that is to have it.
        tokenizer: how it is to be searched by words where `of` has no keyword indexes; by default as the one that
            `target` has under this name, or as a new one there.
    """

    def __init__(self, source: Collection, of: Engine, target: Engine, tokenizer: Tokenizer | None = None) -> None:
        self.name = source.name
        self._source, self._of, self._engine = source, of, target
        self._tokenizer = tokenizer

    @property
    def count(self) -> int:
        """How many documents it has."""
        return self._source.count()

    @property
    def chunks(self) -> int:
        """How many vectors it has."""
        return self._source.chunks()

    def lost(self) -> list[str]:
        """Say what of it the target will not have, beside documents that it refuses."""
        lost = []
        if self._source.tokenizer is not None and self._engine.default_tokenizer is None:
            lost.append(
                f"its keyword index ({self._source.tokenizer.name}), so that searches by words and hybrid ones are "
                "refused there"
            )
        if self._source.recall is not None and not self._engine.takes_recall:
            lost.append(f"the recall that is asked of its index ({self._source.recall:g})")
        if self._source.idle_timeout is not None:
            lost.append(f"its idle timeout ({self._source.idle_timeout} s)")
        if (rebuild := self._source.rebuild()) is not None:
            lost.append(f"the reindex that was begun, which has {rebuild.done} documents")
        return lost

    def examine(self, advance: Advance) -> Findings:
        """Look which documents the target has, and which it cannot hold; nothing is written.

        Raises:
            Conflict: it has a collection of this name under another definition.
            NameConflict: it has an alias of this name.
        """
        existing = self._existing()
        if existing is not None:
            self._create(existing)  # which compares the two
        findings = Findings()
        for batch in batches(self._source):
            self._check(batch, findings)
            self._find(existing, batch, findings)
            advance(len(batch.documents))
        return findings

    def owned(self) -> int:
        """Return how many documents the target has under this name."""
        existing = self._existing()
        return 0 if existing is None else existing.count()

    async def begin(self) -> None:
        """Make the collection in the target, unless it is there; raises as `examine` does."""
        existing = self._existing()
        collection, _ = await self._engine.write(self._create, existing)
        for precision in self._source.precisions():
            none = np.empty((0, self._source.dim), np.float32)
            await self._engine.write(partial(collection.upsert, [], none, precision=precision))

    async def run(self, copied: Copied, advance: Advance) -> None:
        """Copy the documents that the target does not have as they are here, and count them in `copied`."""
        target = self._engine.get(self.name)
        for batch in batches(self._source):
            equal = set(_equal(target, batch)[0])
            rest = batch.without(equal)
            if rest.documents:
                store = partial(target.upsert, rest.documents, rest.embedded, under=self._source.definition)
                await self._engine.write(store)
            copied.unchanged += len(equal)
            copied.copied += len(rest.documents)
            advance(len(batch.documents))

    def compare(self, advance: Advance) -> Findings:
        """Read every document from both engines, and return what differs."""
        target, findings = self._engine.get(self.name), Findings()
        for batch in batches(self._source):
            self._find(target, batch, findings)
            advance(len(batch.documents))
        return findings

    def _existing(self) -> Collection | None:
        """Return the collection of this name in the target; None where it has none or an alias."""
        try:
            found = self._engine.get(self.name)
        except NotFound:
            return None
        if found.name != self.name:
            raise NameConflict(f"{self.name!r} is an alias of collection {found.name!r}.")
        return found

    def _create(self, existing: Collection | None) -> tuple[Collection, bool]:
        source, target = self._source, self._engine
        tokenizer = source.tokenizer
        if target.default_tokenizer is None:
            tokenizer = None
        elif self._of.default_tokenizer is None:  # so that `source` has none, whatever it was copied from had
            tokenizer = self._tokenizer or (target.default_tokenizer if existing is None else existing.tokenizer)
        recall = source.recall if target.takes_recall else None
        return target.create(self.name, source.definition, source.dim, source.index_kind, recall, tokenizer)

    def _check(self, batch: Batch, findings: Findings) -> None:
        """Note which documents the target cannot hold."""
        try:
            self._engine.check(self._source.definition, self._source.dim, batch.documents, batch.embedded)
        except ServiceError as error:
            if len(batch.documents) == 1:
                detail, own = error.detail, batch.documents[0].id
                findings.refused.add(detail if repr(own) in detail else f"document {own!r}: {detail}")
            else:
                for half in batch.halves():
                    self._check(half, findings)

    def _find(self, target: Collection | None, batch: Batch, findings: Findings) -> None:
        """Note which documents the target has, and how."""
        findings.documents += len(batch.documents)
        if target is None:
            return
        equal, other = _equal(target, batch)
        findings.equal += len(equal)
        for document_id in other:
            findings.other.add(document_id)


def batches(collection: Collection) -> Iterator[Batch]:
    """Yield all documents of a collection with their vectors, in the order of storing, as many as one write takes."""
    documents: list[Document] = []
    vectors: list[Vectors] = []
    room = _MOST_BYTES
    for _, document, own in collection.exported():
        size = len(document.text) + own.nbytes
        alike = not documents or (documents[-1].spans is None) == (document.spans is None)
        if documents and (size > room or len(documents) == _MOST_DOCUMENTS or not alike):
            yield Batch(documents, vectors)
            documents, vectors, room = [], [], _MOST_BYTES
        documents.append(document)
        vectors.append(own)
        room -= size
    if documents:
        yield Batch(documents, vectors)


def _equal(target: Collection, batch: Batch) -> tuple[list[str], list[str]]:
    """Return the ids of the documents that a collection has as they are in a batch, and of those it has otherwise."""
    try:
        found, _ = target.fetch_many([document.id for document in batch.documents], vectors=True)
    except TooLarge:
        if len(batch.documents) == 1:
            raise
        (equal, other), (more, others) = (_equal(target, half) for half in batch.halves())
        return equal + more, other + others
    stored = {each.document.id: each for each in found}
    equal, other = [], []
    for document, vectors in zip(batch.documents, batch.vectors, strict=True):
        if (kept := stored.get(document.id)) is not None:
            (equal if _same(kept, document, vectors) else other).append(document.id)
    return equal, other


def _same(kept: Stored, document: Document, vectors: Vectors) -> bool:
    """Return whether a document is stored like this, and its vectors bit for bit."""
    assert kept.vectors is not None
    return (
        (kept.document.text, kept.document.spans) == (document.text, document.spans)
        and canonical_metadata(kept.document) == canonical_metadata(document)
        and kept.vectors.shape == vectors.shape
        and kept.vectors.astype(np.float32).tobytes() == vectors.astype(np.float32).tobytes()
    )

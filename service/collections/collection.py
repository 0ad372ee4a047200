"""One collection: its documents in the store, and the index over their vectors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from threading import Condition
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service import index as indexes
from service.arrays import Keys, Ordinals, Vectors
from service.collections.builder import Builder
from service.collections.fusion import Part, fuse
from service.collections.paging import Page, cursor_after, key_of
from service.collections.provenance import Definition
from service.collections.refinement import PLAIN, Candidate, Refinement
from service.collections.selection import Changed, Selection
from service.collections.stored import StoredVectors
from service.errors import InvalidInput, KeywordsUnavailable, NotFound, Place, StaleDefinition, TooLarge
from service.index import BuiltIndex, DamagedSnapshot, IndexState, IndexView, VectorIndex
from service.store import conditions
from service.store.document import (
    Document,
    Embedded,
    Span,
    Stored,
    checked_id,
    checked_text,
    checked_vectors,
    encoded_metadata,
    require_distinct,
    validate,
)
from service.store.filters import compile_filter
from service.store.keyword import UNAVAILABLE
from service.store.store import Store
from service.store.tokenizers import limited
from service.store.transaction import CollectionRow, RebuildRow, Transaction

logger = logging.getLogger(__name__)

DENSE: Final = "dense"
KEYWORD: Final = "keyword"
_FUSED, _LEAST_FUSED = 2, 100
"""How many candidates of each ranking are fused for one hit, and at least."""
_MOST_BYTES: Final = 1 << 25
"""Texts, metadata and vectors that are read at once, in bytes."""
_AT_ONCE: Final = 1000
"""Documents whose metadata are changed in one step of a transaction."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, or a span of one; `score` is by the collection's similarity."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    span: Span | None = None
    parts: Mapping[str, Part] | None = None
    """In a keyword or hybrid search, what each ranking gave it: `dense` and `keyword`."""
    vector: Vectors | None = field(default=None, compare=False)
    """Its vector (dim,), where that was asked for."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The definition that a collection is to have, and how many documents have their vectors under it."""

    definition: Definition
    done: int


@dataclass(frozen=True, slots=True)
class _Moment:
    """A collection as it is at one moment: a rebuild that ends meanwhile changes all three of them."""

    view: IndexView
    definition: Definition
    dim: int

    def checked(self, vectors: NDArray[np.floating[Any]]) -> Vectors:
        """Return queries (q, dim) as they are compared; raises `InvalidVector`."""
        queries = checked_vectors(vectors, self.dim)
        self.definition.similarity.check(queries)
        return queries

    def average(self, vectors: Vectors) -> Vectors:
        """Return the vector (dim,) of a document with vectors (n, dim): their average, as they are compared."""
        average: Vectors = (
            vectors[0] if len(vectors) == 1 else self.definition.similarity.prepared(vectors).mean(axis=0)
        )
        return average


class Collection:
    """Documents that can be searched by vector; every method is thread-safe.

    A document has one vector, or one for each of its spans. A search sees all of an upsert or none of it: the commit
    and the publishing of the changed index happen under a write lock, and under the read lock a search takes the
    index as it is together with a snapshot of the store. It goes on without a lock, so that neither waits for the
    other. Every method raises `NotFound` once the collection is dropped, and `StoreUnavailable` where
    the store cannot be read or written.

    A rebuild changes the definition and with it every vector: new vectors are collected beside those that are
    searched, over any number of runs of the process, and replace them all at once.
    """

    def __init__(self, store: Store, row: CollectionRow, builder: Builder, snapshots: Path) -> None:
        self.name = row.name
        self.created = row.created
        """In UTC."""
        self.index_kind = row.index_kind
        self.recall = row.recall
        """What was asked of an index that approximates; None for the kind's own."""
        self.definition = Definition.from_json(row.definition)
        """What its vectors are made under: what it was created with, or last rebuilt under."""
        self._store = store
        self._row = row
        self._builder = builder
        self._snapshots = snapshots
        self._lock = ReadWriteLock()
        self._dropped = False
        self.tokenizer = row.tokenizer
        """How its texts become terms; None where it has no keyword index."""
        self._index: VectorIndex | None = self._loaded_index()  # None where it must be loaded before the next change
        self._view: IndexView | None = self._index.view()  # what is searched; None where the next reader must load it
        self._ask_for_build()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._row.dim

    def count(self) -> int:
        """Return the number of documents."""
        with self._reading() as index:
            return index.count

    def chunks(self) -> int:
        """Return the number of vectors."""
        with self._reading() as index:
            return len(index)

    def memory_bytes(self) -> int:
        """Return the bytes of memory that the index holds."""
        with self._reading() as index:
            return index.memory_bytes

    def index_state(self) -> IndexState:
        """Return how the index searches now."""
        with self._reading() as index:
            return index.state

    def build(self, stopped: Callable[[], bool]) -> bool:
        """Build the part of the index that is due, aside from changes and searches, and publish it.

        Returns whether another is due already. Ends without it where `stopped` becomes true, where the collection
        is dropped or the index replaced meanwhile, or where it cannot be built, which the index's state then says.
        """
        with self._store.writing():  # keeps changes away
            index = self._index
            if not isinstance(index, BuiltIndex) or not index.due:
                return False
            begun = index.begin()
        part, failure = None, None
        try:
            part = begun.run(lambda: self._dropped or stopped())
        except Exception as error:
            failure = error
        with self._store.writing() as transaction:
            if self._index is not index:
                self._remove_snapshot(None if part is None else index.adopt(part))
                return True
            before, row = self._row.snapshot, self._row
            if failure is not None:
                logger.error("collection %r: the index cannot be built", self.name, exc_info=failure)
            if part is None:
                index.abandon(None if failure is None else f"the index cannot be built: {failure}")
            else:
                row = transaction.name_snapshot(row, index.adopt(part))
            with self._lock.writing():
                transaction.commit()
                self._row, self._view = row, index.view()
        if part is not None:
            self._remove_snapshot(before)
        return index.due

    def unchanged(self, documents: Sequence[Document], vectors: Mapping[str, Vectors] | None = None) -> set[str]:
        """Return the ids of the documents that are stored with equal text, metadata and, where given, spans.

        They need not be embedded again. Those that come with `vectors`, by id, are stored with equal ones too.
        Raises `InvalidDocument`.
        """
        asked = {checked_id(document.id): document for document in documents}
        with self._reading():
            stored = self._store.by_ids(self._row.key, list(asked))
            for document_id, kept in self._store.vectors_by_ids(self._row.key, list(vectors or ())).items():
                if vectors and not np.array_equal(kept, vectors[document_id].ravel()):
                    stored.pop(document_id, None)
        return {
            document_id
            for document_id, known in stored.items()
            if known.text == checked_text(asked[document_id])
            and asked[document_id].spans in (None, known.spans)
            and _canonical(known) == _canonical(asked[document_id])
        }

    def upsert(
        self,
        documents: Sequence[Document],
        vectors: Embedded,
        *,
        under: Definition | None = None,
        also: tuple[Definition, Embedded] | None = None,
        precision: str | None = None,
    ) -> int:
        """Store all documents with their vectors, or none, in place of those with the same ids; return their number.

        They are durable and can be found when it returns. `under` is the definition that the vectors were made under,
        where it may have changed since; `also` is another one with its vectors, for a rebuild under that definition.
        `precision` is that of the encoder, and is noted.
        Raises `InvalidDocument`, `InvalidVector`, `StaleDefinition`.
        """
        rows = [
            (checked_id(document.id), checked_text(document), encoded_metadata(document)) for document in documents
        ]
        require_distinct(documents)
        with self._store.writing() as transaction:
            self._require_present()
            self._require_current(under, self.definition)
            validated = validate(vectors, self.dim, len(rows))
            self.definition.similarity.check(validated.vectors)
            replaced, keys = transaction.put(self._row.key, rows, validated)
            if precision is not None:
                transaction.note_precision(self._row.key, precision)
            if also is not None:
                self._put_rebuilt(transaction, keys, *also, precision)
            self._publish(transaction, replaced, validated.repeated(keys), validated.vectors)
        return len(rows)

    def fetch(self, document_id: str) -> Document:
        """Return the document with an id; raises `NotFound`."""
        with self._reading():
            found = self._store.by_ids(self._row.key, [checked_id(document_id)])
        if not found:
            raise self._absent(document_id)
        return found[document_id]

    def delete(self, document_id: str) -> None:
        """Delete the document with an id, durably; raises `NotFound`."""
        with self._store.writing() as transaction:
            self._require_present()
            removed = transaction.delete(self._row.key, checked_id(document_id))
            if not len(removed):
                raise self._absent(document_id)
            self._publish(transaction, removed, np.empty(0, np.int64), np.empty((0, self.dim), np.float32))

    def search(
        self,
        vectors: NDArray[np.floating[Any]],
        k: int,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has in the HTTP contract
        *,
        grouped: bool = False,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` nearest documents to each query (q, dim), best first, or the nearest spans of documents.

        With `grouped`, a document counts once, by its nearest span; with `exact`, every vector is compared. Fewer
        than `k` come back only where fewer match the filter and the refinement. Equal scores are ordered by when the
        documents were stored, and by span. `under` is the definition that the queries were made under, where it may
        have changed since.
        Raises `InvalidVector`, `InvalidFilter`, `StaleDefinition`, and `ValueError` for a `k` below one.
        """
        condition = _condition(k, filter)
        with self._moment() as moment:
            self._require_current(under, moment.definition)
            queries = moment.checked(vectors)
            allowed = self._store.matching(self._row.key, condition) if condition else None
            found = moment.view.search(queries, refinement.depth(k), allowed, distinct=grouped, exact=exact)
            return self._hits(moment, _candidates(found), k, refinement)

    def terms(self, query: str, where: Place | None = None, *, truncate: bool = False) -> list[str]:
        """Return the terms of a query as keyword and hybrid searches take them; none where it has no word.

        `truncate` cuts off what is too much; `where` is the query's place for errors.
        Raises `KeywordsUnavailable`, `InvalidInput` where the tokenizer can find nothing by it, and `TooLong`.
        """
        if self.tokenizer is None:
            raise KeywordsUnavailable(
                f"collection {self.name!r} was created without a keyword index, so its texts are not searched by "
                "words. Use mode 'dense', or store its documents in one that is created with \"keyword\": "
                '{"tokenizer": "unicode61"}.'
            )
        if not self._store.has_keywords(self._row.key):
            raise KeywordsUnavailable(UNAVAILABLE)
        return limited(self.tokenizer.terms(query, where), where, truncate=truncate)

    def search_keywords(
        self,
        queries: Sequence[Sequence[str]],
        k: int,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` documents that match the terms of each query best, by BM25; a document counts once.

        Only those with at least one of the terms are hits, so that none come back for no term. Equal scores are
        ordered by when the documents were stored. Raises as `search` does.
        """
        condition = _condition(k, filter)
        with self._moment() as moment:
            allowed = self._store.matching(self._row.key, condition) if condition else None
            depth = refinement.depth(k)
            found = [fuse({KEYWORD: self._by_terms(terms, depth, allowed)}) for terms in queries]
            rankings = [
                [Candidate(one.item, one.parts[KEYWORD].score, None, one.parts) for one in fused] for fused in found
            ]
            return self._hits(moment, rankings, k, refinement)

    def search_hybrid(
        self,
        vectors: NDArray[np.floating[Any]],
        queries: Sequence[Sequence[str]],
        k: int,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        weights: Mapping[str, float] | None = None,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` best documents for each query by both its vector (dim) and its terms; see `fuse`.

        A document counts once, and has its nearest span. `weights` are those of the rankings `dense` and `keyword`,
        1 unless given; with `exact`, every vector is compared. Raises as `search` does.
        """
        condition = _condition(k, filter)
        depth = max(_FUSED * refinement.depth(k), _LEAST_FUSED)
        with self._moment() as moment:
            self._require_current(under, moment.definition)
            asked = moment.checked(vectors)
            allowed = self._store.matching(self._row.key, condition) if condition else None
            nearest = _candidates(moment.view.search(asked, depth, allowed, distinct=True, exact=exact))
            rankings = []
            for vector, dense, terms in zip(asked, nearest, queries, strict=True):
                by_vector = [(candidate.key, candidate.score) for candidate in dense]
                by_terms = self._by_terms(terms, depth, allowed)
                fused = fuse({DENSE: by_vector, KEYWORD: by_terms}, weights)[: refinement.depth(k)]
                places = {candidate.key: candidate.ordinal for candidate in dense}
                missing = np.array(sorted({one.item for one in fused} - places.keys()), np.int64)
                if len(missing) and moment.definition.chunking is not None:
                    (others,) = _candidates(moment.view.search(vector[None], len(missing), missing, distinct=True))
                    places |= {candidate.key: candidate.ordinal for candidate in others}
                rankings.append([Candidate(one.item, one.score, places.get(one.item), one.parts) for one in fused])
            return self._hits(moment, rankings, k, refinement)

    def recommend(
        self,
        positive: Sequence[str],
        negative: Sequence[str],
        k: int,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        grouped: bool = False,
        refinement: Refinement = PLAIN,
    ) -> tuple[list[Hit], Vectors]:
        """Return the `k` hits nearest to some documents and away from others, and the vector (dim,) that is asked by.

        That is the average of the positive ones, or with negative ones twice that less their average, as Qdrant's
        `average_vector` has it. A document with several spans counts by the average of their vectors. The given
        documents themselves are no hits.
        Raises `NotFound` for an id, `InvalidInput` where the vector has no direction, and as `search` does.
        """
        condition = _condition(k, filter)
        with self._moment() as moment:
            keys = self._store.keys_of(self._row.key, [checked_id(each) for each in (*positive, *negative)])
            for each in (*positive, *negative):
                if each not in keys:
                    raise self._absent(each)
            stored = self._store.vectors_at(moment.dim, [(keys[each], None) for each in (*positive, *negative)])
            averages = np.array([moment.average(own) for own in stored if own is not None], np.float64)
            vector: NDArray[np.float64] = averages[: len(positive)].mean(axis=0)
            if negative:
                vector = 2 * vector - averages[len(positive) :].mean(axis=0)
            if not vector.any():
                raise InvalidInput("the positive and the negative documents cancel out, which leaves no direction.")
            query = moment.checked(vector[None])
            allowed = self._store.matching(self._row.key, condition) if condition else None
            own_spans = len(keys) if grouped else sum(len(own) for own in stored if own is not None)
            found = _candidates(
                moment.view.search(query, refinement.depth(k) + own_spans, allowed, distinct=grouped)
            )[0]
            given = set(keys.values())
            others = [candidate for candidate in found if candidate.key not in given]
            return self._hits(moment, [others[: refinement.depth(k)]], k, refinement)[0], query[0]

    def _by_terms(self, terms: Sequence[str], depth: int, allowed: Keys | None) -> list[tuple[int, float]]:
        keys, scores = self._store.by_terms(self._row.key, terms, depth, allowed)
        return list(zip(keys.tolist(), scores.tolist(), strict=True))

    def _hits(
        self, moment: _Moment, rankings: Sequence[Sequence[Candidate]], k: int, refinement: Refinement
    ) -> list[list[Hit]]:
        """Return the hits of rankings of candidates, refined."""
        rankings = [refinement.kept(candidates) for candidates in rankings]
        if refinement.diversity is not None:
            rankings = [
                refinement.chosen(candidates, self._vectors(moment, candidates), moment.definition.similarity, k)
                for candidates in rankings
            ]
        rankings = [candidates[:k] for candidates in rankings]
        found = {candidate.key for candidates in rankings for candidate in candidates}
        documents = self._store.by_keys(np.array(sorted(found), np.int64))
        return [
            [
                _hit(documents[candidate.key], candidate, vector)
                for candidate, vector in zip(
                    candidates,
                    self._vectors(moment, candidates) if refinement.vectors else repeat(None),
                    strict=False,
                )
            ]
            for candidates in rankings
        ]

    def _vectors(self, moment: _Moment, candidates: Sequence[Candidate]) -> Vectors:
        """Return the vector of each candidate (n, dim): of its span, or of its document."""
        places = [(candidate.key, candidate.ordinal) for candidate in candidates]
        own = [moment.average(each) for each in self._store.vectors_at(moment.dim, places) if each is not None]
        return np.array(own, np.float32).reshape(-1, moment.dim)

    def page(
        self,
        limit: int,
        cursor: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - as in `search`
        *,
        vectors: bool = False,
    ) -> Page:
        """Return the next documents in the order of storing, of those that match the filter, from a cursor on.

        There are at most `limit`, and fewer where they are large. A document that is there from the first page to the
        last comes once, whatever is stored or deleted meanwhile; one that is replaced comes at the end, again if it
        had its turn. Raises `InvalidCursor`, `InvalidFilter`, and `ValueError` for a `limit` below one.
        """
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        condition = _compiled(filter)
        after = 0 if cursor is None else key_of(cursor, self._row.key, self.name)
        with self._reading():
            if condition is None:
                keys = self._store.keys(self._row.key, after, limit + 1)
            else:
                keys = self._store.matching(self._row.key, condition)
                keys = keys[np.searchsorted(keys, after, "right") :]
            found = self._store.read(keys[:limit], _MOST_BYTES, vectors=vectors)
        more = found and found[-1].key < keys[-1]
        return Page(found, cursor_after(self._row.key, found[-1].key) if more else None)

    def count_matching(self, filter: Mapping[str, Any]) -> int:  # noqa: A002 - as in `search`
        """Return the number of documents that match a filter; raises `InvalidFilter`."""
        condition = compile_filter(filter)
        with self._reading():
            return len(self._store.matching(self._row.key, condition))

    def fetch_many(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Stored], list[str]]:
        """Return the documents with these ids, in their order and each once, and the ids that no document has.

        Raises `InvalidDocument`, and `TooLarge` for more than can be read at once.
        """
        asked = list(dict.fromkeys(map(checked_id, ids)))
        with self._reading():
            keys = self._store.keys_of(self._row.key, asked)
            found = self._store.read(np.array(sorted(keys.values()), np.int64), _MOST_BYTES, vectors=vectors)
        if len(found) < len(keys):
            raise TooLarge(
                f"these {len(keys)} documents have more than {_MOST_BYTES} bytes together, which one answer takes; "
                "ask for fewer ids at once.",
                where=Place("ids"),
                limit=_MOST_BYTES,
            )
        by_id = {stored.document.id: stored for stored in found}
        return [by_id[id_] for id_ in asked if id_ in by_id], [id_ for id_ in asked if id_ not in by_id]

    def delete_many(self, selection: Selection) -> Changed:
        """Delete documents, all of them or none, durably; raises `InvalidDocument` and `InvalidFilter`."""
        with self._store.writing() as transaction:
            self._require_present()
            keys, missing = self._selected(transaction, selection)
            if len(keys):
                transaction.delete_keys(self._row.key, keys)
                self._publish(transaction, keys, np.empty(0, np.int64), np.empty((0, self.dim), np.float32))
        return Changed(len(keys), missing)

    def update_metadata(self, selection: Selection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Changed:
        """Replace the metadata of documents by what `change` makes of it, of all or of none, durably.

        Texts, vectors and keys stay, so that neither the index nor a rebuild is touched.
        Raises `InvalidDocument` and `InvalidFilter`.
        """
        with self._store.writing() as transaction:
            self._require_present()
            keys, missing = self._selected(transaction, selection)
            for start in range(0, len(keys), _AT_ONCE):
                before = transaction.metadata(keys[start : start + _AT_ONCE])
                after = (
                    (key, encoded_metadata(Document(document_id, "", change(json.loads(stored)))))
                    for key, document_id, stored in before
                )
                transaction.set_metadata(
                    self._row.key, [new for new, (*_, stored) in zip(after, before, strict=True) if new[1] != stored]
                )
            with self._lock.writing():
                transaction.commit()
        return Changed(len(keys), missing)

    def rename(self, transaction: Transaction, name: str) -> None:
        """Take another name and commit; called by `Collections.rename`."""
        row = transaction.rename(self._row, name)
        transaction.commit()
        self._row, self.name = row, name

    def copy(self, transaction: Transaction, name: str) -> CollectionRow:
        """Copy definition and documents to a new collection; called by `Collections.copy`."""
        self._require_present()
        return transaction.copy(self._row, name)

    def alias(self, transaction: Transaction, name: str) -> None:
        """Take a further name and commit; called by `Collections.alias`."""
        self._require_present()
        transaction.set_alias(name, self._row.key)
        transaction.commit()

    def stored_bytes(self) -> int:
        """Return the bytes that texts, metadata and vectors take in the store."""
        with self._reading():
            return self._store.stored_bytes(self._row.key)

    def _selected(self, transaction: Transaction, selection: Selection) -> tuple[Keys, list[str]]:
        """Return the keys of the selected documents, ascending, and the ids that no document has."""
        if selection.ids is not None:
            asked = list(dict.fromkeys(map(checked_id, selection.ids)))
            found = transaction.keys_of(self._row.key, asked)
            return np.array(sorted(found.values()), np.int64), [id_ for id_ in asked if id_ not in found]
        if selection.filter is not None:
            return self._store.matching(self._row.key, compile_filter(selection.filter)), []
        return transaction.keys(self._row.key), []

    def filter_warnings(self, filter: Mapping[str, Any]) -> list[str]:  # noqa: A002 - as in `search`
        """Return what of a filter can match nothing, as no document has such a field or value.

        Raises `InvalidFilter`.
        """
        condition = compile_filter(filter)
        with self._reading():
            return self._store.filter_warnings(self._row.key, condition)

    def precisions(self) -> list[str]:
        """Return in which precisions its vectors were made, as far as that was noted."""
        with self._reading():
            return self._store.precisions(self._row.key)

    def documents(self) -> Iterator[Document]:
        """Yield every document, in the order of storing; others may be stored meanwhile."""
        return self._store.documents(self._row.key)

    def exported(self) -> Iterator[tuple[Definition, Document, Vectors]]:
        """Yield every document with its vectors (spans or 1, dim) and the definition, in the order of storing.

        They are those of the moment of the first: what is stored meanwhile is not among them.
        """
        self._require_present()
        definition: Definition | None = None
        for stored, document, numbers in self._store.exported(self._row.key):
            definition = definition or Definition.from_json(stored)
            yield definition, document, numbers.reshape(1 if document.spans is None else len(document.spans), -1)

    def relabel(self, definition: Definition, rebuild: Definition | None) -> None:
        """Store another definition of the same vectors, durably, and one of the rebuild's where it is given."""
        with self._store.writing() as transaction:
            self._require_present()
            row = transaction.redefine(self._row, definition.to_json())
            if rebuild is not None:
                transaction.redefine_rebuild(row.key, rebuild.to_json())
            with self._lock.writing():
                transaction.commit()
                self._row, self.definition = row, definition

    def rebuild(self) -> Rebuild | None:
        """Return the rebuild that was begun, in this process or an earlier one, if there is one."""
        with self._reading() as index:
            begun = self._store.rebuild(self._row.key)
            if begun is None:
                return None
            done = max(index.count - self._store.count_unbuilt(self._row.key), 0)
            return Rebuild(Definition.from_json(begun.definition), done)

    def begin_rebuild(self, definition: Definition, dim: int) -> None:
        """Begin to collect vectors of `dim` numbers under a definition, or go on; any other rebuild is dropped."""
        asked = RebuildRow(definition.to_json(), dim)
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) != asked:
                transaction.end_rebuild(self._row.key)
                transaction.begin_rebuild(self._row.key, asked)
                transaction.commit()

    def unbuilt(self, after: int = 0, most: int = 64, characters: int = 262_144) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vectors for, with their keys, which are above `after`.

        There are at most `most` of them, and none after their texts have reached so many characters.
        """
        with self._reading():
            return self._store.unbuilt(self._row.key, after, most, characters)

    def put_rebuilt(
        self, definition: Definition, keys: Sequence[int], vectors: Embedded, precision: str | None = None
    ) -> None:
        """Store vectors of documents under the rebuild's definition; documents that no longer exist are ignored.

        Raises `InvalidVector`, and `StaleDefinition` where there is no rebuild under this definition.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if not self._put_rebuilt(transaction, keys, definition, vectors, precision):
                raise self._abandoned()
            transaction.commit()

    def finish_rebuild(self) -> bool:
        """Replace definition and vectors with the rebuilt ones, as one step for every reader.

        Returns whether it did, which it does not while a document lacks its rebuilt vectors. Raises `StaleDefinition`
        where there is no rebuild.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) is None:
                raise self._abandoned()
            before, row = self._row.snapshot, transaction.exchange(self._row)
            if row is None:
                return False
            index = _filled(self._empty_index(row), transaction.vectors(row.key, row.dim))
            with self._lock.writing():
                transaction.commit()
                self._row, self.definition = row, Definition.from_json(row.definition)
                self._index, self._view = index, index.view()
        self._remove_snapshot(before)
        self._ask_for_build()
        return True

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""
        with self._store.writing() as transaction:
            self._require_present()
            begun = transaction.rebuild(self._row.key) is not None
            transaction.end_rebuild(self._row.key)
            transaction.commit()
        return begun

    def drop(self, transaction: Transaction) -> None:
        """Delete everything and commit; called by `Collections.drop`, which also removes the name."""
        transaction.drop(self._row.key)
        with self._lock.writing():
            transaction.commit()
            self._dropped = True
            self._index = self._view = None
        self._remove_snapshot(self._row.snapshot)

    def _publish(self, transaction: Transaction, removed: Keys, added: Keys, vectors: Vectors) -> None:
        """Change the index, then commit and publish it, as one step for every reader."""
        index, self._index = self._index, None  # which is ahead of the store if the commit fails
        try:
            if index is None:
                index = self._loaded_index()
            index.remove(removed)
            index.add(added, vectors)
        except Exception:
            # Documents can be stored without it; the index must catch up.
            logger.exception("collection %r: index change failed; it will be rebuilt from the store", self.name)
            index = None
        with self._lock.writing():
            transaction.commit()
            self._index, self._view = index, None if index is None else index.view()
        self._ask_for_build()

    @contextmanager
    def _reading(self) -> Iterator[IndexView]:
        """Yield the index as it is now; what this thread reads from the store meanwhile agrees with it."""
        with self._moment() as moment:
            yield moment.view

    @contextmanager
    def _moment(self) -> Iterator[_Moment]:
        """Yield the collection as it is now; what this thread reads from the store meanwhile agrees with it."""
        with ExitStack() as until_read:
            while True:
                with self._lock.reading():
                    self._require_present()
                    if (view := self._view) is not None:
                        moment = _Moment(view, self.definition, self._row.dim)
                        until_read.enter_context(self._store.snapshot())
                        break
                with self._lock.writing():
                    self._require_present()
                    if self._view is None:
                        self._index = self._loaded_index()
                        self._view = self._index.view()
            yield moment

    def _loaded_index(self) -> VectorIndex:
        row, covered = self._row, 0
        index = self._empty_index(row)
        if row.snapshot is not None and isinstance(index, BuiltIndex):
            try:
                covered = index.restore(row.snapshot, self._store.keys(row.key))
            except (DamagedSnapshot, OSError) as error:
                logger.warning(
                    "collection %r: the snapshot of its index cannot be used (%s); the index is built anew, and "
                    "searches are exact until then",
                    *(self.name, error),
                )
                index = self._empty_index(row)
        return _filled(index, self._store.vectors(row.key, row.dim, covered))

    def _empty_index(self, row: CollectionRow) -> VectorIndex:
        similarity = Definition.from_json(row.definition).similarity
        source = StoredVectors(self._store, row.key, row.dim)
        return indexes.build(row.index_kind, row.dim, similarity, row.recall, self._snapshots, source)

    def _ask_for_build(self) -> None:
        if isinstance(self._index, BuiltIndex) and self._index.due:
            self._builder.ask(self, self.build)

    def _remove_snapshot(self, name: str | None) -> None:
        """Remove the files of a snapshot that are no part of the present one."""
        if name is not None:
            indexes.remove_snapshot(self._snapshots, name, None if self._dropped else self._row.snapshot)

    def _put_rebuilt(
        self,
        transaction: Transaction,
        keys: Sequence[int] | Keys,
        definition: Definition,
        vectors: Embedded,
        precision: str | None,
    ) -> bool:
        """Store rebuilt vectors; return whether there is a rebuild under this definition."""
        begun = transaction.rebuild(self._row.key)
        if begun is None or Definition.from_json(begun.definition) != definition:
            return False
        validated = validate(vectors, begun.dim, len(keys))
        definition.similarity.check(validated.vectors)
        transaction.put_rebuilt(keys, validated)
        if precision is not None:
            transaction.note_precision(self._row.key, precision, rebuilt=True)
        return True

    def _require_present(self) -> None:
        if self._dropped:
            raise NotFound(f"collection {self.name!r} was dropped.")

    def _require_current(self, under: Definition | None, definition: Definition) -> None:
        if under is not None and under != definition:
            raise StaleDefinition(f"collection {self.name!r} was rebuilt under another definition meanwhile.")

    def _abandoned(self) -> StaleDefinition:
        return StaleDefinition(f"the rebuild of collection {self.name!r} was abandoned.")

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"collection {self.name!r} has no document {document_id!r}.")


class ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before readers that come after it. Not reentrant.

    Without that preference, a steady stream of searches would keep an upsert waiting for ever.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def _filled(index: VectorIndex, blocks: Iterable[tuple[Keys, Vectors]]) -> VectorIndex:
    for keys, vectors in blocks:
        index.add(keys, vectors)
    return index


def _canonical(document: Document) -> str:
    """Return metadata as canonical JSON, in which 1, 1.0 and true differ and the order of keys does not matter."""
    return json.dumps(json.loads(encoded_metadata(document)), sort_keys=True)


def _condition(k: int, filter: Mapping[str, Any] | None) -> conditions.Condition | None:  # noqa: A002
    """Return a compiled filter, None where all match; raises `InvalidFilter`, and `ValueError` for a low `k`."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    return _compiled(filter)


def _compiled(filter: Mapping[str, Any] | None) -> conditions.Condition | None:  # noqa: A002
    """Return a compiled filter, None where all match; raises `InvalidFilter`."""
    return None if filter is None or filter == {} else compile_filter(filter)


def _candidates(found: tuple[Vectors, Keys, Ordinals]) -> list[list[Candidate]]:
    """Return what an index has found, by query."""
    return [
        [Candidate(key, score, ordinal) for score, key, ordinal in zip(*row, strict=True)]
        for row in zip(*(part.tolist() for part in found), strict=True)
    ]


def _hit(document: Document, candidate: Candidate, vector: Vectors | None) -> Hit:
    spans, ordinal = document.spans, candidate.ordinal
    span = spans[ordinal] if spans is not None and ordinal is not None else None
    return Hit(document.id, candidate.score, document.text, document.metadata, span, candidate.parts, vector)

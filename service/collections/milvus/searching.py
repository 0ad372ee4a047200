"""Searching a collection by vectors, and by documents that are like others.

Milvus finds candidates, more than are asked for; their scores are computed here from their vectors, so that they are
those of the embedded engine, and equal ones are ordered by when the documents were stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.collections.fusion import Part
from service.collections.milvus.client import MOST_ROWS, Row, as_vectors
from service.collections.milvus.generation import KINDS
from service.collections.milvus.moment import Moment
from service.collections.milvus.reading import Reading
from service.collections.milvus.rows import HEADS, document_of, owned_by, owner_of
from service.collections.milvus.schema import KEY, ORDINAL, OWNER, SEQUENCE, TEXT, VECTOR
from service.collections.milvus.terms import expression
from service.collections.protocols import Hit
from service.collections.provenance import Definition
from service.collections.refinement import PLAIN, Refinement
from service.errors import InvalidInput, KeywordsUnavailable, Place, TooLarge
from service.index import EXACT
from service.similarity import Similarity
from service.store.document import checked_ids, checked_vectors
from service.store.filters import AnyFilter, Filter, compiled

T = TypeVar("T")
NO_KEYWORDS: Final = (
    "the engine 'milvus' has no keyword and hybrid search: full text came with Milvus 2.5 and hybrid search with "
    "2.4, and Millpond uses what 2.3 has. Use mode 'dense', or the engine 'embedded'."
)
_MORE: Final = 16
"""Candidates beyond those that are asked for, among which equal scores are told apart."""
_MOST_NUMBERS: Final = 1 << 23
"""Numbers of the candidates' vectors in one answer of Milvus."""
_INEXACT: Final = 1e-5
"""By how much, as a share, what Milvus computes may differ from what is computed here."""
_MOST_WHOLE: Final = 256
"""Candidates that come with texts and metadata at once."""
_TRIES: Final = 8
_SEARCHES: Final = 12
"""Searches for one query, after which what they have found is enough."""


@dataclass(frozen=True, slots=True)
class Near:
    """A vector that a search found: of which document and place, and its score."""

    score: float
    sequence: int
    ordinal: int
    row: Row

    parts: Mapping[str, Part] | None = None

    @property
    def whole(self) -> bool:
        """Whether its row is a head that was read with all its columns."""
        return self.ordinal == 0 and TEXT in self.row

    @property
    def owner(self) -> str:
        """The document's."""
        owner: str = self.row[OWNER]
        return owner


class Searching(Reading):
    """The part of a collection that searches it."""

    def search(
        self,
        vectors: NDArray[np.floating[Any]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002 - the name it has in the HTTP contract
        *,
        grouped: bool = False,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` nearest documents to each query (q, dim), best first, or the nearest spans of documents."""
        condition = _condition(k, filter)

        def find(moment: Moment, heads: Heads) -> list[list[Hit]]:
            self._require_current(under, moment.generation)
            queries = _checked(moment, vectors)
            if exact and KINDS[moment.generation.index_kind].uses != EXACT:
                raise InvalidInput(
                    f"collection {self.name!r} has the index {moment.generation.index_kind!r}, and Milvus compares "
                    "every vector with the index 'flat' alone. Leave 'exact' out, or create it with that.",
                    where=Place("exact"),
                )
            depth = refinement.depth(k)
            found = nearest(moment, heads, queries, depth, condition, grouped)
            return [_hits(moment, heads, near, k, refinement) for near in found]

        return self._ranked(find)

    def terms(self, query: str, where: Place | None = None, *, truncate: bool = False) -> NoReturn:
        """Raise `KeywordsUnavailable`."""
        raise KeywordsUnavailable(NO_KEYWORDS)

    def search_keywords(
        self,
        queries: Sequence[Sequence[str]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        refinement: Refinement = PLAIN,
    ) -> NoReturn:
        """Raise `KeywordsUnavailable`."""
        raise KeywordsUnavailable(NO_KEYWORDS)

    def search_hybrid(
        self,
        vectors: NDArray[np.floating[Any]],
        queries: Sequence[Sequence[str]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        weights: Mapping[str, float] | None = None,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> NoReturn:
        """Raise `KeywordsUnavailable`."""
        raise KeywordsUnavailable(NO_KEYWORDS)

    def recommend(
        self,
        positive: Sequence[str],
        negative: Sequence[str],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        grouped: bool = False,
        refinement: Refinement = PLAIN,
    ) -> tuple[list[Hit], Vectors]:
        """Return the `k` hits nearest to some documents and away from others, and the vector (dim,) asked by."""
        condition = _condition(k, filter)
        owners = {
            id_: owner_of(id_) for id_ in [*checked_ids(positive, "positive"), *checked_ids(negative, "negative")]
        }

        def find(moment: Moment, heads: Heads) -> tuple[list[Hit], Vectors]:
            found = moment.read([*owners.values()], vectors=True)
            averages = []
            for each in (*positive, *negative):
                kept = found.get(owners[each])
                if kept is None or kept.vectors is None:
                    raise self._absent(each)
                averages.append(np.asarray(moment.average(kept.vectors), np.float64))
            of = np.array(averages)
            vector: NDArray[np.float64] = of[: len(positive)].mean(axis=0)
            if negative:
                vector = 2 * vector - of[len(positive) :].mean(axis=0)
            if not vector.any():
                raise InvalidInput(
                    "the positive and the negative documents cancel out, which leaves no direction.",
                    where=Place("negative" if negative else "positive"),
                )
            query = _checked(moment, vector[None])
            depth = refinement.depth(k)
            near = nearest(moment, heads, query, depth, condition, grouped, without=[*owners.values()])[0]
            return _hits(moment, heads, near, k, refinement), query[0]

        return self._ranked(find)

    def _ranked(self, find: Callable[[Moment, Heads], T]) -> T:
        """Return what a search finds, with the heads of the documents as they were at its moment.

        Milvus answers each call as of its own moment. Where a document was stored anew between the search and the
        reading of its head, both are asked again.
        """
        heads = Heads({})
        for _ in range(_TRIES):
            found = self._reading(partial(_with_heads, find, heads))
            if not heads.moved:
                break
            heads = Heads({owner: None if head is None else int(head[SEQUENCE]) for owner, head in heads.now.items()})
        return found


def _with_heads(find: Callable[[Moment, Heads], T], heads: Heads, moment: Moment) -> T:
    return find(moment, heads)


class Heads:
    """The heads of documents that a search has found.

    Args:
        before: the numbers of those that were read before the search began, None for one that was not there. What the
            search has found of another number and is the same now is left over from an earlier storing.
    """

    def __init__(self, before: Mapping[str, int | None]) -> None:
        self._before = before
        self.now: dict[str, Row | None] = {}
        self.moved = False

    def read(self, moment: Moment, near: Sequence[Near]) -> None:
        """Read the heads of candidates that do not have them."""
        owners = sorted({each.owner for each in near if not each.whole} - self.now.keys())
        found = moment.heads(owners, HEADS) if owners else {}
        self.now |= {owner: found.get(owner) for owner in owners}

    def of(self, near: Near) -> Row | None:
        """Return the head of a candidate, which was read; None where the candidate is not of it."""
        if near.whole:
            return near.row
        head = self.now[near.owner]
        number = None if head is None else int(head[SEQUENCE])
        if number == near.sequence:
            return head
        self.moved |= near.ordinal == 0 or near.owner not in self._before or self._before[near.owner] != number
        return None


def _hits(moment: Moment, heads: Heads, near: Sequence[Near], k: int, refinement: Refinement) -> list[Hit]:
    """Return the hits of candidates that are one ranking, refined."""
    kept = refinement.kept(near)
    if refinement.diversity is not None:
        own = as_vectors([each.row for each in kept], moment.generation.dim)
        kept = refinement.chosen(kept, own, moment.generation.similarity, k)
    kept = kept[:k]
    heads.read(moment, kept)
    found = [(each, heads.of(each)) for each in kept]
    return [_hit(head, each, vector=refinement.vectors) for each, head in found if head is not None]


def nearest(
    moment: Moment,
    heads: Heads,
    queries: Vectors,
    depth: int,
    condition: Filter | None,
    grouped: bool,
    without: Sequence[str] = (),
) -> list[list[Near]]:
    """Return the `depth` nearest spans to each query (q, dim), or with `grouped` the nearest span of each document.

    None are of the documents `without`. Rows of an earlier storing of a document are left out.
    """
    if depth > MOST_ROWS - _MORE:
        raise TooLarge(
            f"a search in Milvus gives up to {MOST_ROWS - _MORE} hits; ask for fewer.",
            where=Place("k"),
            limit=MOST_ROWS - _MORE,
        )
    where = [] if condition is None else [expression(condition.condition)]
    if without:
        where.append(f"not ({owned_by(without)})")
    limit = min(depth + _MORE if not grouped else 3 * depth + _MORE, MOST_ROWS)
    at_once = max(_MOST_NUMBERS // (limit * moment.generation.dim), 1)
    found: list[list[Near]] = []
    for start in range(0, len(queries), at_once):
        block = queries[start : start + at_once]
        prepared = moment.generation.similarity.prepared(block)
        rows = _search(moment, prepared, limit, where)
        for query, prepared_query, first in zip(block, prepared, rows, strict=True):
            found.append(_settled(moment, heads, query, prepared_query, depth, where, grouped, limit, first))
    return found


def _settled(
    moment: Moment,
    heads: Heads,
    query: Vectors,
    prepared: Vectors,
    depth: int,
    where: Sequence[str],
    grouped: bool,
    limit: int,
    rows: list[Row],
) -> list[Near]:
    """Return the ranking of one query, for which Milvus is asked again until it is certain.

    It is where Milvus has no more rows, or enough of those that it gave are better than the last one.
    """
    similarity = moment.generation.similarity
    kept: dict[str, Near] = {}
    for _ in range(_SEARCHES):
        near, last = _scored(similarity, query, rows, moment.generation.dim)
        kept |= {each.row[KEY]: each for each in near}
        ranking = _ranked(moment, heads, list(kept.values()), grouped)
        if len(rows) < limit:
            return ranking[:depth]
        certain = [each for each in ranking if each.score > last]
        if len(certain) >= depth:
            return ranking[:depth]
        if limit < MOST_ROWS:
            limit = min(4 * limit, MOST_ROWS)
            (rows,) = _search(moment, prepared[None], limit, where)
        elif grouped:  # what is found already is left out, or a document with very many spans would hide others
            seen = sorted({each.owner for each in kept.values()})
            (rows,) = _search(moment, prepared[None], limit, [*where, f"not ({owned_by(seen)})"])
        else:
            break
    return _ranked(moment, heads, list(kept.values()), grouped)[:depth]


def _search(moment: Moment, prepared: Vectors, limit: int, where: Sequence[str]) -> list[list[Row]]:
    generation = moment.generation
    columns = [KEY, ORDINAL, VECTOR, *(HEADS if limit <= _MOST_WHOLE else (OWNER, SEQUENCE))]
    return moment.client.search(
        generation.read_as,
        prepared,
        limit,
        " and ".join(f"({part})" for part in where),
        columns,
        generation.searched_by(limit),
        moment.at,
    )


def _scored(similarity: Similarity, query: Vectors, rows: Sequence[Row], dim: int) -> tuple[list[Near], float]:
    """Return rows with their scores, and the score above which none can be missing from them."""
    if not rows:
        return [], -np.inf
    vectors = similarity.prepared(as_vectors(rows, dim))
    asked = similarity.prepared(query[None])[0]
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1).max(), np.linalg.norm(asked.astype(np.float64))
    if similarity.metric == "inner product":
        metric = vectors @ asked
        margin = metric.min() + _INEXACT * lengths[0] * lengths[1]
    else:
        metric = np.square(vectors - asked).sum(axis=1)
        margin = max(metric.max() - _INEXACT * (lengths[0] ** 2 + lengths[1] ** 2), 0)
    scores = similarity.scores(metric)
    last = float(similarity.scores(np.array([margin], np.float32))[0])
    near = [
        Near(float(score), int(row[SEQUENCE]), int(row[ORDINAL]), row)
        for score, row in zip(scores, rows, strict=True)
    ]
    return near, last


def _ranked(moment: Moment, heads: Heads, near: list[Near], grouped: bool) -> list[Near]:
    """Return candidates of documents as they are now, best first, and with `grouped` the best of each document."""
    spans = [each for each in near if each.ordinal > 0]
    heads.read(moment, spans)
    near = [each for each in near if each.ordinal == 0 or heads.of(each) is not None]
    near.sort(key=lambda each: (-each.score, each.sequence, each.ordinal))
    if not grouped:
        return near
    best: dict[str, Near] = {}
    for each in near:
        best.setdefault(each.owner, each)
    return list(best.values())


def _checked(moment: Moment, vectors: NDArray[np.floating[Any]]) -> Vectors:
    """Return queries (q, dim) as they are compared; raises `InvalidVector`."""
    queries = checked_vectors(vectors, moment.generation.dim)
    moment.generation.similarity.check(queries)
    return queries


def _condition(k: int, filter: AnyFilter | None) -> Filter | None:  # noqa: A002
    """Return a compiled filter, None where all match; raises `InvalidFilter`, and `ValueError` for a low `k`."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    return compiled(filter)


def _hit(head: Row, near: Near, *, vector: bool) -> Hit:
    document = document_of(head)
    span = document.spans[near.ordinal] if document.spans is not None else None
    own = np.asarray(near.row[VECTOR], np.float32) if vector else None
    return Hit(document.id, near.score, document.text, document.metadata, span, None, own)

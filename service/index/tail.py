"""What indexes share of which a part is built aside: a body that was built, and the tail of what came since."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Generic, Protocol, Self, TypeVar

import numpy as np

from service.arrays import Keys, Ordinals, Vectors
from service.errors import InvalidIndex, Place
from service.index.base import NO_VECTORS, Build, BuiltIndex, IndexState, Part, VectorSource
from service.index.flat import ExactView, merged
from service.index.rows import Rows
from service.similarity import Similarity

LEAST_RECALL: Final = 0.5
MOST_RECALL: Final = 0.999


class Body(Protocol):
    """The vectors of an index but for those of the tail, whose keys are all above. It never changes."""

    @property
    def uses(self) -> str:
        """What it is searched by."""

    @property
    def last(self) -> int:
        """The highest key."""

    @property
    def length(self) -> int:
        """How many vectors there are still."""

    @property
    def count(self) -> int:
        """How many keys they have."""

    @property
    def deleted(self) -> int:
        """How many vectors were removed."""

    @property
    def pending(self) -> int:
        """Vectors that are compared one by one until they are built."""

    @property
    def recall(self) -> float | None:
        """As it was measured; None where nothing is built."""

    @property
    def keys(self) -> Keys:
        """The keys that are there still, ascending, each once."""

    @property
    def memory_bytes(self) -> int:
        """Bytes that it holds."""

    def __len__(self) -> int:
        """Return the number of vectors, with those that were removed."""

    def worn(self, share: float) -> bool:
        """Whether a build is due however short the tail is, as when more than a share of the vectors was removed."""

    def without(self, keys: Keys) -> Self:
        """Return the body without the vectors of `keys`; absent keys are ignored."""

    def search(
        self, queries: Vectors, k: int, allowed: Keys | None, *, grouped: bool, exact: bool
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search with prepared queries (q, dim), as `IndexView` describes."""


B = TypeVar("B", bound=Body)


@dataclass(frozen=True, eq=False)
class TailedView(Generic[B]):
    """The vectors of a body, if there is one, and those of the tail."""

    tail: ExactView
    body: B | None
    target: float
    problem: str | None = None
    failed_at: int = 0
    """How many were pending when a build failed; 0 where none did."""

    def __len__(self) -> int:
        return len(self.tail) + (0 if self.body is None else self.body.length)

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.tail.count + (0 if self.body is None else self.body.count)

    @property
    def keys(self) -> Keys:
        """The keys, ascending, each once."""
        return self.tail.keys if self.body is None else np.concatenate([self.body.keys, self.tail.keys])

    @property
    def memory_bytes(self) -> int:
        """Bytes held by codes, vectors of the tail and keys."""
        return self.tail.memory_bytes + (0 if self.body is None else self.body.memory_bytes)

    @property
    def pending(self) -> int:
        """Vectors that are compared one by one."""
        return len(self.tail) + (0 if self.body is None else self.body.pending)

    @property
    def state(self) -> IndexState:
        """How it searches."""
        if self.body is None or (recall := self.body.recall) is None:
            return IndexState(problem=self.problem)
        problem = self.problem
        if problem is None and recall < self.target:
            problem = f"a recall of {self.target:g} is not met; {recall:.3f} is what the index reaches at most"
        body = self.body
        return IndexState(body.uses, self.pending, body.deleted, self.target, round(recall, 4), problem)

    def with_tail(self, rows: Rows) -> TailedView[B]:
        """Return the view with another tail."""
        return replace(self, tail=replace(self.tail, rows=rows))

    def with_body(self, body: B | None) -> TailedView[B]:
        """Return the view with another body, and without what that covers in the tail."""
        view = replace(self, body=body, problem=None, failed_at=0)
        return view if body is None else view.with_tail(self.tail.rows.after(body.last))

    def without(self, keys: Keys) -> TailedView[B]:
        """Return the view without the vectors of `keys`; absent keys are ignored."""
        view = self.with_tail(self.tail.rows.without(keys))
        return view if view.body is None else replace(view, body=view.body.without(keys))

    def search(
        self,
        vectors: Vectors,
        k: int,
        allowed: Keys | None = None,
        *,
        distinct: bool = False,
        exact: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search as `IndexView` describes."""
        queries = self.tail.similarity.prepared(vectors)
        if self.body is None:
            return self.tail.search_prepared(queries, k, allowed, grouped=distinct)
        found = self.body.search(queries, k, allowed, grouped=distinct, exact=exact)
        if not len(self.tail):
            return found
        return merged(k, [found, self.tail.search_prepared(queries, k, allowed, grouped=distinct)])


class TailedIndex(BuiltIndex[Part], Generic[B, Part]):
    """A body that is searched approximately, and a tail that is compared one by one.

    What is removed is left out of the answers of the body, and what is added goes to the tail, until either is so
    much that another body is built. As long as there are few vectors, all of them are the tail, and the search is
    exact.
    """

    exact_below: ClassVar[int]
    """Vectors from which on there is a body."""
    most_tail: ClassVar[int]
    """Vectors of the tail, a few milliseconds' worth, beyond which they are put into the body; more beside a large
    one."""
    most_of_body: ClassVar[float] = 0.0
    """The same as a share of the body."""
    most_deleted: ClassVar[float] = 0.25
    """Share of the vectors of what is built whose removal makes a build due."""

    def __init__(
        self,
        dim: int,
        similarity: Similarity,
        recall: float | None = None,
        folder: Path | None = None,
        source: VectorSource = NO_VECTORS,
    ) -> None:
        recall = self.default_recall if recall is None else recall
        if not LEAST_RECALL <= recall <= MOST_RECALL:
            raise InvalidIndex(
                f"recall {recall:g} is not from {LEAST_RECALL} to {MOST_RECALL}; to find all of the nearest, choose "
                "the index 'flat'.",
                where=Place("recall"),
            )
        self._similarity = similarity
        self._recall = recall
        self._folder = folder
        self._source = source
        self._view: TailedView[B] = TailedView(ExactView(similarity, Rows(dim, similarity.metric)), None, recall)
        self._removed: list[Keys] | None = None  # since the build began

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        tail = self._view.tail
        self._view = self._view.with_tail(tail.rows.added(keys, self._similarity.prepared(vectors)))

    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""
        self._view = self._view.without(keys)
        last = self._view.tail.rows.last
        if self._removed is not None and last is not None:
            self._removed.append(keys[keys <= last])  # others may be added yet

    def view(self) -> TailedView[B]:
        """Return what the index holds now."""
        return self._view

    @property
    def due(self) -> bool:
        """Whether a build is due."""
        view, pending = self._view, self._view.pending
        if self._removed is not None:
            return False
        postponed = view.failed_at > 0 and pending < 1.5 * view.failed_at  # another build would fail as well
        if view.body is None:
            return pending >= self.exact_below and not postponed
        many = pending > max(self.most_tail, self.most_of_body * len(view.body))
        return (many or view.body.worn(self.most_deleted)) and not postponed

    def begin(self) -> Build[Part]:
        """Begin to build a part from what the index holds now."""
        self._removed = []
        return self._build()

    @abstractmethod
    def _build(self) -> Build[Part]:
        """Return what builds the part that is due."""

    def abandon(self, problem: str | None = None) -> None:
        """Give up the build that was begun."""
        self._removed = None
        self._view = replace(self._view, problem=problem, failed_at=max(1, self._view.pending) if problem else 0)

    def _replace_body(self, body: B | None) -> None:
        """Search with another body, without what was removed since the build of it began."""
        removed, self._removed = self._removed or [], None
        self._view = self._view.with_body(body)
        if removed:
            self._view = self._view.without(np.concatenate(removed))

    def _restore(self, body: B) -> int:
        """Fill an empty index with a body that was restored; return the highest key that it covers."""
        self._view = self._view.with_body(body)
        self._view = self._view.with_tail(replace(self._view.tail.rows, last=body.last))
        return body.last

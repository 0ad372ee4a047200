"""The protocols of an engine: what the service asks of whatever keeps documents, vectors and metadata together.

All that is outside an engine knows these protocols and the values that pass through them. How an engine stores and
searches is its own affair; `deployment.py` chooses and builds it. Every method that reads or writes may raise
`StoreUnavailable`, and all are thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.collections.fusion import Part
from service.collections.provenance import Definition
from service.collections.refinement import PLAIN, Refinement
from service.collections.selection import Changed, Selection
from service.errors import Place
from service.index import IndexState
from service.observation import Histogram
from service.store.document import Document, Embedded, Span, Stored
from service.store.filters import AnyFilter
from service.store.space import Space
from service.store.tokenizers import Tokenizer

NAME: Final = "[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
"""The regular expression of what a collection or an alias may be called."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, or a span of one; `score` is by the collection's similarity."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    span: Span | None = None
    parts: Mapping[str, Part] | None = None
    """In a keyword or hybrid search, what each ranking gave it: `dense` and `keyword`. Where it was re-ranked, also
    what it had before, under the name of the mode."""
    vector: Vectors | None = field(default=None, compare=False)
    """Its vector (dim,), where that was asked for."""


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in the order of storing; `cursor` leads to those that follow, None where none do."""

    documents: Sequence[Stored]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The definition that a collection is to have, and how many documents have their vectors under it."""

    definition: Definition
    done: int


class Collection(Protocol):
    """Documents that can be searched by vector and by words.

    A document has one vector, or one for each of its spans. A search sees all of a change or none of it. Every method
    raises `NotFound` once the collection is dropped.

    A rebuild changes the definition and with it every vector: new vectors are collected beside those that are
    searched, over any number of runs of the process, and replace them all at once.
    """

    @property
    def name(self) -> str:
        """Its own name, which may change."""

    @property
    def created(self) -> datetime:
        """In UTC."""

    @property
    def definition(self) -> Definition:
        """What its vectors are made under: what it was created with, or last rebuilt under."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    @property
    def index_kind(self) -> str:
        """The kind of index that it was created with."""

    @property
    def recall(self) -> float | None:
        """What was asked of an index that approximates; None for the kind's own."""

    @property
    def idle_timeout(self) -> int | None:
        """Seconds without use after which the service drops it; None: never. The engine keeps the number alone."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """How its texts become terms; None where it has no keyword index."""

    # What it holds

    def count(self) -> int:
        """Return the number of documents."""

    def chunks(self) -> int:
        """Return the number of vectors."""

    def memory_bytes(self) -> int:
        """Return the bytes of memory that its index holds in this process."""

    def stored_bytes(self) -> int:
        """Return the bytes that texts, metadata and vectors take in the store."""

    def precisions(self) -> list[str]:
        """Return in which precisions its vectors were made, as far as that was noted."""

    def index_state(self) -> IndexState:
        """Return how it is searched by vectors now."""

    # Documents

    def fetch(self, document_id: str) -> Document:
        """Return the document with an id; raises `NotFound`."""

    def fetch_many(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Stored], list[str]]:
        """Return the documents with these ids, in their order and each once, and the ids that no document has.

        Raises `InvalidDocument`, and `TooLarge` for more than can be read at once.
        """

    def page(
        self,
        limit: int,
        cursor: str | None = None,
        filter: AnyFilter | None = None,  # noqa: A002 - the name it has in the HTTP contract
        *,
        vectors: bool = False,
    ) -> Page:
        """Return the next documents in the order of storing, of those that match the filter, from a cursor on.

        There are at most `limit`, and fewer where they are large. A document that is there from the first page to the
        last comes once, whatever is stored or deleted meanwhile; one that is replaced comes at the end, again if it
        had its turn. Raises `InvalidCursor`, `InvalidFilter`, and `ValueError` for a `limit` below one.
        """

    def count_matching(self, filter: AnyFilter | None) -> int:  # noqa: A002
        """Return the number of documents that match a filter, None for all; raises `InvalidFilter`."""

    def documents(self) -> Iterator[Document]:
        """Yield every document, in the order of storing; others may be stored meanwhile."""

    def exported(self) -> Iterator[tuple[Definition, Document, Vectors]]:
        """Yield every document with its vectors (spans or 1, dim) and the definition, in the order of storing.

        They are those of the moment of the first: what is stored meanwhile is not among them.
        """

    def unchanged(self, documents: Sequence[Document], vectors: Mapping[str, Vectors] | None = None) -> set[str]:
        """Return the ids of the documents that are stored with equal text, metadata and, where given, spans.

        They need not be embedded again. Those that come with `vectors`, by id, are stored with equal ones too.
        Raises `InvalidDocument`.
        """

    # Changes; each is run by `Engine.write`

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

    def delete(self, document_id: str) -> None:
        """Delete the document with an id, durably; raises `NotFound`."""

    def delete_many(self, selection: Selection) -> Changed:
        """Delete documents, all of them or none, durably; raises `InvalidDocument` and `InvalidFilter`."""

    def update_metadata(self, selection: Selection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Changed:
        """Replace the metadata of documents by what `change` makes of it, of all or of none, durably.

        Raises `InvalidDocument` and `InvalidFilter`.
        """

    def relabel(self, definition: Definition, rebuild: Definition | None) -> None:
        """Store another definition of the same vectors, durably, and one of the rebuild's where it is given."""

    # Searches

    def search(
        self,
        vectors: NDArray[np.floating[Any]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
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

    def terms(self, query: str, where: Place | None = None, *, truncate: bool = False) -> list[str]:
        """Return the terms of a query as keyword and hybrid searches take them; none where it has no word.

        `truncate` cuts off what is too much; `where` is the query's place for errors.
        Raises `KeywordsUnavailable`, `InvalidInput` where the tokenizer can find nothing by it, and `TooLong`.
        """

    def search_keywords(
        self,
        queries: Sequence[Sequence[str]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` documents that match the terms of each query best, by BM25; a document counts once.

        Only those with at least one of the terms are hits, so that none come back for no term. Equal scores are
        ordered by when the documents were stored. Raises as `search` does.
        """

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
    ) -> list[list[Hit]]:
        """Return the `k` best documents for each query by both its vector (dim) and its terms; see `fuse`.

        A document counts once, and has its nearest span. `weights` are those of the rankings `dense` and `keyword`,
        1 unless given; with `exact`, every vector is compared. Raises as `search` does.
        """

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
        """Return the `k` hits nearest to some documents and away from others, and the vector (dim,) that is asked by.

        That is the average of the positive ones, or with negative ones twice that less their average, as Qdrant's
        `average_vector` has it. A document with several spans counts by the average of their vectors. The given
        documents themselves are no hits.
        Raises `NotFound` for an id, `InvalidInput` where the vector has no direction, and as `search` does.
        """

    # Rebuilds; each change is run by `Engine.write`

    def rebuild(self) -> Rebuild | None:
        """Return the rebuild that was begun, in this process or an earlier one, if there is one."""

    def begin_rebuild(self, definition: Definition, dim: int) -> None:
        """Begin to collect vectors of `dim` numbers under a definition, or go on; any other rebuild is dropped."""

    def unbuilt(
        self, after: int | None = None, most: int = 64, characters: int = 262_144
    ) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vectors for, behind the one with the key `after`.

        A key is a number that the engine alone understands. There are at most `most` documents, and none after their
        texts have reached so many characters.
        """

    def put_rebuilt(
        self, definition: Definition, keys: Sequence[int], vectors: Embedded, precision: str | None = None
    ) -> None:
        """Store vectors of documents under the rebuild's definition, by the keys that `unbuilt` gave.

        Documents that were deleted or replaced since are ignored.
        Raises `InvalidVector`, and `StaleDefinition` where there is no rebuild under this definition.
        """

    def finish_rebuild(self) -> bool:
        """Replace definition and vectors with the rebuilt ones, as one step for every reader.

        Returns whether it did, which it does not while a document lacks its rebuilt vectors. Raises `StaleDefinition`
        where there is no rebuild.
        """

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""


class Engine(Protocol):
    """Collections by name.

    An alias is a further name of a collection, and no collection has it as its own. `get` takes either. A collection
    is the same object for as long as the engine is open, whatever its name.
    """

    @property
    def default_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that a collection is to have unless another is asked for; None where none can have any."""

    @property
    def takes_recall(self) -> bool:
        """Whether it can be asked how many of the nearest an index that approximates is to find."""

    def check(self, definition: Definition, dim: int, documents: Sequence[Document], vectors: Embedded) -> None:
        """Check that a collection of a definition and dimension could store documents; nothing is stored.

        Raises `InvalidDocument` and `InvalidVector`, as `Collection.upsert` does.
        """

    def get(self, name: str) -> Collection:
        """Return the collection with a name or an alias; raises `NotFound`."""

    def list(self) -> Sequence[Collection]:
        """Return all collections, by name."""

    def aliases(self) -> Mapping[str, Collection]:
        """Return the collection that each alias stands for, by alias."""

    def create(
        self,
        name: str,
        definition: Definition,
        dim: int,
        index: str | None = None,
        recall: float | None = None,
        tokenizer: Tokenizer | None = ...,
        idle_timeout: int | None = None,
    ) -> tuple[Collection, bool]:
        """Create a collection, or return the equal one that exists, and whether it is new.

        Without a tokenizer, it has no keyword index; unless one is given, it has the `default_tokenizer`. One that
        exists has its own kind of index, recall and idle timeout, where none is asked for.

        Raises `InvalidName`, `InvalidIndex`, `InvalidVector` for a `dim` that cannot be, `KeywordsUnavailable` where
        the engine has no keyword index, `InvalidInput` where it has no idle timeout, `Conflict` where the name exists
        with another definition, dimension, kind of index, recall, tokenizer or idle timeout, and `NameConflict` where
        it is an alias.
        """

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents and aliases; raises `NotFound` and `NameConflict`."""

    def rename(self, name: str, to: str) -> Collection:
        """Give a collection another name, durably; its aliases stay.

        Raises `NotFound`, `InvalidName`, and `NameConflict` where `to` is taken or `name` is an alias.
        """

    def copy(self, name: str, to: str) -> Collection:
        """Copy a collection with all its documents to a new one, all or nothing, durably.

        Aliases, an idle timeout and a rebuild that was begun are not copied. Searches go on meanwhile, and changes
        wait.
        Raises `NotFound`, `InvalidName`, and `NameConflict` where `to` is taken.
        """

    def alias(self, alias: str, name: str) -> tuple[Collection, bool]:
        """Make an alias stand for a collection, in one step where it stood for another one, durably.

        Returns the collection, and whether the alias is new. Raises `NotFound`, `InvalidName`, and `NameConflict`
        where a collection has the alias as its name.
        """

    def delete_alias(self, alias: str) -> None:
        """Delete an alias, durably, and leave the collection as it is; raises `NotFound`."""

    async def compact(self, *, rebuild: bool = False) -> tuple[Space, Space]:
        """Give the free space of the store back to the disk; return its space before and after.

        It is done in small steps, between which other changes are made. Where that cannot be, all changes wait for
        it, and it is refused without `rebuild`. Raises `InvalidInput`, and `NoSpace` where the disk has no room.
        """

    async def look(self, read: Callable[..., T], *arguments: Any) -> T:
        """Run a read of names, `get` and the like, for the event loop: on a thread where it may wait for a server."""

    async def write(self, change: Callable[..., T], *arguments: Any, together: bool = False) -> T:
        """Run a change of this engine or its collections, to its end even if the client that asked for it has left.

        The changes of a process run one after another: what one of them reads holds until it is done. With
        `together`, a small change of documents may become durable together with others that wait; each is made or
        fails by itself all the same.
        """

    @property
    def commits(self) -> Histogram:
        """How many seconds each commit of changes took, so far."""

    def close(self) -> None:
        """Finish the changes in progress; later calls raise `StoreUnavailable`."""

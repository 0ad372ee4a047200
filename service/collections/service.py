"""Documents in, hits out: collections whose vectors come from the served models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pooling.layers import LayerSpec
from service.arrays import Vectors
from service.collections import Changed, Collection, Engine, Hit, Page, Selection
from service.collections.idle import Idle
from service.collections.intake import (
    FAULTS,
    MOST_NAMED,
    Admitted,
    Incoming,
    Items,
    assembled,
    faults,
    place,
    sort_out,
)
from service.collections.lanes import Lanes
from service.collections.provenance import (
    Definition,
    carried_over,
    changed_rules,
    define,
    define_foreign,
    mismatch,
    unserved,
)
from service.collections.refinement import MOST_DIVERSE, PLAIN, Refinement
from service.collections.reindex import Reindexes, interrupted
from service.collections.reranking import Rerank, Reranker, refined, reranked
from service.collections.selection import merged
from service.collections.vectorize import check_documents, embed_documents
from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.embedding.fingerprint import SCHEME
from service.embedding.late_interaction import MaxSim
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.errors import (
    InvalidInput,
    InvalidVector,
    NotFound,
    Place,
    ServiceError,
    StaleDefinition,
    StoreUnavailable,
    TooLarge,
    together,
)
from service.index import EXACT, IndexState
from service.index.flat import ExactIndex
from service.observation import Histogram, phase
from service.ranking import Rerankers
from service.similarity import SIMILARITIES, Similarity
from service.store import Document, Embedded, Stored
from service.store.document import check_metadata
from service.store.filters import AnyFilter
from service.store.space import Space
from service.store.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

SMALL: Final = 64
"""Documents of a change that is made together with others."""
MOST_HITS: Final = 10_000
"""Hits that one query may ask for."""
MOST_EXAMPLES: Final = 1_000
"""Positive or negative documents of one recommendation."""
MOST_NUMBERS: Final = 1 << 24
"""Numbers of all vectors in one answer."""
MOST_HITS_TOGETHER: Final = 1_000_000
"""Hits that the queries of one request may ask for together; the documents of all are in memory at once."""


_SHORT: Final = 100
"""Hits of all queries of a request up to which it does not take long, as long as an index finds them."""
# What looks after the service does not wait for a thread that searches.
_LOOKING: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="looking")
_OF_QUERIES: Final = partial(Place, "queries")


@dataclass(frozen=True, slots=True)
class Ranking:
    """By what a search ranks: vectors (`dense`), words (`keyword`) or both (`hybrid`), and how much each counts.

    With `exact`, a query is compared with every vector, whatever the index could do.
    """

    mode: Literal["dense", "keyword", "hybrid"] = "dense"
    weights: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The hits for one query, and its vector (dim,); None where it has none."""

    hits: list[Hit]
    vector: NDArray[np.floating[Any]] | None


_NEAREST: Final = Ranking()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that was left out: which of the request's, its id where it has one, and why, by the error's code.

    `empty` where it has no vector, and its text has nothing to embed.
    """

    index: int
    id: str | None
    code: str
    detail: str
    empty: bool


@dataclass(frozen=True, slots=True)
class Upserted:
    """The number of documents that a request stored, how many of them were so before, and those it left out."""

    upserted: int
    unchanged: int
    rejected: Sequence[Rejected] = ()


class CollectionService:
    """Stores and searches documents, those of each collection under the embedder of its definition.

    Every method that reads or writes raises `ServiceError`.
    """

    def __init__(self, models: Models, rerankers: Rerankers, collections: Engine) -> None:
        self._models = models
        self._rerankers = rerankers
        self._collections = collections
        self._lanes = Lanes()
        self.reindexes = Reindexes(models, collections)
        self.idle = Idle(collections, self.reindexes)
        """What drops temporary collections; `Idle.run` runs while the service serves."""
        self._changed: dict[Collection, list[str]] = {}
        for collection in _present(collections):
            self._carry_over(collection)
            self._warn_about(collection)

    async def create(
        self,
        name: str,
        model: str | None = None,
        spec: Spec | None = None,
        index: str | None = None,
        chunking: Chunking | None = None,
        similarity: Similarity | None = None,
        tokenizer: Tokenizer | Literal["default"] | None = "default",
        recall: float | None = None,
        dimension: int | None = None,
        layers: LayerSpec | None = None,
        idle_timeout: int | None = None,
    ) -> tuple[Collection, bool]:
        """Create a collection or return the equal one that exists, and whether it is new.

        One that exists has its own similarity, tokenizer, kind of index, recall and idle timeout, where none is asked
        for. With a `dimension`, its vectors are foreign. With an `idle_timeout`, in seconds, it is dropped once it
        was not used for so long; see `Idle`.
        """
        if similarity is None:
            with suppress(NotFound):
                similarity = (await self.get(name)).definition.similarity
        if tokenizer == "default":
            tokenizer = self._collections.default_tokenizer
            with suppress(NotFound):
                tokenizer = (await self.get(name)).tokenizer
        if dimension is None:
            embedder, definition = define(self._models, model, spec, chunking, similarity, layers)
            dimension = embedder.dim
        elif chunking is None:
            definition = define_foreign(self._models, dimension, model, spec, similarity, layers)
        else:
            raise InvalidInput(
                "'chunking' cuts texts into spans that are embedded here, and a collection with a 'dimension' of its "
                "own takes one vector a document. Leave one of the two out.",
                where=Place("chunking"),
            )
        create = partial(self._collections.create, recall=recall, tokenizer=tokenizer, idle_timeout=idle_timeout)
        collection, created = await self._collections.write(create, name, definition, dimension, index)
        self.idle.use(collection)
        return collection, created

    def all(self) -> Sequence[Collection]:
        """Return all collections, ordered by name. It may wait for a server, and is called on a thread."""
        return self._collections.list()

    async def get(self, name: str) -> Collection:
        """Return a collection by name, which counts as its use; raises `NotFound`."""
        collection = await self._collections.look(self._collections.get, name)
        self.idle.use(collection)
        return collection

    async def describe(self, collection: Collection) -> dict[str, Any]:
        """Return what a collection is made with, how large it is, and the memory of its index."""

        def sizes() -> tuple[int, int, int, int, list[str], IndexState]:
            sizes = collection.count(), collection.chunks(), collection.memory_bytes(), collection.stored_bytes()
            return *sizes, collection.precisions(), collection.index_state()

        count, chunks, memory, stored, precisions, state = await asyncio.to_thread(sizes)
        aliases = await self.aliases()
        definition = collection.definition
        chunking = definition.chunking
        keyword = {} if collection.tokenizer is None else {"keyword": {"tokenizer": collection.tokenizer.name}}
        chunked = {} if chunking is None else {"chunking": chunking.to_json(), "chunks": chunks}
        return {
            "name": collection.name,
            "aliases": [alias for alias, of in aliases.items() if of is collection],
            "model": definition.model,
            "pooling": definition.pooling,
            **({} if definition.layers is None else {"layers": definition.layers}),
            "fingerprint": definition.fingerprint,
            **({"foreign": True} if definition.foreign else {}),
            "dimension": collection.dim,
            "index": collection.index_kind,
            "index_state": {name: value for name, value in asdict(state).items() if value is not None},
            "similarity": definition.similarity.name,
            **({} if collection.idle_timeout is None else {"idle_timeout": collection.idle_timeout}),
            **keyword,
            "precisions": precisions,
            "count": count,
            **chunked,
            "memory_bytes": memory,
            "stored_bytes": stored,
            "created": collection.created.isoformat(),
        }

    async def building(self) -> list[str]:
        """Return the names of the collections that are searched exactly until their index is built.

        Every collection is read for it, so that it fails where one cannot be.
        """

        def states() -> dict[str, IndexState]:
            found = {}
            for collection in self._collections.list():
                with suppress(NotFound):  # dropped meanwhile
                    found[collection.name] = collection.index_state()
            return found

        read = await asyncio.get_running_loop().run_in_executor(_LOOKING, states)
        return [name for name, state in read.items() if state.uses == EXACT and state.building is not None]

    async def drop(self, name: str) -> None:
        """Delete a collection with all its documents and aliases."""
        collection = await self.get(name)
        await self._collections.write(self._collections.drop, name)
        self.reindexes.forget(collection)
        self.idle.forget(collection)

    async def rename(self, name: str, to: str) -> Collection:
        """Give a collection another name; its aliases stay."""
        collection = await self._collections.write(self._collections.rename, name, to)
        self.idle.use(collection)
        return collection

    async def copy(self, name: str, to: str) -> Collection:
        """Copy a collection to a new one without an idle timeout, all or nothing.

        Searches go on meanwhile, and changes wait.
        """
        source = await self.get(name)
        copy = await self._collections.write(self._collections.copy, name, to)
        if source in self._changed:
            self._changed[copy] = self._changed[source]
        return copy

    async def aliases(self) -> Mapping[str, Collection]:
        """Return the collection that each alias stands for, by alias."""
        return await self._collections.look(self._collections.aliases)

    async def alias(self, alias: str, name: str) -> tuple[Collection, bool]:
        """Make an alias stand for a collection and no other; return the collection, and whether the alias is new."""
        collection, created = await self._collections.write(self._collections.alias, alias, name)
        self.idle.use(collection)
        return collection, created

    async def delete_alias(self, alias: str) -> None:
        """Delete an alias; the collection stays."""
        await self._collections.write(self._collections.delete_alias, alias)

    async def upsert(self, name: str, items: Items, *, truncate: bool = False, skip: bool = False) -> Upserted:
        """Store all documents, durably, or none; with `skip`, those that can be stored.

        Those that are stored in equal form are not embedded again. What is wrong with any of them is raised as one
        error, which names all.
        """
        collection = await self.get(name)
        unembeddable: dict[int, ServiceError] = {}
        while True:
            definition = collection.definition
            embedder = None if definition.foreign else self._embedder(collection, definition, name)
            sorting = partial(sort_out, name, definition, collection.dim, items)
            admitted, refused = sorting() if _small(items) else await asyncio.to_thread(sorting)
            refused |= unembeddable
            admitted = {index: item for index, item in admitted.items() if index not in refused}
            check = partial(self._check, embedder, definition, admitted, truncate)
            if refused and not skip:
                refused |= await faults([*admitted], check, MOST_NAMED)
                raise _together(refused)
            documents = [item.document for item in admitted.values()]
            given = {item.document.id: item.vectors for item in admitted.values() if item.vectors is not None}
            unchanged = await asyncio.to_thread(collection.unchanged, documents, given)
            changed = {index: item for index, item in admitted.items() if item.document.id not in unchanged}
            texts = {index: item.document for index, item in changed.items() if item.vectors is None}
            embedded: Embedded | None = None
            try:
                if embedder is not None:
                    embedded = await embed_documents(
                        embedder, definition.chunking, [*texts.values()], truncate=truncate, where=_places(texts)
                    )
            except FAULTS:
                found = await faults([*texts], check, None if skip else MOST_NAMED)
                if not found:
                    raise
                if not skip:
                    raise _together(found) from None
                unembeddable |= found
                continue
            if given or embedded is None:
                embedded = assembled(changed, embedded, collection.dim, chunked=definition.chunking is not None)
            to_store = [item.document for item in changed.values()]
            reindex = self.reindexes.last.get(collection)
            also = await reindex.vectors(to_store, truncate=truncate) if reindex and reindex.running else None
            precision = embedder.of("document").encoder.runtime.precision if embedder and texts else None
            store = partial(collection.upsert, to_store, embedded, under=definition, also=also, precision=precision)
            still = partial(collection.unchanged, documents, given)
            if await self._collections.write(_store, still, unchanged, store, together=_small(to_store)):
                rejected = [_rejected(index, items[index], error) for index, error in sorted(refused.items())]
                return Upserted(len(documents), len(unchanged), rejected)

    async def fetch(self, name: str, document_id: str) -> Document:
        """Return a document by id."""
        return await asyncio.to_thread((await self.get(name)).fetch, document_id)

    async def exported(self, name: str) -> Iterator[tuple[Definition, Document, Vectors]]:
        """Return what `Collection.exported` yields of a collection."""
        return await self._collections.look((await self.get(name)).exported)

    async def delete(self, name: str, document_id: str) -> None:
        """Delete a document, durably."""
        await self._collections.write((await self.get(name)).delete, document_id, together=True)

    async def page(
        self,
        name: str,
        limit: int = 100,
        *,
        cursor: str | None = None,
        filter: AnyFilter | None = None,  # noqa: A002 - the name it has in the HTTP contract
        vectors: bool = False,
    ) -> Page:
        """Return the next documents in the order of storing, from the cursor of the page before on."""
        return await asyncio.to_thread((await self.get(name)).page, limit, cursor, filter, vectors=vectors)

    async def count(self, name: str, filter: AnyFilter | None = None) -> int:  # noqa: A002
        """Return the number of documents, of those that match the filter where one is given."""
        return await asyncio.to_thread((await self.get(name)).count_matching, filter)

    async def fetch_many(
        self, name: str, ids: Sequence[str], *, vectors: bool = False
    ) -> tuple[Sequence[Stored], Sequence[str]]:
        """Return the documents with these ids, in their order, and the ids that no document has."""
        return await asyncio.to_thread((await self.get(name)).fetch_many, ids, vectors=vectors)

    async def delete_many(
        self,
        name: str,
        *,
        ids: Sequence[str] | None = None,
        filter: AnyFilter | None = None,  # noqa: A002
        all: bool = False,  # noqa: A002
    ) -> Changed:
        """Delete the documents with ids, those that match a filter, or all, durably; all of them or none."""
        selection = Selection(ids, filter, all)
        return await self._collections.write((await self.get(name)).delete_many, selection, together=_small(ids))

    async def update_metadata(
        self,
        name: str,
        *,
        ids: Sequence[str] | None = None,
        filter: AnyFilter | None = None,  # noqa: A002
        all: bool = False,  # noqa: A002
        merge: Mapping[str, Any] | None = None,
        replace: dict[str, Any] | None = None,
    ) -> Changed:
        """Merge a patch into the metadata of documents, as RFC 7396 does, or replace it; nothing is embedded again.

        The documents are selected as in `delete_many`. All are changed, durably, or none.
        """
        selection = Selection(ids, filter, all)
        if (merge is None) == (replace is None):
            raise InvalidInput("give one of 'merge' and 'replace'.", where=Place("merge"))
        for part, given in (("merge", merge), ("replace", replace)):
            if given is not None:
                check_metadata(dict(given), part)  # also where no document is meant

        def change(metadata: dict[str, Any]) -> dict[str, Any]:
            return merged(metadata, merge) if merge is not None else replace or {}

        update = (await self.get(name)).update_metadata
        return await self._collections.write(update, selection, change, together=_small(ids))

    async def by_text(
        self,
        name: str,
        queries: Sequence[str],
        k: int,
        condition: AnyFilter | None = None,
        *,
        ranking: Ranking = _NEAREST,
        grouped: bool = False,
        exact: bool = False,
        truncate: bool = False,
        refinement: Refinement = PLAIN,
        rerank: Rerank | None = None,
        where: Callable[[int], Place] = _OF_QUERIES,
    ) -> list[Found]:
        """Return the `k` best hits for each text; with `grouped`, one hit a document.

        Texts are embedded as queries unless they are searched by words alone. With `rerank`, the hits are the best of
        the first ones by another score, to which the refinement then applies.
        """
        collection = await self.get(name)
        if rerank is not None:
            depth = rerank.of(k, len(queries))
            embedded = ranking.mode != "keyword"
            reranker = await self._reranker(rerank, collection, queries, where, embedded=embedded, truncate=truncate)
            first = partial(self.by_text, ranking=ranking, grouped=grouped, exact=exact, truncate=truncate)
            before = refinement.before_reranking
            stage = await first(name, queries, depth, condition, refinement=before, where=where)
            again = partial(self._reranked, collection, reranker, ranking, k, refinement)
            return [await again(query, each) for query, each in zip(queries, stage, strict=True)]
        await _check_together(collection, len(queries), k, refinement)
        terms = [] if ranking.mode == "dense" else await _terms(collection, queries, where, truncate=truncate)
        if ranking.mode == "keyword":
            with phase("search"):
                found = await self._lanes.run(
                    partial(collection.search_keywords, terms, k, condition, refinement=refinement)
                )
            return [Found(hits, None) for hits in found]
        while True:
            definition = collection.definition
            embeddings = await self._embedder(collection, definition, name).embed(
                queries, role="query", truncate="right" if truncate else None, where=where
            )
            with suppress(StaleDefinition):
                return await self._near(
                    collection, embeddings.vectors, terms, k, condition, ranking, grouped, refinement, definition
                )

    async def by_vector(
        self,
        name: str,
        vector: Sequence[float],
        k: int,
        condition: AnyFilter | None = None,
        *,
        ranking: Ranking = _NEAREST,
        text: str = "",
        grouped: bool = False,
        truncate: bool = False,
        refinement: Refinement = PLAIN,
        rerank: Rerank | None = None,
    ) -> Found:
        """Return the `k` best hits for a vector that the caller made with the collection's embedder.

        A hybrid search takes the words of `text` beside it, and `rerank` compares the hits with it.
        """
        collection = await self.get(name)
        if rerank is not None:
            if not text:
                raise InvalidInput(
                    "'rerank' compares the texts of hits with that of the query, and a search by 'vector' alone has "
                    "none. Search by 'query', in mode 'hybrid' beside the 'vector', or leave 'rerank' out.",
                    where=Place("rerank"),
                )
            depth = rerank.of(k, 1)
            read = partial(self._reranker, embedded=False, truncate=truncate)
            reranker = await read(rerank, collection, [text], lambda _: Place("query"))
            first = partial(self.by_vector, ranking=ranking, text=text, grouped=grouped, truncate=truncate)
            stage = await first(name, vector, depth, condition, refinement=refinement.before_reranking)
            return await self._reranked(collection, reranker, ranking, k, refinement, text, stage)
        await _check_together(collection, 1, k, refinement)
        if len(vector) != collection.dim:
            raise InvalidInput(
                f"vector has {len(vector)} dimensions; collection {name!r} has {collection.dim}.",
                where=Place("vector"),
            )
        terms = []
        if ranking.mode == "hybrid":
            terms = await _terms(collection, [text], lambda _: Place("query"), truncate=truncate)
        query = np.array([vector], dtype=np.float64)
        try:
            return (await self._near(collection, query, terms, k, condition, ranking, grouped, refinement, None))[0]
        except InvalidVector as error:
            raise InvalidVector(f"vector {error.detail.removeprefix('vector 0 ')}", where=Place("vector")) from None

    async def recommend(
        self,
        name: str,
        positive: Sequence[str],
        negative: Sequence[str],
        k: int,
        condition: AnyFilter | None,
        *,
        grouped: bool = False,
        refinement: Refinement = PLAIN,
    ) -> Found:
        """Return the `k` hits that are most like some documents and unlike others; see `Collection.recommend`."""
        collection = await self.get(name)
        await _check_together(collection, 1, k, refinement)
        recommend = partial(collection.recommend, grouped=grouped, refinement=refinement)
        with phase("search"):
            return Found(*await self._lanes.run(partial(recommend, positive, negative, k, condition)))

    async def _near(
        self,
        collection: Collection,
        vectors: NDArray[np.floating[Any]],
        terms: Sequence[Sequence[str]],
        k: int,
        condition: AnyFilter | None,
        ranking: Ranking,
        grouped: bool,
        refinement: Refinement,
        under: Definition | None,
    ) -> list[Found]:
        """Search by vectors, and in a hybrid search by terms as well."""
        short = (
            ranking.mode == "dense"
            and not ranking.exact
            and condition is None
            and collection.index_kind != ExactIndex.kind
            and len(vectors) * k <= _SHORT
        )
        if ranking.mode == "hybrid":
            hybrid = partial(collection.search_hybrid, weights=ranking.weights, exact=ranking.exact)
            find = partial(hybrid, vectors, terms, k, condition)
        else:
            find = partial(collection.search, vectors, k, condition, grouped=grouped, exact=ranking.exact)
        with phase("search"):
            results = await self._lanes.run(partial(find, under=under, refinement=refinement), short=short)
        return [Found(hits, vector) for hits, vector in zip(results, vectors, strict=True)]

    async def _reranker(
        self,
        rerank: Rerank,
        collection: Collection,
        queries: Sequence[str],
        where: Callable[[int], Place],
        *,
        embedded: bool,
        truncate: bool,
    ) -> Reranker:
        """Return what scores hits of a collection anew: the reranker that is named, or its own encoder.

        Args:
            rerank: what is asked for.
            collection: the collection.
            queries: the queries, which are checked here as far as the first search does not do it.
            where: gives the place of one of those.
            embedded: whether the first search embeds them.
            truncate: whether one that is too long is cut.

        Raises:
            UnknownModel, UnsupportedTask: no reranker has the name, or none is served.
            InvalidInput: the collection has no encoder, or a query has no token.
            TooLong: a query is longer than the reranker or the encoder takes.
            FingerprintMismatch: the models served now are others than those that the collection was made with.
        """
        if rerank.model is not None:
            named = self._rerankers.get(rerank.model, "rerank.model")
            if not truncate:
                await named.check(queries, where)
            return named
        if collection.definition.model is None:
            raise InvalidInput(
                f"collection {collection.name!r} holds foreign vectors, and no model is named whose token states "
                "could re-rank its hits. Leave 'rerank' out, name a reranker as rerank.model, or create it with a "
                "'model'.",
                where=Place("rerank"),
            )
        embedder = self._embedder(collection, collection.definition, collection.name)
        if not embedded:
            await embedder.check(queries, role="query", truncate="right" if truncate else None, where=where)
        return MaxSim(embedder)

    async def _reranked(
        self,
        collection: Collection,
        reranker: Reranker,
        ranking: Ranking,
        k: int,
        refinement: Refinement,
        query: str,
        found: Found,
    ) -> Found:
        hits = await reranked(reranker, query, found.hits, ranking.mode)
        return Found(refined(hits, k, refinement, collection.definition.similarity), found.vector)

    async def compact(self, *, rebuild: bool = False) -> tuple[Space, Space]:
        """Give the store's free space back to the disk, as `Engine.compact` does."""
        return await self._collections.compact(rebuild=rebuild)

    @property
    def commits(self) -> Histogram:
        """How many seconds each commit of changes took, so far."""
        return self._collections.commits

    def close(self) -> None:
        """Stop reindexes, finish the changes in progress and close the store."""
        self.reindexes.close()
        self._lanes.close()
        self._collections.close()

    async def _check(
        self,
        embedder: Embedder | None,
        definition: Definition,
        admitted: Mapping[int, Admitted],
        truncate: bool,
        places: Sequence[int],
    ) -> None:
        """Raise what is wrong with the texts of some documents that are to be embedded."""
        texts = {index: admitted[index].document for index in places if admitted[index].vectors is None}
        if embedder is not None and texts:
            await check_documents(
                embedder, definition.chunking, [*texts.values()], truncate=truncate, where=_places(texts)
            )

    def _embedder(self, collection: Collection, stored: Definition, name: str) -> Embedder:
        """Return the embedder of a collection's definition; `name` is what it is called in errors.

        Raises:
            InvalidInput: its vectors are foreign, and no model is named for queries.
            FingerprintMismatch: the models served now would not make the vectors that the collection holds.
        """
        if stored.model is None:
            raise InvalidInput(
                f"collection {name!r} holds foreign vectors, and no model is named that embeds queries. Search "
                "it by 'vector', or create it with the 'model' that makes such vectors.",
                where=Place("query"),
            )
        try:
            embedder = self._models.get(stored.model, stored.asked_pooling, stored.asked_layers)
        except ServiceError as error:
            raise unserved(name, stored, error) from None
        if embedder.fingerprint != stored.fingerprint:
            rules = self._changed.get(collection, []) if stored.scheme < SCHEME else []
            raise mismatch(name, stored, embedder, rules)
        return embedder

    def _carry_over(self, collection: Collection) -> None:
        """Give a collection of an earlier release its present fingerprint, where its vectors are unchanged."""
        rebuild = collection.rebuild()
        definition, rules = self._renewed(collection, collection.definition)
        target, _ = self._renewed(collection, rebuild.definition) if rebuild else (None, [])
        if rules:
            self._changed[collection] = rules
        if definition or target:
            collection.relabel(definition or collection.definition, target)
            logger.info("collection %r has the vectors of this release, and is relabelled so", collection.name)

    def _renewed(self, collection: Collection, stored: Definition) -> tuple[Definition | None, list[str]]:
        """Return an older definition as it is now, None where it may not be that, and the rules that forbid it."""
        if stored.model is None or stored.scheme >= SCHEME:
            return None, []
        try:
            embedder = self._models.get(stored.model, stored.asked_pooling, stored.asked_layers)
        except ServiceError:
            return None, []  # as `_warn_about` says
        rules = changed_rules(stored, embedder, collection.documents)
        return (carried_over(stored, embedder) if rules == [] else None), rules or []

    def _warn_about(self, collection: Collection) -> None:
        """Log why a collection cannot be served, and a reindex of it that was interrupted."""
        stored = collection.definition
        if stored.model is None:
            return
        try:
            embedder = self._embedder(collection, stored, collection.name)
        except ServiceError as error:
            logger.warning("%s", error.detail)
        else:
            of_documents = embedder.of("document")
            declared, served = of_documents.recipe.checkpoint.similarity, of_documents.encoder.runtime.precision
            filled = collection.precisions()
            if filled and served not in filled:
                logger.warning(
                    "collection %r was filled in %s, and model %r runs in %s now: scores differ a little; set "
                    "runtime.precision: %s, or reindex with --force",
                    *(collection.name, " and ".join(filled), stored.model, served, filled[0]),
                )
            if declared != stored.similarity.name and declared in SIMILARITIES:
                logger.warning(
                    "collection %r is searched by %s, and its model %r declares %s; `millpond reindex %s "
                    "--similarity %s` follows the model",
                    collection.name,
                    stored.similarity.name,
                    stored.model,
                    declared,
                    collection.name,
                    declared,
                )
        if progress := interrupted(collection):
            logger.warning(
                "collection %r: a reindex was interrupted when %d of %d documents were embedded; "
                "`millpond reindex %s` goes on with it",
                collection.name,
                progress.done,
                progress.total,
                collection.name,
            )


def _present(collections: Engine) -> Sequence[Collection]:
    """Return the collections that there are at the start: none where the engine waits for its server."""
    try:
        return collections.list()
    except StoreUnavailable as error:
        logger.warning("collections cannot be looked at, and what asks for them is refused until then: %s", error)
        return []


async def _check_together(collection: Collection, queries: int, k: int, refinement: Refinement) -> None:
    """Check how much the queries of one request ask for together; raises `TooLarge`."""
    if refinement.diversity is not None and k > MOST_DIVERSE:
        raise TooLarge(
            f"k is {k}, and a search with 'diversity' gives up to {MOST_DIVERSE} hits; leave it out, or lower k.",
            where=Place("k"),
            limit=MOST_DIVERSE,
        )
    if (wanted := queries * refinement.depth(k)) > MOST_HITS_TOGETHER:
        raise TooLarge(
            f"{queries} queries for {refinement.depth(k)} hits each are {wanted} hits, and one request may ask for "
            f"{MOST_HITS_TOGETHER}; send fewer queries at once, or a smaller k.",
            where=Place("queries"),
            limit=MOST_HITS_TOGETHER,
        )
    most = MOST_NUMBERS // (max(queries, 1) * collection.dim)
    if refinement.vectors and k > most and await asyncio.to_thread(collection.chunks) > most:
        raise TooLarge(
            f"{queries} queries for {k} hits each with their vectors, of {collection.dim} numbers, are more than the "
            f"{MOST_NUMBERS} numbers that one answer takes. Ask for {most} hits each at most, for fewer queries at "
            "once, or without 'vector' in 'include'.",
            where=Place("k"),
            limit=MOST_NUMBERS,
        )


def _small(changed: Sequence[Any] | None) -> bool:
    """Return whether documents or ids are few; None stands for those of a filter or all."""
    return changed is not None and len(changed) <= SMALL


async def _terms(
    collection: Collection, queries: Sequence[str], where: Callable[[int], Place], *, truncate: bool
) -> list[list[str]]:
    def all_terms() -> list[list[str]]:
        return [collection.terms(query, where(index), truncate=truncate) for index, query in enumerate(queries)]

    return await asyncio.to_thread(all_terms)


def _places(documents: Mapping[int, Document]) -> Callable[[int], Place]:
    """Return the function from the position of a text to its place in the request, by whose indices it is kept."""
    indices = [*documents]
    return lambda position: place(indices[position], documents[indices[position]], ".text")


def _together(refused: Mapping[int, ServiceError]) -> ServiceError:
    """Return one error for all documents that are refused, with those `without_tokens` among them."""
    error = together([refused[index] for index in sorted(refused)])
    if blank := [index for index in sorted(refused) if refused[index].extra.get("without_tokens")]:
        error.extra["without_tokens"] = blank
    return error


def _rejected(index: int, item: Document | Incoming | ServiceError, error: ServiceError) -> Rejected:
    incoming = Incoming(item) if isinstance(item, Document) else item
    if not isinstance(incoming, Incoming):
        return Rejected(index, error.extra.get("id"), error.code, error.detail, False)
    document = incoming.document
    empty = bool(error.extra.get("without_tokens")) or (incoming.vectors is None and not document.text.strip())
    return Rejected(index, document.id, error.code, error.detail, empty)


def _store(unchanged_now: Callable[[], set[str]], unchanged: set[str], upsert: Callable[[], int]) -> bool:
    """Upsert, unless what the documents were compared or embedded with has changed since; return whether it did.

    It runs on the thread of all writes, so that no other write comes between the comparison and the upsert.
    """
    if unchanged and not unchanged <= unchanged_now():
        return False
    try:
        upsert()
    except StaleDefinition:
        return False
    return True

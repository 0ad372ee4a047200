"""Collections, their documents, and search."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, Literal

from fastapi import APIRouter, Response
from starlette.convertors import PathConvertor, register_url_convertor

from service.api.errors import describe_fault
from service.api.lean import LeanRoute
from service.api.requests import JSONRoute, Served, check_count, places
from service.api.responses import (
    json_list,
    json_list_of,
    json_object,
    json_response,
    response_in_parts,
    warnings_of,
)
from service.api.schemas.collections import (
    CollectionBody,
    CollectionList,
    CreateCollection,
    DocumentBody,
    Misfit,
    ReindexBody,
    ReindexRequest,
    UpsertedBody,
    UpsertRequest,
)
from service.api.schemas.fields import CollectionName, DocumentId
from service.api.schemas.problem import problem
from service.api.schemas.search import Hits, RecommendRequest, SearchRequest, SearchResults
from service.collections import Hit
from service.collections.intake import Incoming
from service.collections.refinement import Refinement
from service.collections.reindex import Progress
from service.collections.reranking import Rerank
from service.collections.service import Found, Ranking
from service.deployment import Deployment
from service.errors import InvalidInput, NotFound, Place, ServiceError, TooLarge
from service.similarity import SIMILARITIES
from service.store import Document, Spans
from service.store.filters import Filter
from service.store.tokenizers import TOKENIZERS, Tokenizer

MOST_CHARACTERS: Final = 1 << 28
"""Characters of text in one response."""

_CONFLICT: Final = problem(409, "Exists under another definition, or the fingerprints differ")
_MISSING: Final = problem(404, "Not found")


class _AnyId(PathConvertor):
    """The rest of the path, including line breaks, at which `path` stops."""

    regex = r"[\s\S]*"


register_url_convertor("id", _AnyId())

router = APIRouter(tags=["collections"], route_class=JSONRoute)
search_router = APIRouter(tags=["collections"], route_class=LeanRoute)


@router.put(
    "/collections/{name}",
    response_model_exclude_none=True,
    responses=_MISSING | _CONFLICT | {201: {"model": CollectionBody}},
)
async def create(
    name: CollectionName, served: Served, response: Response, body: CreateCollection | None = None
) -> CollectionBody:
    """Create a collection (201), or find the equal one (200)."""
    asked = body or CreateCollection.model_validate({})
    collection, created = await served.collections.create(
        name,
        asked.model,
        asked.pooling,
        asked.index,
        asked.chunking and asked.chunking.parsed(),
        asked.similarity and SIMILARITIES[asked.similarity],
        _tokenizer(asked),
        asked.recall,
        asked.dimension,
        asked.layers,
        asked.idle_timeout,
    )
    response.status_code = 201 if created else 200
    return CollectionBody(**await served.collections.describe(collection))


@router.get("/collections", response_model_exclude_none=True)
async def list_all(served: Served) -> CollectionList:
    """All collections. Listing them is no use of one with an `idle_timeout`."""
    described = []
    for collection in await asyncio.to_thread(served.collections.all):
        with suppress(NotFound):  # dropped meanwhile
            described.append(CollectionBody(**await served.collections.describe(collection)))
    return CollectionList(collections=described)


@router.get("/collections/{name}", response_model_exclude_none=True, responses=_MISSING)
async def describe(name: CollectionName, served: Served) -> CollectionBody:
    """What a collection is and holds."""
    return CollectionBody(**await served.collections.describe(await served.collections.get(name)))


@router.delete("/collections/{name}", status_code=204, responses=_MISSING)
async def drop(name: CollectionName, served: Served) -> None:
    """Delete a collection with all its documents and aliases."""
    await served.collections.drop(name)


@router.post("/collections/{name}/documents", response_model=UpsertedBody, responses=_MISSING | _CONFLICT)
async def upsert(name: CollectionName, body: UpsertRequest, served: Served) -> Response:
    """Store documents, all or none; answers once they are durable and can be found.

    `unchanged` of them were stored already with equal text, metadata and given spans, and were not embedded again.
    An error names every bad document, up to a hundred of them in `errors`. With `"on_error": "skip"` the good ones
    are stored, and the others come back as `rejected`.
    """
    check_count(served, len(body.documents), "documents")
    skip = body.on_error == "skip"
    items = [_incoming(index, item) for index, item in enumerate(body.documents)]
    result = await served.collections.upsert(name, items, truncate=body.truncate, skip=skip)
    answer: dict[str, Any] = {"upserted": result.upserted, "unchanged": result.unchanged}
    if skip:
        answer["rejected"] = [asdict(rejected) for rejected in result.rejected]
    return json_response(answer)


@router.get("/collections/{name}/documents/{document_id:id}", response_model=DocumentBody, responses=_MISSING)
async def fetch(name: CollectionName, document_id: DocumentId, served: Served) -> Response:
    """One document."""
    document = await served.collections.fetch(name, document_id)
    return json_response(document.to_json())


@router.delete("/collections/{name}/documents/{document_id:id}", status_code=204, responses=_MISSING)
async def delete(name: CollectionName, document_id: DocumentId, served: Served) -> None:
    """Delete one document, durably."""
    await served.collections.delete(name, document_id)


@router.post("/collections/{name}/reindex", responses=_MISSING | _CONFLICT | {202: {"model": ReindexBody}})
async def begin_reindex(
    name: CollectionName, served: Served, response: Response, body: ReindexRequest | None = None
) -> ReindexBody:
    """Embed a collection anew from its stored text, in the background (202), or go on with that.

    The collection is served as it was until the last document is done, and then as it is asked for here. 200 where it
    is that already.
    """
    asked = body or ReindexRequest.model_validate({})
    collection = await served.collections.get(name)
    chunking = collection.definition.chunking
    if "chunking" in asked.model_fields_set:
        chunking = asked.chunking and asked.chunking.parsed()
    progress = await served.collections.reindexes.begin(
        collection,
        asked.model,
        asked.pooling,
        chunking,
        asked.similarity and SIMILARITIES[asked.similarity],
        asked.layers,
        truncate=asked.truncate,
        force=asked.force,
    )
    response.status_code = 200 if progress.state == "unneeded" else 202
    return _reindex(progress)


@router.get("/collections/{name}/reindex", responses=_MISSING)
async def describe_reindex(name: CollectionName, served: Served) -> ReindexBody:
    """How far the reindex of a collection is."""
    return _reindex(await served.collections.reindexes.progress(await served.collections.get(name)))


@router.delete("/collections/{name}/reindex", status_code=204, responses=_MISSING)
async def abandon_reindex(name: CollectionName, served: Served) -> None:
    """Stop the reindex of a collection and drop what it made; the collection stays as it is."""
    await served.collections.reindexes.abandon(await served.collections.get(name))


@search_router.post("/collections/{name}/search", response_model=Hits | SearchResults, responses=_MISSING | _CONFLICT)
async def search(name: CollectionName, body: SearchRequest, served: Served) -> Response:
    """The documents nearest to a text, to each of several texts, or to a vector.

    In a chunked collection each hit is a `span` of a document, of which one document may have many; with
    `"group": "document"` it has the best of them alone.
    """
    return await _search(served, name, body)


@search_router.post("/collections/{name}/recommend", response_model=Hits, responses=_MISSING)
async def recommend(name: CollectionName, body: RecommendRequest, served: Served) -> Response:
    """Documents that are like some of the collection and unlike others, which are no hits themselves.

    They are the nearest to the average vector of the positive ones, or with negative ones to twice that less the
    average of those.
    """
    condition = Filter.of(body.filter)
    found = await served.collections.recommend(
        name,
        body.positive,
        body.negative,
        body.k,
        condition,
        grouped=body.group is not None,
        refinement=_refinement(body),
    )
    return await _response(found, body, warnings_of(condition))


@search_router.post("/search", response_model=Hits | SearchResults, responses=_MISSING | _CONFLICT)
async def search_default(body: SearchRequest, served: Served) -> Response:
    """The same on the default collection (`store.default_collection`)."""
    name = served.config.store.default_collection
    try:
        await served.collections.get(name)
    except NotFound:
        raise NotFound(
            f"/search asks the default collection, {name!r} (store.default_collection), and there is none. Create it "
            f"with PUT /collections/{name}, or search another with POST /collections/NAME/search."
        ) from None
    return await _search(served, name, body)


def _reindex(progress: Progress) -> ReindexBody:
    fields = {key: getattr(progress, key) for key in ("state", "done", "total", "texts_per_second", "error")}
    for side, definition in (("from", progress.source), ("to", progress.target)):
        as_stored = {"layers": None, "chunking": None, **definition.to_json()}
        fields[side] = as_stored | {"similarity": definition.similarity.name}
    return ReindexBody.model_validate(fields)


async def _search(served: Deployment, name: str, body: SearchRequest) -> Response:
    weights = {} if body.weights is None else body.weights.model_dump()
    ranking, refinement = Ranking(body.mode, weights, body.exact), _refinement(body)
    rerank = None if body.rerank is None else Rerank(body.rerank.model, body.rerank.depth)
    condition = Filter.of(body.filter)
    if body.vector is not None:
        found = await served.collections.by_vector(
            name,
            body.vector,
            body.k,
            condition,
            ranking=ranking,
            text=body.query or "",
            grouped=body.group is not None,
            truncate=body.truncate,
            refinement=refinement,
            rerank=rerank,
        )
        return await _response(found, body, warnings_of(condition))
    several = body.queries is not None
    queries = body.queries if body.queries is not None else [body.query or ""]
    check_count(served, len(queries), "queries")
    results = await served.collections.by_text(
        name,
        queries,
        body.k,
        condition,
        ranking=ranking,
        grouped=body.group is not None,
        truncate=body.truncate,
        refinement=refinement,
        rerank=rerank,
        where=places("queries" if several else "query", several=several),
    )
    warnings = warnings_of(condition)
    if not several:
        return await _response(results[0], body, warnings)
    _check_characters(results, body)
    every = json_list_of(_found(each, body, {}) for each in results)
    return await response_in_parts(json_object(results=every, **warnings))


async def _response(found: Found, body: SearchRequest | RecommendRequest, warnings: Mapping[str, Any]) -> Response:
    _check_characters([found], body)
    return await response_in_parts(_found(found, body, warnings))


def _refinement(body: SearchRequest | RecommendRequest) -> Refinement:
    return Refinement(body.score_threshold, body.diversity, "vector" in body.include)


def _tokenizer(body: CreateCollection) -> Tokenizer | Literal["default"] | None:
    if "keyword" not in body.model_fields_set:
        return "default"
    return None if body.keyword is None else TOKENIZERS[body.keyword.tokenizer]


def _check_characters(results: Sequence[Found], body: SearchRequest | RecommendRequest) -> None:
    """Refuse a response that would repeat long texts for each of their spans."""
    if "text" not in body.include:
        return
    characters = sum(len(hit.text) for found in results for hit in found.hits)
    if characters > MOST_CHARACTERS:
        raise TooLarge(
            f"the texts of the hits have {characters} characters, those of several hits counted for each, and one "
            f"answer takes {MOST_CHARACTERS}. Leave 'text' out of 'include', group by document, or lower k.",
            where=Place("k"),
            limit=MOST_CHARACTERS,
        )


def _found(found: Found, body: SearchRequest | RecommendRequest, more: Mapping[str, Any]) -> Iterator[bytes]:
    def to_json(_: int, hit: Hit) -> dict[str, Any]:
        fields: dict[str, Any] = {"text": hit.text, "metadata": hit.metadata}
        if hit.span is not None:
            start, end = hit.span
            fields["span"] = {"start": start, "end": end, "text": hit.text[start:end]}
        if hit.vector is not None:
            fields["vector"] = hit.vector
        parts = {} if hit.parts is None else {"parts": hit.parts}
        own = {"id": hit.id, "score": hit.score, **parts}
        return own | {name: fields[name] for name in body.include if name in fields}

    vector = {"vector": found.vector} if "vector" in body.include and found.vector is not None else {}
    return json_object(hits=json_list(found.hits, to_json), **vector, **more)


def _incoming(index: int, item: DocumentBody | Misfit) -> Incoming | ServiceError:
    """Return a document of a request, or what is wrong with it."""
    if isinstance(item, Misfit):
        found = [describe_fault(problem, ("documents", index, *problem["loc"])) for problem in item.problems]
        return InvalidInput(" ".join(f"{where}: {detail}" for where, detail in found), where=found[0][0], id=item.id)
    vectors = item.vectors if item.vector is None else [item.vector]
    if vectors is None and "text" not in item.model_fields_set:
        where = Place("documents", index, name=f"documents[{index}].text")
        return InvalidInput(f"{where}: this field is required.", where=where, id=item.id)
    if (item.vector is not None and item.vectors is not None) or (item.fingerprint is not None and vectors is None):
        where = Place("documents", index)
        return InvalidInput(
            f"{where} has one of 'vector' and 'vectors', and 'fingerprint' beside it.", where=where, id=item.id
        )
    return Incoming(Document(item.id, item.text, item.metadata, _spans(item)), vectors, item.fingerprint)


def _spans(document: DocumentBody) -> Spans | None:
    return None if document.spans is None else tuple((start, end) for start, end in document.spans)

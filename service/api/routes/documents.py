"""Documents of a collection by the many: list, count, get, delete, and change their metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.requests import JSONRoute, ReadingRoute, Served, check_count
from service.api.responses import json_list, json_object, response_in_parts, warnings_of
from service.api.schemas.documents import (
    CountBody,
    CountRequest,
    DeletedBody,
    DeleteRequest,
    DocumentField,
    DocumentPage,
    FoundBody,
    GetRequest,
    ListRequest,
    MetadataRequest,
    UpdatedBody,
)
from service.api.schemas.fields import CollectionName
from service.api.schemas.problem import problem
from service.store import Stored
from service.store.filters import Filter

_RESPONSES: Final = problem(404, "No such collection")
_PATH: Final = "/collections/{name}/documents"
router = APIRouter(tags=["documents"], route_class=JSONRoute, responses=_RESPONSES)
reading_router = APIRouter(tags=["documents"], route_class=ReadingRoute, responses=_RESPONSES)


@reading_router.post(f"{_PATH}/list", response_model=DocumentPage)
async def list_some(name: CollectionName, served: Served, body: ListRequest | None = None) -> Response:
    """Documents in the order of storing, a page at a time, with a filter those that match it.

    Send the `cursor` of a page to get the next one. A document that is there all along comes once, whatever is stored
    or deleted between pages; one that is replaced between them comes at the end. A page of large documents has fewer
    than `limit`.
    """
    asked = body or ListRequest()
    condition = Filter.of(asked.filter)
    page = await served.collections.page(
        name, asked.limit, cursor=asked.cursor, filter=condition, vectors="vector" in asked.include
    )
    return await response_in_parts(
        json_object(documents=_documents(page.documents, asked.include), cursor=page.cursor, **warnings_of(condition))
    )


@reading_router.post(f"{_PATH}/count", response_model_exclude_none=True)
async def count(name: CollectionName, served: Served, body: CountRequest | None = None) -> CountBody:
    """How many documents there are, with a filter how many match it."""
    condition = Filter.of(body.filter if body else None)
    return CountBody(count=await served.collections.count(name, condition), **warnings_of(condition))


@reading_router.post(f"{_PATH}/get", response_model=FoundBody)
async def fetch_many(name: CollectionName, body: GetRequest, served: Served) -> Response:
    """Documents by their ids, in that order; `missing` are the ids that no document has."""
    check_count(served, len(body.ids), "ids")
    found, missing = await served.collections.fetch_many(name, body.ids, vectors="vector" in body.include)
    return await response_in_parts(json_object(documents=_documents(found, body.include), missing=missing))


@router.post(f"{_PATH}/delete", response_model_exclude_none=True)
async def delete_many(name: CollectionName, body: DeleteRequest, served: Served) -> DeletedBody:
    """Delete the documents with some ids, those that match a filter, or all: all of them or none, durably."""
    if body.ids is not None:
        check_count(served, len(body.ids), "ids")
    condition = Filter.of(body.filter)
    done = await served.collections.delete_many(name, ids=body.ids, filter=condition, all=body.all)
    return DeletedBody(deleted=done.count, missing=list(done.missing), **warnings_of(condition))


@router.post(f"{_PATH}/metadata", response_model_exclude_none=True)
async def update_metadata(name: CollectionName, body: MetadataRequest, served: Served) -> UpdatedBody:
    """Change the metadata of documents, all of them or none, durably; nothing is embedded again."""
    if body.ids is not None:
        check_count(served, len(body.ids), "ids")
    condition = Filter.of(body.filter)
    done = await served.collections.update_metadata(
        name, ids=body.ids, filter=condition, all=body.all, merge=body.merge, replace=body.replace
    )
    return UpdatedBody(updated=done.count, missing=list(done.missing), **warnings_of(condition))


def _documents(documents: Sequence[Stored], include: Sequence[DocumentField]) -> Iterator[bytes]:
    def to_json(_: int, stored: Stored) -> dict[str, Any]:
        fields = stored.document.to_json()
        kept = {"id": fields.pop("id")} | {name: fields[name] for name in include if name in fields}
        if stored.vectors is None:
            return kept
        chunked = stored.document.spans is not None
        return kept | ({"vectors": stored.vectors} if chunked else {"vector": stored.vectors[0]})

    return json_list(documents, to_json)

"""Documents of a collection by the many: listed, counted, fetched, deleted, and their metadata changed."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from service.api.requests import Body
from service.api.schemas.fields import Ids, examples
from service.api.schemas.search import Filter, Warnings

MOST_LISTED: Final = 10_000
"""Documents of one page."""

DocumentField = Literal["text", "metadata", "spans", "vector"]

_Include = Annotated[
    list[DocumentField],
    Field(
        fail_fast=True,
        description="What a document carries beside `id`; `vector` gives `vectors`, one a span, where it is chunked.",
    ),
]
_INCLUDED: Final[list[DocumentField]] = ["text", "metadata", "spans"]


class ListRequest(Body):
    """Which documents to list, and from where on."""

    model_config = examples({"limit": 2}, {"filter": {"year": {"$gte": 2015}}, "include": ["metadata"]})

    limit: int = Field(default=100, ge=1, le=MOST_LISTED, description="Documents of a page, at most.")
    cursor: str | None = Field(default=None, description="The `cursor` of the page before; none: from the start.")
    filter: Filter = None
    include: _Include = _INCLUDED


class CountRequest(Body):
    """Which documents to count; all, unless there is a filter."""

    model_config = examples({"filter": {"lang": "en"}})

    filter: Filter = None


class GetRequest(Body):
    """Documents by their ids."""

    model_config = examples({"ids": ["1", "2"], "include": ["text", "vector"]})

    ids: Ids
    include: _Include = _INCLUDED


class _Selected(Body):
    ids: Ids | None = None
    filter: Filter = None
    all: bool = Field(default=False, description="Every document; an empty filter is refused.")


class DeleteRequest(_Selected):
    """Documents to delete, by one of the three: ids, a filter, or all."""

    model_config = examples({"ids": ["2"]}, {"filter": {"year": {"$lt": 2000}}})


class MetadataRequest(_Selected):
    """Documents by one of the three, ids, a filter, or all, and one of the two changes to their metadata."""

    model_config = examples(
        {"ids": ["1"], "merge": {"lang": "fr", "draft": None}}, {"filter": {"lang": "fr"}, "replace": {"lang": "en"}}
    )

    merge: dict[str, Any] | None = Field(
        default=None,
        description="A JSON merge patch (RFC 7396): objects are merged key by key, null removes its key, and any "
        "other value replaces what is there, a list as a whole.",
    )
    replace: dict[str, Any] | None = Field(default=None, description="The metadata that each is to have.")


class ListedBody(BaseModel):
    """A document, with what was asked for of it."""

    id: str
    text: str | None = None
    metadata: dict[str, Any] | None = None
    spans: list[tuple[int, int]] | None = Field(default=None, description="In a chunked collection.")
    vector: list[float] | None = Field(default=None, description="As stored, in float32.")
    vectors: list[list[float]] | None = Field(default=None, description="In a chunked collection: one a span.")


class DocumentPage(BaseModel):
    """Documents in the order of storing."""

    documents: list[ListedBody]
    cursor: str | None = Field(description="Leads to the next page; null: this is the last.")
    warnings: Warnings = None


class CountBody(BaseModel):
    """How many documents there are, or match the filter."""

    count: int
    warnings: Warnings = None


class FoundBody(BaseModel):
    """Documents in the order of their ids in the request, each once."""

    documents: list[ListedBody]
    missing: list[str] = Field(description="Ids that no document has.")


class DeletedBody(BaseModel):
    """How many documents were deleted."""

    deleted: int
    missing: list[str] = Field(description="Ids that no document had.")
    warnings: Warnings = None


class UpdatedBody(BaseModel):
    """How many documents have the metadata that was asked for."""

    updated: int
    missing: list[str] = Field(description="Ids that no document has.")
    warnings: Warnings = None

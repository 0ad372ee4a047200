"""Searches and their hits."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.requests import Body
from service.api.schemas.fields import Texts, Truncate, examples
from service.collections.service import MOST_HITS

HitField = Literal["text", "metadata", "span"]


class SearchRequest(Body):
    """A search by one text, by several, or by a vector."""

    model_config = examples({"query": "music", "k": 3, "filter": {"year": {"$gte": 2000}}})

    query: str | None = None
    queries: Texts | None = None
    vector: Annotated[list[float], Field(fail_fast=True)] | None = None
    k: int = Field(default=10, ge=1, le=MOST_HITS, description="Hits wanted; fewer come back where fewer match.")
    filter: dict[str, Any] | None = Field(
        None, description="On metadata, with $eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not."
    )
    group: Literal["document"] | None = Field(
        default=None, description="In a chunked collection: one hit a document, that of its best span."
    )
    exact: bool = Field(default=False, description="Compare every vector, whatever the index could do.")
    include: list[HitField] = Field(default=["text", "metadata", "span"], fail_fast=True)
    truncate: Truncate = False

    @model_validator(mode="after")
    def _check_query(self) -> Self:
        given = [name for name in ("query", "queries", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_query",
                "give one of 'query', 'queries' and 'vector'; this has {given}.",
                {"given": " and ".join(map(repr, given)) or "none"},
            )
        return self


class HitSpan(BaseModel):
    """Where in a document's text a span starts and ends, exclusive, in characters."""

    start: int
    end: int
    text: str


class HitBody(BaseModel):
    """A document found, or in a chunked collection a span of one; `score` is by the collection's similarity."""

    id: str
    score: float
    text: str | None = None
    metadata: dict[str, Any] | None = None
    span: HitSpan | None = None


class Hits(BaseModel):
    """Hits, the best first."""

    hits: list[HitBody]


class SearchResults(BaseModel):
    """Hits for each of several queries."""

    results: list[Hits]

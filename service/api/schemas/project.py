"""`/project`, and the same of a collection."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, PoolingsRequest, examples
from service.api.schemas.search import Filter, Warnings

Explained = Annotated[
    list[float], Field(min_length=2, max_length=2, description="The share of the vectors' variance along each axis.")
]
PointsOf = Annotated[
    list[list[float]],
    Field(description="The place of each, around the origin, at a root mean square distance of one from it."),
]


class ProjectRequest(PoolingsRequest):
    """Texts, and the poolings to project them under."""

    model_config = examples({"texts": SENTENCES, "pooling": ["mean", "max"]})

    texts: list[str]


class ProjectedView(BaseModel):
    """The texts under one strategy."""

    pooling: str
    explained: Explained
    points: PointsOf


class ProjectedBody(BaseModel):
    """One view of the texts a strategy, in the order asked for."""

    model: str
    views: list[ProjectedView]


class ProjectCollectionRequest(Body):
    """Which documents of a collection are projected."""

    model_config = examples({"limit": 500})

    filter: Filter = None
    limit: int = Field(default=1_000, ge=1, le=5_000, description="The first so many in the order of storing.")


class ProjectedCollection(BaseModel):
    """Documents of a collection, or in a chunked one their spans, by the vectors that are stored."""

    total: int = Field(description="Documents that match.")
    ids: list[str] = Field(description="The document of each point.")
    spans: list[list[int]] | None = Field(
        default=None, description="In a chunked collection: where the span of each point begins and ends."
    )
    explained: Explained
    points: PointsOf
    warnings: Warnings = None

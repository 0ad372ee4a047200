"""`/project`: texts, or documents of a collection, as points of a plane."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list_of, json_object, response_in_parts, warnings_of
from service.api.schemas.fields import CollectionName
from service.api.schemas.problem import UNKNOWN_MODEL, problem
from service.api.schemas.project import ProjectCollectionRequest, ProjectedBody, ProjectedCollection, ProjectRequest
from service.collections.positions import positions
from service.embedding.projection import project_texts, to_json
from service.store.filters import Filter

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/project", response_model=ProjectedBody, responses=UNKNOWN_MODEL)
async def project(body: ProjectRequest, served: Served) -> Response:
    """Texts in two dimensions under one or several strategies: the first two principal components of their vectors.

    The points of each strategy after the first are turned to lie as near as they can to the first one's.
    """
    model, found = await project_texts(
        served.models,
        body.viewing(served.models),
        body.texts,
    )
    views = (json_object(pooling=each.pooling, **to_json(each.plane)) for each in found)
    return await response_in_parts(json_object(model=model, views=json_list_of(views)))


@router.post(
    "/collections/{name}/project",
    response_model=ProjectedCollection,
    response_model_exclude_none=True,
    responses=problem(404, "No such collection"),
    tags=["collections"],
)
async def project_collection(name: CollectionName, body: ProjectCollectionRequest, served: Served) -> Response:
    """Documents of a collection in two dimensions: the first two principal components of their stored vectors."""
    condition = Filter.of(body.filter)
    found = await positions(served.collections, name, body.limit, condition)
    spans = {} if found.spans is None else {"spans": found.spans}
    return await response_in_parts(
        json_object(total=found.total, ids=found.ids, **spans, **to_json(found.plane), **warnings_of(condition))
    )

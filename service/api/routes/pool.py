"""`/pool`: what poolings make of token states that are sent."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list, json_list_of, json_object, response_in_parts
from service.api.schemas.pool import PoolBody, PoolRequest
from service.embedding.laboratory import Pooled
from service.embedding.laboratory import pool as pool_states

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/pool", response_model=PoolBody)
async def pool(body: PoolRequest, served: Served) -> Response:
    """Token states of your own under one or several strategies: vectors, weights and gradients. No model is asked."""
    found = await pool_states(body.states, body.poolings, counts=body.counts, query=body.query)
    return await response_in_parts(json_object(poolings=json_list_of(map(_pooled, found))))


def _pooled(each: Pooled) -> Iterator[bytes]:
    return json_object(
        pooling=each.pooling,
        vector=each.vector,
        weights=json_list(each.weights),
        gradient=json_list(each.gradient),
    )

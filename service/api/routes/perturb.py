"""`/perturb`: a text disturbed in several ways, under several poolings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list_of, json_object, response_in_parts
from service.api.schemas.perturb import PerturbedBody, PerturbRequest
from service.api.schemas.problem import UNKNOWN_MODEL
from service.embedding.perturb import Outcome
from service.embedding.perturb import perturb as perturb_text

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/perturb", response_model=PerturbedBody, responses=UNKNOWN_MODEL)
async def perturb(body: PerturbRequest, served: Served) -> Response:
    """How far a text's vector moves under each of several strategies as the text or its states are disturbed."""
    found = await perturb_text(
        served.models,
        body.viewing(served.models),
        body.text,
        [each.change for each in body.changes],
    )
    return await response_in_parts(
        json_object(
            model=found.model,
            **({} if found.layers == "last" else {"layers": found.layers}),
            limit=found.limit,
            tokens=found.tokens,
            poolings=found.poolings,
            changes=json_list_of(map(_outcome, found.outcomes)),
        )
    )


def _outcome(outcome: Outcome) -> Iterator[bytes]:
    return json_object(**asdict(outcome))

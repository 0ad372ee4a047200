"""`/compare`: texts under several poolings, from one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list, json_list_of, json_object, response_in_parts
from service.api.schemas.compare import ComparedBody, CompareRequest
from service.api.schemas.problem import UNKNOWN_MODEL
from service.embedding.compare import View
from service.embedding.compare import compare as compare_texts
from service.embedding.embedder import TokenStates

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/compare", response_model=ComparedBody, responses=UNKNOWN_MODEL)
async def compare(body: CompareRequest, served: Served) -> Response:
    """Texts under one or several strategies: the share of each token, the vectors, and the cosine of each two."""
    found = await compare_texts(
        served.models,
        body.viewing(served.models),
        body.texts,
        numbers=body.numbers,
    )
    return await response_in_parts(
        json_object(
            model=found.model,
            **({} if found.layers == "last" else {"layers": found.layers}),
            head=found.head or None,
            limit=found.limit,
            texts=json_list_of(map(_text, found.texts)),
            views=json_list_of(map(_view, found.views)),
        )
    )


def _text(text: TokenStates) -> Iterator[bytes]:
    def to_json(index: int, token: str) -> dict[str, Any]:
        start, end = text.offsets[index] or (None, None)
        return {"token": token, "start": start, "end": end}

    return json_object(tokens=json_list(text.tokens, to_json), prompt=text.left_out, truncated=text.truncated)


def _view(view: View) -> Iterator[bytes]:
    def to_json(index: int, vector: Any) -> dict[str, Any]:
        return {"shares": view.shares[index], "norm": view.norms[index], "vector": vector}

    return json_object(
        pooling=view.pooling,
        dimension=view.dimension,
        texts=json_list(view.vectors, to_json),
        cosines=json_list(view.cosines),
    )

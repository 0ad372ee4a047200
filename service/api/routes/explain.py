"""`/explain`: which token gave how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response

from service.api.dependencies import Served
from service.api.disconnect import ReadingRoute
from service.api.json import answer_in_parts, listed, members
from service.api.schemas.explain import ExplainedBody, ExplainRequest
from service.api.schemas.problem import PROBLEMS
from service.embedding.embedder import TokenStates
from service.embedding.explain import Explained, Explanation, Numbers, Pair
from service.embedding.explain import explain as explained

router = APIRouter(tags=["embed"], route_class=ReadingRoute)


@router.post("/explain", response_model=ExplainedBody, responses=PROBLEMS)
async def explain(body: ExplainRequest, served: Served) -> Response:
    """Each token's share of the vector under one or several strategies; with `other`, what makes both texts alike.

    A share is a token's weight, all of them made to add up to one; where each dimension has weights of its own
    (max, gem, concatenations), the mean over the dimensions. Tokens of a prompt that are not pooled have none.
    """
    found = await explained(
        served.models,
        body.text,
        body.other,
        poolings=body.poolings,
        model=body.model,
        truncate="right" if body.truncate else None,
        prompt_name=body.prompt_name,
        matrices=body.matrix,
    )
    return await answer_in_parts(_shown(found, body))


def _shown(found: Explained, body: ExplainRequest) -> Iterator[bytes]:
    yield b"{" + members(model=found.model, head=found.head or None) + b',"explanations":['
    for place, explanation in enumerate(found.explanations):
        yield (b",{" if place else b"{") + members(pooling=explanation.pooling) + b',"tokens":'
        if explanation.pair is None or found.other is None:
            yield from _tokens(found.text, explanation.shares)
        else:
            yield from _pair(found.text, found.other, explanation, explanation.pair, matrix=body.matrix)
        yield b"}"
    yield b"]}"


def _pair(
    text: TokenStates, other: TokenStates, explanation: Explanation, pair: Pair, *, matrix: bool
) -> Iterator[bytes]:
    yield from _tokens(text, explanation.shares, pair.contributions)
    yield b',"other":'
    yield from _tokens(other, pair.other_shares, pair.other_contributions)
    pairs = [
        {
            "index": i,
            "token": text.tokens[i],
            "other_index": j,
            "other_token": other.tokens[j],
            "contribution": pair.matrix[i, j],
        }
        for i, j in pair.strongest
    ]
    yield b"," + members(
        similarity=pair.similarity,
        served_similarity=pair.served_similarity,
        attribution="exact" if pair.exact else "by share",
        pairs=pairs,
    )
    if matrix:
        yield b',"matrix":'
        yield from listed(pair.matrix)


def _tokens(text: TokenStates, shares: Numbers, contributions: Numbers | None = None) -> Iterator[bytes]:
    def one(place: int, token: str) -> dict[str, Any]:
        start, end = text.offsets[place] or (None, None)
        shown = {"token": token, "start": start, "end": end, "share": shares[place]}
        return shown if contributions is None else shown | {"contribution": contributions[place]}

    yield from listed(text.tokens, one)

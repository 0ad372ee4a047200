"""`/embed` and `/embed_all`, as text-embeddings-inference has them and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.disconnect import ReadingRoute
from service.api.json import answer_in_parts, listed, members
from service.api.schemas import EmbedAllRequest, EmbedRequest, Problem, TokenStatesBody
from service.api.service import Served
from service.embedder import TokenStates

MOST_STATES: Final = 16_384
"""Tokens whose states one request may ask for; as JSON each is some kilobytes."""

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "The body is not JSON in UTF-8"},
    404: {"model": Problem, "description": "Unknown model"},
    413: {"model": Problem, "description": "A text too long, or too many texts"},
    422: {"model": Problem, "description": "Invalid input"},
    503: {"model": Problem, "description": "The queue is full; try again after `Retry-After` seconds"},
}

router = APIRouter(tags=["embed"], route_class=ReadingRoute)


@router.post("/embed", response_model=list[list[float]], responses=PROBLEMS)
async def embed(body: EmbedRequest, service: Served) -> Response:
    """One vector a text, under the model's pooling or another."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    service.check_count(len(texts), "inputs")
    embeddings = await service.models.get(body.model, body.pooling).embed(
        texts,
        prompt_name=body.prompt_name,
        truncate=body.side,
        normalize=body.normalize,
        dimensions=body.dimensions,
        where=_place(body),
    )
    return await answer_in_parts(listed(embeddings.vectors))


@router.post("/embed_all", response_model=list[TokenStatesBody], responses=PROBLEMS)
async def embed_all(body: EmbedAllRequest, service: Served) -> Response:
    """The encoder's token states of each text, before any pooling, with tokens and character offsets."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    service.check_count(len(texts), "inputs")
    found = await service.models.get(body.model).token_states(
        texts, prompt_name=body.prompt_name, truncate=body.side, max_total=MOST_STATES, where=_place(body)
    )
    return await answer_in_parts(_shown(found))


def _shown(found: Sequence[TokenStates]) -> Iterator[bytes]:
    for place, text in enumerate(found):
        yield (b",{" if place else b"[{") + members(tokens=text.tokens, offsets=text.offsets) + b',"states":'
        yield from listed(text.states)
        yield b"}"
    yield b"]"


def _place(body: EmbedAllRequest) -> Any:
    return (lambda _: "inputs") if isinstance(body.inputs, str) else "inputs[{}]".format

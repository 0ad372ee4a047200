"""`/embed` and `/embed_all`, supersets of text-embeddings-inference's routes, and `/embed_spans`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_list_of, json_object, response_in_parts
from service.api.schemas.embed import (
    EmbedAllRequest,
    EmbedRequest,
    EmbedSpansRequest,
    SpanVectorsBody,
    TokenStatesBody,
)
from service.api.schemas.problem import PROBLEMS
from service.api.schemas.spans import CutBody
from service.embedding.chunkers import Chunker
from service.errors import InvalidInput, Place

MOST_STATES: Final = 16_384
"""Token states in one response; as JSON, each is several kilobytes."""

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/embed", response_model=list[list[float]], responses=PROBLEMS)
async def embed(body: EmbedRequest, served: Served) -> Response:
    """One vector a text, under the model's pooling or another."""
    texts = body.texts
    check_count(served, len(texts), "inputs")
    embeddings = await served.models.get(body.model, body.pooling).embed(
        texts,
        prompt_name=body.prompt_name,
        truncate=body.side,
        normalize=body.normalize,
        dimensions=body.dimensions,
        where=places("inputs", several=body.several),
    )
    return await response_in_parts(json_list(embeddings.vectors))


@router.post("/embed_all", response_model=list[TokenStatesBody], responses=PROBLEMS)
async def embed_all(body: EmbedAllRequest, served: Served) -> Response:
    """The encoder's token states of each text, before any pooling, with tokens and character offsets."""
    texts = body.texts
    check_count(served, len(texts), "inputs")
    async with served.models.get(body.model).token_states(
        texts,
        prompt_name=body.prompt_name,
        truncate=body.side,
        max_total=MOST_STATES,
        where=places("inputs", several=body.several),
    ) as states:
        return await response_in_parts(
            json_list_of(
                json_object(tokens=text.tokens, offsets=text.offsets, states=json_list(text.states))
                for text in states
            )
        )


@router.post("/embed_spans", response_model=list[SpanVectorsBody], responses=PROBLEMS)
async def embed_spans(body: EmbedSpansRequest, served: Served) -> Response:
    """One vector a span of each text, pooled from one pass over the whole text (late chunking), or from its own.

    **Spans** are in characters, that is in Unicode code points, and the end is exclusive. Given ones may overlap,
    come twice and in any order. A token belongs to each span that it overlaps by more than white space, and counts
    whole: so a span may begin inside a token, or inside a character of several code points. Special tokens and a
    prompt belong to no span; under `cls` a span's vector is the state of its own first token, under `last` of its own
    last. A span that is empty, reversed, outside the text or without a token is refused.
    `{"tokens": n, "overlap": m}` cuts runs of n tokens that begin with the last m of the one before, and
    `{"by": "sentence"}` cuts sentences.

    **late** reads the whole text at once, so each vector knows its context. A text longer than the model takes is
    read in windows that share a quarter of their tokens or more, and a token's state comes from the window in which
    it has the most context on both sides; a span across windows is still one vector. No text is cut.

    **early** embeds the characters of each span as `/embed` would, special tokens and prompt included, and refuses
    or, with `truncate`, cuts a span that is too long.
    """
    texts = body.texts
    check_count(served, len(texts), "inputs")
    embedded = await served.models.get(body.model, body.pooling).embed_spans(
        texts,
        _spans(body, len(texts)),
        mode=body.mode,
        prompt_name=body.prompt_name,
        truncate=body.side,
        normalize=body.normalize,
        dimensions=body.dimensions,
        most=served.config.server.max_texts,
        where=places("inputs", several=body.several),
        where_span=partial(Place, "spans") if body.several else lambda _, span: Place("spans", span=span),
    )
    return await response_in_parts(
        json_list_of(json_object(spans=text.spans, vectors=json_list(text.vectors)) for text in embedded)
    )


def _spans(body: EmbedSpansRequest, texts: int) -> Chunker | Sequence[Sequence[Sequence[int]]]:
    """Return what cuts the texts, or the spans of each of them."""
    if isinstance(body.spans, CutBody):
        return body.spans.parsed()
    given: Sequence[Any] = body.spans
    several = body.several
    nested = bool(given) and bool(given[0]) and isinstance(given[0][0], list)
    if several != nested:
        raise InvalidInput(
            "several texts need their spans as a list of lists, [[[start, end], ...], ...], one list for each text."
            if several
            else "one text needs its spans as one list, [[start, end], ...].",
            where=Place("spans"),
        )
    if not several:
        return [given]
    if len(given) != texts:
        raise InvalidInput(
            f"spans has {len(given)} lists for {texts} texts; give one for each.", where=Place("spans")
        )
    return given

"""`/embed` and `/embed_all`, as text-embeddings-inference has them and more, and `/embed_spans`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.dependencies import Served, check_count
from service.api.disconnect import ReadingRoute
from service.api.json import answer_in_parts, listed, members
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
from service.embedding.embedder import SpanVectors, TokenStates
from service.errors import InvalidInput, Place

MOST_STATES: Final = 16_384
"""Tokens whose states one request may ask for; as JSON each is some kilobytes."""

router = APIRouter(tags=["embed"], route_class=ReadingRoute)


@router.post("/embed", response_model=list[list[float]], responses=PROBLEMS)
async def embed(body: EmbedRequest, served: Served) -> Response:
    """One vector a text, under the model's pooling or another."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count(served, len(texts), "inputs")
    embeddings = await served.models.get(body.model, body.pooling).embed(
        texts,
        prompt_name=body.prompt_name,
        truncate=body.side,
        normalize=body.normalize,
        dimensions=body.dimensions,
        where=_place(body),
    )
    return await answer_in_parts(listed(embeddings.vectors))


@router.post("/embed_all", response_model=list[TokenStatesBody], responses=PROBLEMS)
async def embed_all(body: EmbedAllRequest, served: Served) -> Response:
    """The encoder's token states of each text, before any pooling, with tokens and character offsets."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count(served, len(texts), "inputs")
    found = await served.models.get(body.model).token_states(
        texts, prompt_name=body.prompt_name, truncate=body.side, max_total=MOST_STATES, where=_place(body)
    )
    return await answer_in_parts(_shown(found))


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
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count(served, len(texts), "inputs")
    found = await served.models.get(body.model, body.pooling).embed_spans(
        texts,
        _spans(body, len(texts)),
        mode=body.mode,
        prompt_name=body.prompt_name,
        truncate=body.side,
        normalize=body.normalize,
        dimensions=body.dimensions,
        most=served.config.server.max_texts,
        where=_place(body),
        where_span=(lambda _, span: Place("spans", span=span))
        if isinstance(body.inputs, str)
        else partial(Place, "spans"),
    )
    return await answer_in_parts(_spans_shown(found))


def _spans(body: EmbedSpansRequest, texts: int) -> Chunker | Sequence[Sequence[Sequence[int]]]:
    """Return what cuts the texts, or the spans of each of them."""
    if isinstance(body.spans, CutBody):
        return body.spans.parsed()
    given: Sequence[Any] = body.spans
    several = not isinstance(body.inputs, str)
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


def _spans_shown(found: Sequence[SpanVectors]) -> Iterator[bytes]:
    for place, text in enumerate(found):
        yield (b",{" if place else b"[{") + members(spans=text.spans) + b',"vectors":'
        yield from listed(text.vectors)
        yield b"}"
    yield b"]"


def _shown(found: Sequence[TokenStates]) -> Iterator[bytes]:
    for place, text in enumerate(found):
        yield (b",{" if place else b"[{") + members(tokens=text.tokens, offsets=text.offsets) + b',"states":'
        yield from listed(text.states)
        yield b"}"
    yield b"]"


def _place(body: EmbedAllRequest) -> Any:
    return (lambda _: Place("inputs")) if isinstance(body.inputs, str) else partial(Place, "inputs")

"""Spans of whole texts: cut off the event loop, and pooled from the states of the whole text (late chunking)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, islice
from typing import Any, Final, TypeVar

import numpy as np
import torch

from pooling import masks, pool_spans
from service.arrays import Ids, Offsets, Vectors
from service.embedding.chunkers import Chunker
from service.embedding.postprocessing import ToStates, ToVectors
from service.embedding.spans import Span, check_amount, checked, trimmed
from service.embedding.windows import Windows, windows
from service.encoder import Encoder, PostProcess, RowFailed, TokenizedText
from service.encoder.reading import Where, parts
from service.errors import BrokenModel, InvalidInput, Place

T = TypeVar("T")
Spans = Chunker | Sequence[Sequence[Sequence[int]]]
"""What cuts all texts of a request, or for each text its spans."""
WhereSpan = Callable[[int, int], Place]
"""Gives the place of a span by the index of its text and its own, for errors."""

# Spans are cut and pooled here, one text at a time, while the encoder is at work on the next.
_SPANS: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spans")
_STATES_AT_ONCE: Final = 16_384
"""Tokens of several texts whose states are in memory at once."""
_CELLS: Final = 1 << 22
"""Spans times tokens that are compared at once."""


async def cut(
    texts: Sequence[str],
    offsets: Sequence[Offsets],
    spans: Spans,
    most: int,
    where: Where,
    where_span: WhereSpan,
    *,
    at_once: int,
) -> list[list[Span]]:
    """Cut texts, whose tokens are at `offsets`, into spans, or check the spans given.

    The model reads `at_once` tokens of a text at once; a sentence is no longer.

    Raises:
        InvalidInput: a given span is no span, or a text has none.
        TooLarge: there are more than `most` spans, or they overlap too much.
    """
    found: list[list[Span]] = []
    for start, part, _ in parts(texts):
        work = partial(_cut, texts, offsets, spans, where, where_span, at_once)
        found += await _on_thread(work, range(start, start + len(part)))
        check_amount(found, most)
    return found


async def pool_late(
    encoder: Encoder,
    run: Callable[[Sequence[Ids], PostProcess], Awaitable[list[Any]]],
    to_vectors: ToVectors,
    inputs: Sequence[str],
    texts: Sequence[TokenizedText],
    offsets: Sequence[Offsets],
    spans: Sequence[Sequence[Span]],
    prompt: str,
) -> list[Vectors]:
    """Embed spans from the states of their whole texts, which are read in windows if they are long.

    `run` is the batcher's, within the room that the request has. `texts` are the `inputs` tokenized with the prompt,
    `offsets` those of their tokens. Special tokens and those of the prompt are in every window and in no span.
    Returns (spans, dimensions) for each text.

    Raises:
        RowFailed: because of one of the texts.
    """
    front, back = encoder.tokenizer.frame_lengths(prompt)
    limit = to_vectors.recipe.max_tokens
    inner = [trimmed(text, found) for text, found in zip(inputs, spans, strict=True)]
    vectors: list[Vectors] = []
    for some in _groups([len(text.ids) for text in texts], _STATES_AT_ONCE):
        plans = [windows(len(text.ids), limit, front=front, back=back) for text in texts[some]]
        passes = [ids for plan, text in zip(plans, texts[some], strict=True) for ids in plan.cut(text.ids)]
        async with encoder.hold_states(sum(map(len, passes))):
            try:
                states = iter(await run(passes, ToStates(to_vectors.recipe.name)))
            except RowFailed as failed:
                text = next(index for index, last in enumerate(_ends(plans), some.start) if failed.index < last)
                raise RowFailed(text, failed.reason) from failed
            for text, plan in enumerate(plans, some.start):
                of_passes = list(islice(states, len(plan.starts)))
                try:
                    pooled = await _on_thread(_pool, to_vectors, plan, of_passes, offsets[text], inner[text])
                except BrokenModel as error:
                    raise RowFailed(text, error) from error
                vectors.append(pooled)
    return vectors


def _ends(plans: Sequence[Windows]) -> Iterator[int]:
    """Yield for each text how many passes there are up to its last one."""
    return accumulate(len(plan.starts) for plan in plans)


def _cut(
    texts: Sequence[str],
    offsets: Sequence[Offsets],
    spans: Spans,
    where: Where,
    where_span: WhereSpan,
    at_once: int,
    places: range,
) -> list[list[Span]]:
    found = []
    for place in places:
        if isinstance(spans, Chunker):
            found.append(spans(texts[place], offsets[place], at_once))
        else:
            found.append(checked(texts[place], offsets[place], spans[place], partial(where_span, place)))
        if not found[-1]:
            raise InvalidInput(
                f"{where(place)} has no span to embed; give one that holds a token, or leave the text out.",
                where=where(place),
            )
    return found


def _pool(
    to_vectors: ToVectors, plan: Windows, states: Sequence[Vectors], offsets: Offsets, spans: Offsets
) -> Vectors:
    """Pool the spans (spans, 2) of one text from the states of its passes: (spans, dimensions)."""
    tokens = torch.from_numpy(plan.join(states)).unsqueeze(0)
    where, characters = torch.from_numpy(offsets).unsqueeze(0), torch.from_numpy(spans).unsqueeze(0)
    step = max(1, _CELLS // len(offsets))
    found = []
    with torch.inference_mode():
        for first in range(0, len(spans), step):
            some = masks.spans(where, characters[:, first : first + step])
            pooled, _ = pool_spans(to_vectors.recipe.pooler, tokens, some)
            found.append(to_vectors.complete(pooled[0]))
    return np.concatenate(found)


def _groups(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Group neighbours that together have at most `most`; a larger one is a group of its own."""
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and held + size > most:
            yield slice(start, place)
            start, held = place, 0
        held += size
    yield slice(start, len(sizes))


async def _on_thread(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_SPANS, work, *arguments)

"""The ways in which a server may make a vector, right and wrong, and our vectors under each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.masks import from_lengths
from service.arrays import Vectors
from service.doctor.strategies import alternatives, finish, vectors_under
from service.embedding.embedder import Embedder
from service.embedding.head import Head
from service.embedding.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a vector. `prompt` is the name of what is put before the text."""

    pooling: str
    prompt: str | None = None
    skips_head: bool = False
    padding: str = ""

    def __str__(self) -> str:
        parts = [
            self.pooling,
            f"with the prompt {self.prompt!r}" if self.prompt else "",
            "without the layers after it" if self.skips_head else "",
            self.padding,
        ]
        return " ".join(part for part in parts if part)


async def ways_of(embedder: Embedder, texts: Sequence[str]) -> dict[Way, Vectors]:
    """Our vectors of the texts, each text alone in its mask."""
    found: dict[Way, Vectors] = {}
    prompts = [None, *(name for name, text in embedder.prompts.items() if text)]
    for prompt in prompts:
        recipe = replace(embedder.recipe, default_prompt=prompt)
        ways = dict(_recipes(recipe, prompt))
        prompted = Embedder(embedder.encoder, recipe)
        named = await vectors_under(prompted, {str(way): of for way, of in ways.items()}, texts)
        found |= {way: named[str(way)] for way in ways}
    return found


def _recipes(recipe: Recipe, prompt: str | None) -> Iterator[tuple[Way, Recipe]]:
    for spec, other in alternatives(recipe).items():
        yield Way(spec, prompt), other
        if recipe.head.layers:
            yield Way(spec, prompt, skips_head=True), replace(other, head=Head((), other.pooler.output_dim))


async def padded_ways(embedder: Embedder, texts: Sequence[str], way: Way) -> dict[Way, Vectors]:
    """Our vectors where all texts are padded to the longest and a server forgets that, for the strategies it changes.

    Each keeps the prompt and the layers of `way`.
    """
    prompt = embedder.prompts[way.prompt] if way.prompt else ""
    encoded = embedder.encoder.tokenizer.encode(texts, prompt=prompt)
    lengths = [len(text.ids) for text in encoded]
    ids = np.full((len(texts), max(lengths)), embedder.encoder.tokenizer.pad_id, dtype=np.int64)
    for row, text in zip(ids, encoded, strict=True):
        row[: len(text.ids)] = text.ids
    mask = from_lengths(lengths)
    tokens = await asyncio.to_thread(_states, embedder, ids, mask)
    recipe = dict(_recipes(embedder.recipe, way.prompt))[way]
    ways = {replace(way, padding="over the padding too"): finish(recipe, tokens, torch.ones_like(mask))}
    if way.pooling == "last":
        # With padding at the left, place n of a text of n tokens holds its token 2n - time, or padding.
        miscounted = torch.tensor(lengths) * 2 - mask.shape[1]
        known = miscounted > 0
        vectors = np.full_like(next(iter(ways.values())), np.nan)
        vectors[known] = finish(recipe, tokens[known], from_lengths(miscounted[known], mask.shape[1]))
        ways[replace(way, padding="counted from the left, where the padding is")] = vectors
    return ways


def _states(embedder: Embedder, ids: NDArray[np.int64], mask: Tensor) -> Tensor:
    embedder.encoder.runtime.prepare_thread()
    return embedder.encoder.runtime.states(ids, mask.numpy()).float()

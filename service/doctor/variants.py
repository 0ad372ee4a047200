"""Serving variants: how a server may make a vector, rightly or wrongly, and our vectors under each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pooling.masks import from_lengths
from service.arrays import Vectors
from service.doctor.strategies import alternatives, vectors_of, vectors_under
from service.embedding.embedder import Embedder
from service.embedding.head import Head
from service.embedding.recipe import Recipe
from service.encoder.tokenizer import pad


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make a vector: `prompt` is a name, and `padding` says how padding is pooled too, if it is."""

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


async def unpadded_variants(embedder: Embedder, texts: Sequence[str]) -> dict[Variant, Vectors]:
    """Embed texts under each variant that pools no padding."""
    found: dict[Variant, Vectors] = {}
    prompts = [None, *(name for name, text in embedder.recipe.prompts.items() if text)]
    for prompt in prompts:
        recipe = replace(embedder.recipe, default_prompt=prompt)
        recipes = dict(_recipes(recipe, prompt))
        prompted = Embedder(embedder.encoder, recipe)
        named = await vectors_under(prompted, {str(variant): of for variant, of in recipes.items()}, texts)
        found |= {variant: named[str(variant)] for variant in recipes}
    return found


async def padded_variants(embedder: Embedder, texts: Sequence[str], variant: Variant) -> dict[Variant, Vectors]:
    """Embed texts, all padded to the longest, as a server does that pools padding, otherwise under `variant`."""
    prompt = embedder.recipe.prompts[variant.prompt] if variant.prompt else ""
    encoded = embedder.encoder.tokenizer.encode(texts, prompt=prompt)
    lengths = [len(text.ids) for text in encoded]
    ids, real = pad([text.ids for text in encoded], embedder.encoder.tokenizer.pad_id)
    mask, tokens = torch.from_numpy(real), torch.from_numpy(ids)

    def run() -> Tensor:
        embedder.encoder.runtime.prepare_thread()
        return embedder.encoder.runtime.states(ids, real).float()

    states = await asyncio.to_thread(run)
    recipe = dict(_recipes(embedder.recipe, variant.prompt))[variant]
    found = {
        replace(variant, padding="over the padding too"): vectors_of(recipe, states, torch.ones_like(mask), tokens)
    }
    if variant.pooling == "last":
        # With padding at the left, position n of a text of n tokens holds its token 2n - time, or padding.
        miscounted = torch.tensor(lengths) * 2 - mask.shape[1]
        known = miscounted > 0
        vectors = np.full_like(next(iter(found.values())), np.nan)
        vectors[known] = vectors_of(
            recipe, states[known], from_lengths(miscounted[known], mask.shape[1]), tokens[known]
        )
        found[replace(variant, padding="counted from the left, where the padding is")] = vectors
    return found


def _recipes(recipe: Recipe, prompt: str | None) -> Iterator[tuple[Variant, Recipe]]:
    for spec, other in alternatives(recipe).items():
        yield Variant(spec, prompt), other
        if recipe.head.layers:
            yield Variant(spec, prompt, skips_head=True), replace(other, head=Head((), other.pooler.output_dim))

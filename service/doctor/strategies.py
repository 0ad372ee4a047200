"""The same texts under several poolings, from one pass of the encoder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pooling.masks import exclude_prefix, from_lengths
from service.arrays import Vectors
from service.doctor.findings import Evidence, Strategy
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.errors import InvalidInput, Place

FIXED: Final = ("cls", "mean", "max", "last", "weighted_mean", "gem(p=3.0)", "mean_sqrt_len")
"""The poolings that a checkpoint could be served with by mistake."""
_BLOCK: Final = 16
"""Texts whose token states are in memory at once."""


def alternatives(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe under each pooling that fits its head, its own and the declared one first."""
    declared = recipe.checkpoint.pooling
    found = {recipe.pooler.spec: recipe}
    for name, spec in (*([(declared, "declared")] if declared else []), *zip(FIXED, FIXED, strict=True)):
        if name not in found:
            try:
                found[name] = recipe.with_pooling(spec)
            except InvalidInput:  # the declared dense layers take vectors of another size
                continue
    return found


async def vectors_under(
    embedder: Embedder, recipes: Mapping[str, Recipe], texts: Sequence[str]
) -> dict[str, Vectors]:
    """Return the vectors (texts, dim) of texts under each recipe, from one pass of the embedder's encoder.

    Its default prompt is put before each text, which must have a token; texts that are too long are cut.
    """
    blocks: dict[str, list[Vectors]] = {name: [] for name in recipes}
    for start in range(0, len(texts), _BLOCK):
        some = texts[start : start + _BLOCK]
        async with embedder.token_states(some, truncate="right", max_total=sys.maxsize) as found:
            for recipe in recipes.values():
                for place, text in enumerate(found, start):
                    recipe.require_pooled(text.ids[text.left_out :], Place("texts", place))
            for name, vectors in (await asyncio.to_thread(_pooled, recipes, found)).items():
                blocks[name].append(vectors)
    return {name: np.concatenate(vectors) for name, vectors in blocks.items()}


def vectors_of(recipe: Recipe, states: Tensor, mask: Tensor, ids: Tensor) -> Vectors:
    """Make vectors (texts, dim) of states (texts, time, dim), mask and ids (texts, time) by the rule that serves."""
    with torch.inference_mode():
        found: Vectors = complete(recipe, recipe.pooler(states, recipe.pooled(mask, ids))).numpy()
        return found


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each row with the row of the same index."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    found: NDArray[np.float64] = (left * right).sum(1) / (
        np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    )
    return found


def compared(vectors: Mapping[str, Vectors], base: Vectors, evidence: Mapping[str, Evidence]) -> list[Strategy]:
    """Compare the vectors of each pooling with `base`; the nearest comes first."""
    found = {name: cosines(of, base) for name, of in vectors.items()}
    rows = [Strategy(name, float(of.mean()), float(of.min()), evidence.get(name)) for name, of in found.items()]
    return sorted(rows, key=lambda row: -round(row.cosine, 6))


def _pooled(recipes: Mapping[str, Recipe], texts: Sequence[TokenStates]) -> dict[str, Vectors]:
    states = pad_sequence([torch.from_numpy(text.states) for text in texts], batch_first=True)
    mask = exclude_prefix(from_lengths([len(text.states) for text in texts]), texts[0].left_out)
    ids = pad_sequence([torch.from_numpy(text.ids) for text in texts], batch_first=True)
    return {name: vectors_of(recipe, states, mask, ids) for name, recipe in recipes.items()}

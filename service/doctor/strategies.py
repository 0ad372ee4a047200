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

from pooling.masks import exclude_prefix, from_lengths
from service.arrays import Vectors
from service.doctor.findings import Evidence, Strategy
from service.embedding.embedder import Embedder
from service.embedding.recipe import Recipe
from service.errors import InvalidInput

FIXED: Final = ("cls", "mean", "max", "last", "weighted_mean", "gem(p=3.0)", "mean_sqrt_len")
"""The strategies that a checkpoint could be served with by mistake."""
_CHUNK: Final = 16
"""Texts whose token states are in memory at once."""


def alternatives(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe under each strategy that its head takes, its own and the declared one first."""
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
    """Vectors (texts, dim) under each recipe; texts that are too long are cut.

    Args:
        embedder: whose encoder runs and whose default prompt is put before each text.
        recipes: what is done with the states.
        texts: each with a token that the encoder knows.

    """
    prompt = embedder.prompt(None)
    front = embedder.encoder.tokenizer.prompt_length(prompt) if prompt and not embedder.include_prompt else 0
    parts: dict[str, list[Vectors]] = {name: [] for name in recipes}
    for start in range(0, len(texts), _CHUNK):
        found = await embedder.token_states(texts[start : start + _CHUNK], truncate="right", max_total=sys.maxsize)
        states = [torch.from_numpy(text.states) for text in found]
        for name, vectors in (await asyncio.to_thread(_pool, recipes, states, front)).items():
            parts[name].append(vectors)
    return {name: np.concatenate(vectors) for name, vectors in parts.items()}


def finish(recipe: Recipe, tokens: Tensor, mask: Tensor) -> Vectors:
    """States (batch, time, dim) and mask (batch, time) to vectors (batch, dim), as the recipe has it."""
    with torch.inference_mode():
        vectors = recipe.head.eval()(recipe.pooler.eval()(tokens, mask))
        if recipe.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        found: Vectors = vectors[:, : recipe.truncate_dim].numpy()
        return found


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Cosine of each row with the row of the same place."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    found: NDArray[np.float64] = (left * right).sum(1) / (
        np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    )
    return found


def compared(vectors: Mapping[str, Vectors], base: Vectors, evidence: Mapping[str, Evidence]) -> list[Strategy]:
    """A row for each strategy, the nearest to `base` first."""
    rows = []
    for name, of in vectors.items():
        found = cosines(of, base)
        rows.append(Strategy(name, float(found.mean()), float(found.min()), evidence.get(name)))
    return sorted(rows, key=lambda row: -round(row.cosine, 6))


def _pool(recipes: Mapping[str, Recipe], states: Sequence[Tensor], front: int) -> dict[str, Vectors]:
    tokens = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    mask = exclude_prefix(from_lengths([len(text) for text in states]), front)
    return {name: finish(recipe, tokens, mask) for name, recipe in recipes.items()}

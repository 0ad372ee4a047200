"""Texts side by side under several poolings: each token's share, the vectors, and how alike they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from service.arrays import Floats
from service.embedding.embedder import TokenStates
from service.embedding.explain import (
    EXPLAINING,
    MOST_ENTRIES,
    MOST_NUMBERS,
    MOST_TOKENS,
    pooled,
    require_size,
    require_work,
    shares_of,
)
from service.embedding.models import Models
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.embedding.viewing import Viewing
from service.errors import BrokenModel, InvalidInput, Place, TooLarge

MOST_COMPARED: Final = 64
"""Most texts of one request."""


@dataclass(frozen=True, slots=True)
class View:
    """Texts under one pooling.

    Args:
        pooling: the pooling.
        shares: of each text, the share of each of its tokens, (tokens,); each adds up to one.
        norms: the length of each pooled vector, before any head and before it is normalised, (texts,).
        dimension: of the vectors as they are served.
        vectors: their leading numbers, as many as are asked for, (texts, numbers).
        cosines: of each two of them, (texts, texts).
    """

    pooling: str
    shares: list[Floats]
    norms: Floats
    dimension: int
    vectors: Floats
    cosines: Floats


@dataclass(frozen=True, slots=True)
class Compared:
    """What texts are under several poolings.

    Args:
        model: the model's name.
        layers: whose states are pooled, as `Layers.spec` has it.
        head: the layers between the pooled vector and the one served; may be empty.
        limit: the tokens of the longest text that the model takes.
        texts: the tokens of each text.
        views: one a pooling, in the order asked for.
    """

    model: str
    layers: str | dict[str, Any]
    head: str
    limit: int
    texts: list[TokenStates]
    views: list[View]


async def compare(
    models: Models,
    viewing: Viewing,
    texts: Sequence[str],
    *,
    numbers: int = 8,
) -> Compared:
    """Compare texts under each of several poolings, from one pass over the encoder.

    Args:
        models: the served models.
        viewing: the poolings that the texts are seen under, and how they are read.
        texts: the texts.
        numbers: how many leading numbers of each vector are wanted.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    if not 1 <= len(texts) <= MOST_COMPARED:
        raise InvalidInput(
            f"{len(texts)} texts are sent; one request compares from 1 to {MOST_COMPARED}.", where=Place("texts")
        )
    embedders = viewing.embedders(models)
    prompt_name, role = viewing.asked
    _check_given(len(texts) * sum(min(numbers, embedder.dim) for embedder in embedders))
    where = partial(Place, "texts")
    async with embedders[0].token_states(
        texts, prompt_name=prompt_name, role=role, truncate=viewing.truncate, max_total=MOST_TOKENS, where=where
    ) as found:
        for index, states in enumerate(found):
            for embedder in embedders:
                require_size(states, embedder.recipe, where(index))
                embedder.recipe.require_pooled(states.ids[states.left_out :], where(index))
        lengths = [len(states.tokens) for states in found]
        for embedder in embedders:
            _check_size(sum(lengths), embedder.recipe)
        require_work([embedder.recipe.pooler for embedder in embedders], lengths)
        views = [
            await asyncio.get_running_loop().run_in_executor(
                EXPLAINING, partial(_view, embedder.recipe, found, numbers)
            )
            for embedder in embedders
        ]
    recipe = embedders[0].recipe
    return Compared(recipe.name, recipe.layers.spec, recipe.head.spec, recipe.max_tokens, found, views)


def _check_given(given: int) -> None:
    if given > MOST_ENTRIES:
        raise TooLarge(
            f"the vectors asked for have {given} numbers together, and one answer holds {MOST_ENTRIES}. Ask for "
            "fewer 'numbers' of each, or send fewer texts or poolings.",
            where=Place("numbers"),
            limit=MOST_ENTRIES,
        )


def _check_size(tokens: int, recipe: Recipe) -> None:
    """Raise `TooLarge` where a view of all texts takes more than what one explanation may."""
    dimensions = recipe.pooler.output_dim
    if tokens * dimensions > MOST_NUMBERS:
        raise TooLarge(
            f"the texts have {tokens} tokens together and pooling {recipe.pooler.spec!r} {dimensions} dimensions: to "
            f"compare them takes {tokens * dimensions} numbers, and the most is {MOST_NUMBERS}. Send fewer or "
            "shorter texts, or ask for a smaller pooling.",
            where=Place("texts"),
            limit=MOST_NUMBERS,
        )


def _view(recipe: Recipe, texts: Sequence[TokenStates], numbers: int) -> View:
    with torch.inference_mode():
        shares = [shares_of(recipe, text) for text in texts]
        # Each by itself: texts of other lengths beside it would need padding.
        vectors = torch.cat([recipe.pooler(*pooled(recipe, text)) for text in texts]).float()
        served = complete(recipe, vectors)
        if not torch.isfinite(served).all():
            raise BrokenModel(recipe.name)
        return View(
            recipe.pooler.spec,
            shares,
            torch.linalg.vector_norm(vectors, dim=1).numpy(),
            served.shape[1],
            served[:, :numbers].clone().numpy(),
            _cosines(served).numpy(),
        )


def _cosines(vectors: Tensor) -> Tensor:
    """Vectors (texts, dim) -> the cosine of each two (texts, texts), 0 where one has no length."""
    units = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (units @ units.T).clamp(-1, 1).float()

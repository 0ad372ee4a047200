"""Explanations: what each token contributes to a vector, or to the similarity of two texts, by pooling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from pooling import Pooler
from pooling import explain as algebra
from pooling.layers import LayerSpec
from pooling.masks import exclude_prefix
from service.arrays import Floats
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.models import Models
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe, Spec
from service.encoder.reading import Cut
from service.errors import BrokenModel, InvalidInput, Place, TooLarge

MOST_STRATEGIES: Final = 16
"""Most poolings in one request."""
MOST_TOKENS: Final = 2_048
"""Most tokens of a text, or of two together: more than anyone looks at."""
MOST_NUMBERS: Final = 2**24
"""Most numbers in the terms of one text, tokens times dimensions."""
MOST_ENTRIES: Final = 2**19
"""Most entries of all matrices in one answer."""
PAIRS: Final = 10
"""Token pairs that are listed for two texts."""

EXPLAINING: Final = ThreadPoolExecutor(
    max_workers=1, thread_name_prefix="explain", initializer=torch.set_num_threads, initargs=(1,)
)
"""One thread, with one core: an explanation briefly needs much memory, and those who embed need the other cores."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What the tokens of two texts contribute to the cosine of their pooled vectors.

    Args:
        similarity: the cosine, which is the sum of either text's contributions.
        served_similarity: the cosine of the vectors that are served, after the head.
        exact: whether contributions are terms of a sum, rather than the vector divided by share.
        contributions: the contribution of each token of the text, (tokens,).
        other_shares: the share of each token of the other text in that text's vector, (other tokens,).
        other_contributions: the contribution of each token of the other text, (other tokens,).
        matrix: the contribution of each pair of tokens, (tokens, other tokens).
        strongest: indices into `matrix` of the entries largest in magnitude.
    """

    similarity: float
    served_similarity: float
    exact: bool
    contributions: Floats
    other_shares: Floats
    other_contributions: Floats
    matrix: Floats
    strongest: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The share of each token under one pooling, which add up to one; for two texts also what makes them alike."""

    pooling: str
    shares: Floats
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class Explained:
    """Explanations of one text or two.

    Args:
        model: the model's name.
        layers: whose states are pooled, as `Layers.spec` has it.
        head: the layers between the pooled vector, which is explained, and the one served; may be empty.
        text: the text's tokens.
        other: the other text's tokens, if there is one.
        explanations: one per pooling, in the order asked for.
    """

    model: str
    layers: str | dict[str, Any]
    head: str
    text: TokenStates
    other: TokenStates | None
    explanations: list[Explanation]


async def explain(
    models: Models,
    text: str,
    other: str | None = None,
    *,
    poolings: Sequence[Spec | None] = (None,),
    layers: LayerSpec | None = None,
    model: str | None = None,
    truncate: Cut = None,
    prompt_name: str | None = None,
    matrices: bool = False,
) -> Explained:
    """Explain a text's vector, or the similarity of two texts, under each of several poolings.

    What is explained is the pooled vector, before any head of the checkpoint. The encoder runs once.

    Args:
        models: the served models.
        text: the text to explain.
        other: a text to explain its similarity to.
        poolings: the poolings; None is the model's own.
        layers: whose states each of them pools; None are the model's own.
        model: name of the model; None is the default one.
        truncate: the side at which a text that is too long is cut; False refuses it, None does as configured.
        prompt_name: name of the prompt to use instead of the default one.
        matrices: whether the whole matrices are wanted, which limits their size.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    require_count(poolings)
    if matrices and other is None:
        raise InvalidInput("a matrix is of the tokens of two texts; send 'other' too.", where=Place("matrix"))
    embedders = [embedder_of(models, model, spec, layers) for spec in poolings]
    names = ["text"] if other is None else ["text", "other"]
    async with embedders[0].token_states(
        [text] if other is None else [text, other],
        prompt_name=prompt_name,
        truncate=truncate,
        max_total=MOST_TOKENS,
        where=[Place(name) for name in names].__getitem__,
    ) as found:
        for name, states in zip(names, found, strict=True):
            for embedder in embedders:
                require_size(states, embedder.recipe, Place(name))
                embedder.recipe.require_pooled(states.ids[states.left_out :], Place(name))
        if matrices and other is not None:
            _check_entries(len(found[0].tokens) * len(found[1].tokens) * len(embedders))
        explanations = [
            await asyncio.get_running_loop().run_in_executor(EXPLAINING, partial(_explain, embedder.recipe, *found))
            for embedder in embedders
        ]
    recipe = embedders[0].recipe
    second = found[1] if other is not None else None
    return Explained(recipe.name, recipe.layers.spec, recipe.head.spec, found[0], second, explanations)


def require_count(poolings: Sequence[Spec | None]) -> None:
    """Raise `InvalidInput` for no pooling, or more than one request takes."""
    if not 1 <= len(poolings) <= MOST_STRATEGIES:
        raise InvalidInput(
            f"{len(poolings)} poolings are asked for; one request takes from 1 to {MOST_STRATEGIES}.",
            where=Place("pooling"),
        )


def embedder_of(models: Models, name: str | None, spec: Spec | None, layers: LayerSpec | None) -> Embedder:
    """Return a model's embedder under a pooling that may be its own; raises `ServiceError` as `Models.get`."""
    own = models.get(name)
    pooler = own.recipe.pooler
    learned = any(isinstance(part, Pooler) and part.learned for part in pooler.modules())
    # A learned pooling may be asked for by name too if it is the model's own: it is fitted there and nowhere else.
    return models.get(name, None if learned and spec == pooler.spec else spec, layers)


def require_size(text: TokenStates, recipe: Recipe, where: Place) -> None:
    """Raise `TooLarge` for a text whose terms have too many numbers under a pooling."""
    tokens, dimensions = len(text.tokens), recipe.pooler.output_dim
    if tokens * dimensions > MOST_NUMBERS:
        raise TooLarge(
            f"{where} has {tokens} tokens and pooling {recipe.pooler.spec!r} {dimensions} dimensions: to explain "
            f"it takes {tokens * dimensions} numbers, and the most is {MOST_NUMBERS}. Send a shorter text, or ask "
            "for a smaller pooling.",
            where=where,
            limit=MOST_NUMBERS,
        )


def _check_entries(entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise TooLarge(
            f"the matrices asked for have {entries} entries, and one answer holds {MOST_ENTRIES}. Ask for fewer "
            "poolings at once, send shorter texts, or leave 'matrix' out.",
            where=Place("matrix"),
            limit=MOST_ENTRIES,
        )


def _explain(recipe: Recipe, text: TokenStates, other: TokenStates | None = None) -> Explanation:
    with torch.inference_mode():
        shares = shares_of(recipe, text)
        pair = None if other is None else _pair(recipe, text, other)
    return Explanation(recipe.pooler.spec, shares, pair)


def _pair(recipe: Recipe, text: TokenStates, other: TokenStates) -> Pair:
    first, second = (recipe.pooler.terms(*pooled(recipe, one)) for one in (text, other))
    matrix = algebra.similarity(first, second)[0]
    served = complete(recipe, torch.cat([first.sum(1), second.sum(1)]).float())
    return Pair(
        similarity=_finite(recipe, matrix.sum()).item(),
        served_similarity=torch.cosine_similarity(served[0], served[1], dim=0).item(),
        exact=recipe.pooler.exact,
        contributions=_floats(matrix.sum(1)),
        other_shares=shares_of(recipe, other),
        other_contributions=_floats(matrix.sum(0)),
        matrix=_floats(matrix),
        strongest=algebra.strongest(matrix, PAIRS),
    )


def shares_of(recipe: Recipe, text: TokenStates) -> Floats:
    """Return the share of each token, (tokens,); raises `BrokenModel` where one is not finite."""
    return _floats(_finite(recipe, algebra.shares(recipe.pooler, *pooled(recipe, text))[0]))


def pooled(recipe: Recipe, text: TokenStates) -> tuple[Tensor, Tensor]:
    """Return states (1, tokens, dim), in double precision so that sums are exact, and the mask of those pooled."""
    states = torch.from_numpy(text.states).double().unsqueeze(0)
    mask = torch.ones(states.shape[:2], dtype=torch.bool)
    return states, recipe.pooled(exclude_prefix(mask, text.left_out), torch.from_numpy(text.ids).unsqueeze(0))


def _finite(recipe: Recipe, found: Tensor) -> Tensor:
    if not torch.isfinite(found).all():
        raise BrokenModel(recipe.name)
    return found


def _floats(found: Tensor) -> Floats:
    return found.float().numpy()

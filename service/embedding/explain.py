"""Explanations: what each token contributes to a vector, or to the similarity of two texts, by pooling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from pooling import Pooler
from pooling import explain as algebra
from pooling.masks import exclude_prefix
from pooling.work import work
from service.arrays import Floats
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.models import Models
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.embedding.viewing import Asked, Viewing
from service.encoder.reading import Cut
from service.errors import BrokenModel, InvalidInput, Place, TooLarge, shortened

MOST_TOKENS: Final = 2_048
"""Most tokens of a text, or of two together: more than anyone looks at."""
MOST_NUMBERS: Final = 2**24
"""Most numbers in the terms of one text, tokens times dimensions."""
MOST_ENTRIES: Final = 2**19
"""Most entries of all matrices in one answer."""
MOST_WORK: Final = 2**27
"""Most `work` of the poolings of a request over its texts: about a second of a thread that others wait for."""
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
    viewing: Viewing,
    text: str,
    other: str | None = None,
    *,
    asked_of_other: Asked | None = None,
    matrices: bool = False,
) -> Explained:
    """Explain a text's vector, or the similarity of two texts, under each of several poolings.

    What is explained is the pooled vector, before any head of the checkpoint. The encoder runs once, or once for each
    text where the two are for something else.

    Args:
        models: the served models.
        viewing: the poolings that the texts are seen under, and how they are read.
        text: the text to explain.
        other: a text to explain its similarity to.
        asked_of_other: the same of the other text; by default as of the text.
        matrices: whether the whole matrices are wanted, which limits their size.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    if matrices and other is None:
        raise InvalidInput("a matrix is of the tokens of two texts; send 'other' too.", where=Place("matrix"))
    embedders, asked = viewing.models(models), viewing.asked
    purposes = [("text", asked)] if other is None else [("text", asked), ("other", asked_of_other or asked)]
    recipes = [[each.of(role, prompt).recipe for each in embedders] for _, (prompt, role) in purposes]
    async with _states(embedders[0], [text] if other is None else [text, other], purposes, viewing.truncate) as found:
        for (name, _), states, of_text in zip(purposes, found, recipes, strict=True):
            for recipe in of_text:
                require_size(states, recipe, Place(name))
                recipe.require_pooled(states.ids[states.left_out :], Place(name))
        spent = 0
        for states, of_text in zip(found, recipes, strict=True):
            spent = require_work([recipe.pooler for recipe in of_text], [len(states.tokens)], spent)
        if matrices and other is not None:
            _check_entries(len(found[0].tokens) * len(found[1].tokens) * len(embedders))
        for both in zip(*recipes, strict=True):
            _check_comparable(both)
        explanations = [
            await asyncio.get_running_loop().run_in_executor(EXPLAINING, partial(_explain, both, found))
            for both in zip(*recipes, strict=True)
        ]
    used = [of_text[0] for of_text in recipes]
    second = found[1] if other is not None else None
    head = _told([recipe.head.spec for recipe in used])
    return Explained(used[0].name, used[0].layers.spec, head, found[0], second, explanations)


@asynccontextmanager
async def _states(
    embedder: Embedder, texts: Sequence[str], purposes: Sequence[tuple[str, Asked]], truncate: Cut
) -> AsyncIterator[list[TokenStates]]:
    """Give the states of one text, or of two, of one pass where both are for the same."""
    places = [Place(name) for name, _ in purposes]
    states = partial(embedder.token_states, truncate=truncate)
    prompt, role = purposes[0][1]
    if purposes[0][1] == purposes[-1][1]:
        where = places.__getitem__
        async with states(texts, prompt_name=prompt, role=role, max_total=MOST_TOKENS, where=where) as found:
            yield found
        return
    # Whoever holds the states of one text while waiting for memory for another's may wait for one that does the same.
    one, other = (partial(states, [text], where=lambda _, at=at: at) for text, at in zip(texts, places, strict=True))
    async with one(prompt_name=prompt, role=role, max_total=MOST_TOKENS) as first:
        left = MOST_TOKENS - len(first[0].tokens)
    prompt, role = purposes[1][1]
    async with other(prompt_name=prompt, role=role, max_total=left) as second:
        yield [*first, *second]


def _check_comparable(recipes: Sequence[Recipe]) -> None:
    sizes = [recipe.pooler.output_dim for recipe in recipes]
    if len(set(sizes)) > 1:
        raise InvalidInput(
            f"the pooled vectors of 'text' and 'other' have {sizes[0]} and {sizes[1]} dimensions on their routes of "
            f"model {recipes[0].name!r}, so no token has a part in the similarity of the two. Explain one at a time.",
            where=Place("other"),
        )


def _told(specs: Sequence[str]) -> str:
    """Say what is used for the texts: once where it is the same for both."""
    return " / ".join(dict.fromkeys(specs))


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


def require_work(poolers: Iterable[Pooler], lengths: Sequence[int], spent: int = 0) -> int:
    """Return the `work` of poolings over texts of so many tokens, and what was `spent` on others before.

    Raises:
        TooLarge: it takes too long, as that of many windows does.
    """
    for pooler in poolers:
        spent += sum(work(pooler, length) for length in lengths)
        if spent > MOST_WORK:
            raise TooLarge(
                f"with pooling {shortened(pooler.spec)} the poolings take {spent} steps over {sum(lengths)} tokens, "
                f"and the most is {MOST_WORK}. Chain fewer windows or segments, give them a larger stride, or send "
                "fewer poolings or shorter texts.",
                where=Place("pooling"),
                limit=MOST_WORK,
            )
    return spent


def _check_entries(entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise TooLarge(
            f"the matrices asked for have {entries} entries, and one answer holds {MOST_ENTRIES}. Ask for fewer "
            "poolings at once, send shorter texts, or leave 'matrix' out.",
            where=Place("matrix"),
            limit=MOST_ENTRIES,
        )


def _explain(recipes: Sequence[Recipe], texts: Sequence[TokenStates]) -> Explanation:
    """Explain one text or two, each under the recipe of its own."""
    with torch.inference_mode():
        shares = shares_of(recipes[0], texts[0])
        pair = _pair(recipes, texts) if texts[1:] else None
    return Explanation(_told([recipe.pooler.spec for recipe in recipes]), shares, pair)


def _pair(recipes: Sequence[Recipe], texts: Sequence[TokenStates]) -> Pair:
    recipe, of_other = recipes
    _, other = texts
    first, second = (of.pooler.terms(*pooled(of, one)) for of, one in zip(recipes, texts, strict=True))
    matrix = algebra.similarity(first, second)[0]
    served = torch.cat([complete(recipe, first.sum(1).float()), complete(of_other, second.sum(1).float())])
    return Pair(
        similarity=_finite(recipe, matrix.sum()).item(),
        served_similarity=torch.cosine_similarity(served[0], served[1], dim=0).item(),
        exact=recipe.pooler.exact and of_other.pooler.exact,
        contributions=_floats(matrix.sum(1)),
        other_shares=shares_of(of_other, other),
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

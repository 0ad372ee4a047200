"""Which token gave how much: to a text's vector, and to the similarity of two texts, under any strategies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling import Pooler
from pooling import explain as algebra
from pooling.masks import exclude_prefix
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.encoder import Side
from service.errors import BrokenModel, InvalidInput, Place, TooLarge

Numbers = NDArray[np.float32]

MOST_STRATEGIES: Final = 16
"""Strategies that one request may ask for."""
MOST_TOKENS: Final = 2_048
"""Tokens of a text, or of two together, that are explained: more than anyone looks at."""
MOST_NUMBERS: Final = 2**24
"""Numbers that the terms of one text may have, tokens times dimensions."""
MOST_ENTRIES: Final = 2**19
"""Entries of all matrices of one answer."""
PAIRS: Final = 10
"""Token pairs that are named for two texts."""

# One at a time: an explanation takes much memory for a moment, and no core from those that embed for long.
_EXPLAINING: Final = ThreadPoolExecutor(
    max_workers=1, thread_name_prefix="explain", initializer=torch.set_num_threads, initargs=(1,)
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What the tokens of two texts contribute to the cosine of their pooled vectors.

    Args:
        similarity: the cosine, which the contributions of either text add up to.
        served_similarity: the cosine of the vectors as they are served, behind the head.
        exact: whether contributions are terms of a sum, rather than vectors divided by share.
        contributions: of each token of the text.
        other_shares: of each token of the other text, its share of that text's vector.
        other_contributions: of each token of the other text.
        matrix: what each pair of tokens contributes, (tokens, other's tokens).
        strongest: the places in `matrix` of the largest, either way.

    """

    similarity: float
    served_similarity: float
    exact: bool
    contributions: Numbers
    other_shares: Numbers
    other_contributions: Numbers
    matrix: Numbers
    strongest: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One strategy's share of each token, adding up to one, and where two texts were given what makes them alike."""

    pooling: str
    shares: Numbers
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class Explained:
    """Explanations of a text, and of it beside another.

    Args:
        model: its name.
        head: what comes between the pooled vector, which is explained, and the one that is served; may be empty.
        text: the tokens.
        other: those of the other text, if there is one.
        explanations: one a strategy, in the order asked for.

    """

    model: str
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
    model: str | None = None,
    truncate: Side | None = None,
    prompt_name: str | None = None,
    matrices: bool = False,
) -> Explained:
    """Explain a text's vector, and with another text their similarity, under each of several strategies.

    What is explained is the pooled vector, before the head that a checkpoint may declare. The encoder runs once.

    Args:
        models: those served.
        text: what is explained.
        other: a text to explain its similarity to.
        poolings: strategies; None is the model's own.
        model: which of the models; the default one for None.
        truncate: the side at which a text that is too long is cut; refused where None.
        prompt_name: the prompt to use instead of the default one.
        matrices: whether all entries of the matrices are wanted, which bounds how many there may be.

    Raises:
        ServiceError: as `Embedder.embed`, and where more is asked for than one request may.

    """
    if not 1 <= len(poolings) <= MOST_STRATEGIES:
        raise InvalidInput(
            f"{len(poolings)} poolings are asked for; one request takes from 1 to {MOST_STRATEGIES}.",
            where=Place("pooling"),
        )
    if matrices and other is None:
        raise InvalidInput("a matrix is of the tokens of two texts; send 'other' too.", where=Place("matrix"))
    embedders = [_embedder(models, model, spec) for spec in poolings]
    names = ["text"] if other is None else ["text", "other"]
    found = await embedders[0].token_states(
        [text] if other is None else [text, other],
        prompt_name=prompt_name,
        truncate=truncate,
        max_total=MOST_TOKENS,
        where=[Place(name) for name in names].__getitem__,
    )
    for name, embedder in ((name, embedder) for name in names for embedder in embedders):
        _check_size(found[names.index(name)], embedder, Place(name))
    if matrices and other is not None:
        _check_entries(len(found[0].tokens) * len(found[1].tokens) * len(embedders))
    explanations = [
        await asyncio.get_running_loop().run_in_executor(_EXPLAINING, partial(_explain, embedder, *found))
        for embedder in embedders
    ]
    head = embedders[0].head.spec
    return Explained(embedders[0].name, head, found[0], found[1] if other is not None else None, explanations)


def _embedder(models: Models, name: str | None, spec: Spec | None) -> Embedder:
    own = models.get(name)
    learned = any(isinstance(part, Pooler) and part.learned for part in own.pooler.modules())
    # A model's own learned strategy by its name too: it is fitted there and nowhere else.
    return own if learned and spec == own.pooler.spec else models.get(name, spec)


def _check_size(text: TokenStates, embedder: Embedder, where: Place) -> None:
    tokens, dimensions = len(text.tokens), embedder.pooler.output_dim
    if tokens * dimensions > MOST_NUMBERS:
        raise TooLarge(
            f"{where} has {tokens} tokens and pooling {embedder.pooler.spec!r} {dimensions} dimensions: to explain "
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


def _explain(embedder: Embedder, text: TokenStates, other: TokenStates | None = None) -> Explanation:
    with torch.inference_mode():
        shares = _shares(embedder, text)
        pair = None if other is None else _pair(embedder, text, other)
    return Explanation(embedder.pooler.spec, shares, pair)


def _pair(embedder: Embedder, text: TokenStates, other: TokenStates) -> Pair:
    first, second = (embedder.pooler.terms(*_counting(one)) for one in (text, other))
    matrix = algebra.similarity(first, second)[0]
    served = embedder.head(torch.cat([first.sum(1), second.sum(1)]).float())[:, : embedder.dim]
    return Pair(
        similarity=_finite(embedder, matrix.sum()).item(),
        served_similarity=torch.cosine_similarity(served[0], served[1], dim=0).item(),
        exact=embedder.pooler.exact,
        contributions=_numbers(matrix.sum(1)),
        other_shares=_shares(embedder, other),
        other_contributions=_numbers(matrix.sum(0)),
        matrix=_numbers(matrix),
        strongest=algebra.strongest(matrix, PAIRS),
    )


def _shares(embedder: Embedder, text: TokenStates) -> Numbers:
    return _numbers(_finite(embedder, algebra.shares(embedder.pooler, *_counting(text))[0]))


def _counting(text: TokenStates) -> tuple[Tensor, Tensor]:
    """States (1, tokens, dim), in double precision, that sums may come out exactly; and which of them are pooled."""
    states = torch.from_numpy(text.states).double().unsqueeze(0)
    mask = torch.ones(states.shape[:2], dtype=torch.bool)
    return states, exclude_prefix(mask, text.left_out)


def _finite(embedder: Embedder, found: Tensor) -> Tensor:
    if not torch.isfinite(found).all():
        raise BrokenModel(embedder.name)
    return found


def _numbers(found: Tensor) -> Numbers:
    numbers: Numbers = found.float().numpy()
    return numbers

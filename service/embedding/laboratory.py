"""Poolings of token states that are given, without an encoder: to check a formula, or to see what it does."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

import pooling
from pooling import Attention, Pooler, PoolingError, Token
from service.arrays import Floats
from service.embedding.explain import EXPLAINING, require_work
from service.embedding.recipe import Spec
from service.embedding.viewing import require_count
from service.errors import InvalidInput, Place, TooLarge, shortened

MOST_TOKENS: Final = 512
"""Tokens of one request: a window's masks are as many numbers as their square."""
MOST_STATES: Final = 2**16
"""Numbers of the token states of one request."""
MOST_PARAMETERS: Final = 2**25
"""Parameters of one pooling: those of a projection of 4,096 dimensions, and what comes beside it."""
_LONGEST_SPEC: Final = 10_000


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a pooling makes of token states.

    Args:
        pooling: the pooling.
        vector: what it gives, (output_dim,).
        weights: of each token, (tokens,), or (tokens, output_dim) where each dimension has its own.
        gradient: of the sum of the vector's numbers by each number of the states, (tokens, dim).
    """

    pooling: str
    vector: Floats
    weights: Floats
    gradient: Floats


async def pool(
    states: Sequence[Sequence[float]],
    poolings: Sequence[Spec],
    *,
    counts: Sequence[bool] | None = None,
    query: Sequence[float] | None = None,
) -> list[Pooled]:
    """Pool token states.

    Args:
        states: of each token, all with as many numbers.
        poolings: the poolings. Learned ones are as they begin, which is the mean.
        counts: which tokens count; all by default.
        query: the query of `attention`; zeros by default.

    Raises:
        InvalidInput: sizes do not fit each other, no token counts, or a pooling is none or gives no numbers.
        TooLarge: there are too many numbers, or a pooling takes too long over them.
    """
    require_count(poolings)
    dim = len(states[0]) if states else 0
    _check(states, dim, counts, query)
    run = partial(asyncio.get_running_loop().run_in_executor, EXPLAINING)
    tokens = await run(partial(torch.tensor, [states], dtype=torch.float64))
    mask = torch.tensor([counts]) if counts is not None else torch.ones(tokens.shape[:2], dtype=torch.bool)
    # Each by itself, so that what others ask of this thread is done in between.
    found, spent = [], 0
    for spec in poolings:
        pooled, spent = await run(partial(_pooled, spec, tokens, mask, query, spent))
        found.append(pooled)
    return found


def _check(
    states: Sequence[Sequence[float]], dim: int, counts: Sequence[bool] | None, query: Sequence[float] | None
) -> None:
    if not dim:
        raise InvalidInput("there are no states; send one list of numbers a token.", where=Place("states"))
    for place, state in enumerate(states):
        if len(state) != dim:
            raise InvalidInput(
                f"states[{place}] has {len(state)} numbers, and the first one {dim}; all tokens have as many.",
                where=Place("states", place),
            )
    if len(states) > MOST_TOKENS:
        raise TooLarge(
            f"there are states of {len(states)} tokens, and one request takes {MOST_TOKENS}.",
            where=Place("states"),
            limit=MOST_TOKENS,
        )
    if len(states) * dim > MOST_STATES:
        raise TooLarge(
            f"there are {len(states)} states of {dim} numbers, and one request takes {MOST_STATES} numbers in all.",
            where=Place("states"),
            limit=MOST_STATES,
        )
    if counts is not None and len(counts) != len(states):
        raise InvalidInput(
            f"there are {len(counts)} counts for {len(states)} states; send one a token.", where=Place("counts")
        )
    if counts is not None and not any(counts):
        raise InvalidInput("no token counts, so there is nothing to pool.", where=Place("counts"))
    if query is not None and len(query) != dim:
        raise InvalidInput(f"the query has {len(query)} numbers, and states have {dim}.", where=Place("query"))


def _pooled(
    spec: Spec, tokens: Tensor, mask: Tensor, query: Sequence[float] | None, spent: int
) -> tuple[Pooled, int]:
    where = Place("pooling")
    _require_short(spec)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _require_size(pooling.build(spec, tokens.shape[2]), tokens)  # costs no memory, whatever is asked for
        pooler = pooling.build(spec, tokens.shape[2]).double()
        spent = require_work([pooler], [tokens.shape[1]], spent)
        _ask(pooler, query)
        states = tokens.clone().requires_grad_()
        vector = pooler(states, mask)[0]
        (gradient,) = torch.autograd.grad(vector.sum(), states)
        weights = pooler.weights(tokens, mask)[0]
    except PoolingError as error:
        raise InvalidInput(f"pooling {shortened(spec)}: {error}.", where=where) from None
    found = [vector.detach(), weights.detach(), gradient[0]]
    if not all(torch.isfinite(each).all() for each in found):
        raise InvalidInput(
            f"under pooling {pooler.spec!r} these states give numbers beyond what can be told; send smaller ones.",
            where=where,
        )
    return Pooled(pooler.spec, *(each.numpy() for each in found)), spent


def _require_size(pooler: Pooler, tokens: Tensor) -> None:
    numbers = tokens.shape[1] * pooler.output_dim
    if numbers > MOST_STATES:
        raise TooLarge(
            f"pooling {shortened(pooler.spec)} has {pooler.output_dim} dimensions, so {tokens.shape[1]} tokens have "
            f"{numbers} weights, and the most is {MOST_STATES}. Send fewer tokens, or ask for a smaller pooling.",
            where=Place("pooling"),
            limit=MOST_STATES,
        )
    parameters = sum(each.numel() for each in pooler.parameters())
    if parameters > MOST_PARAMETERS:
        raise TooLarge(
            f"pooling {shortened(pooler.spec)} has {parameters} parameters over states of {pooler.dim} numbers, "
            f"and the most is {MOST_PARAMETERS}. Send states of fewer numbers, or ask for a smaller pooling.",
            where=Place("pooling"),
            limit=MOST_PARAMETERS,
        )


def _require_short(spec: Spec) -> None:
    characters = len(json.dumps(spec))
    if characters > _LONGEST_SPEC:
        raise InvalidInput(
            f"pooling {shortened(spec)} has {characters} characters; a request may ask for one of {_LONGEST_SPEC}.",
            where=Place("pooling"),
        )


def _ask(pooler: Pooler, query: Sequence[float] | None) -> None:
    """Give every attention in a pooling its query, and refuse what needs more than states."""
    for part in pooler.modules():
        if isinstance(part, Token):
            raise PoolingError(f"{part.spec} needs the tokens themselves, and here are only their states")
        if query is not None and isinstance(part, Attention) and part.query.shape == (len(query),):
            part.query.data = torch.tensor(query, dtype=torch.float64)

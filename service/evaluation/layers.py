"""Strategies over other layers of the encoder than the last: each layer by itself, and means of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pooling import layers
from pooling.layers import LAST, Layers
from service.embedding.embedder import Embedder
from service.evaluation.strategies import Strategy

_COMBINED: Final = ((2, {"use": ["first", "last"]}), (4, {"last": 4}))
"""Means that the literature has, and from how many layers on; see docs/pooling.md."""


@dataclass(frozen=True)
class OverLayers(Strategy):
    """A strategy over other layers.

    Args:
        pooling: the name of the same strategy over the last layer.
        layer: the layer; None for a mean of several.
        own: the layer of the strategy itself, likewise.
    """

    pooling: str = field(kw_only=True)
    layer: int | None = field(kw_only=True)
    own: int | None = field(kw_only=True)


def over_layers(strategies: Sequence[Strategy], depth: int) -> list[OverLayers]:
    """Return strategies over each layer, from the embeddings on, and over means of several; none that is given.

    Args:
        strategies: over the last layer, or whichever a model pools.
        depth: how many layers the encoder has.
    """
    alone = [layers.build({"use": [number]}, depth) for number in range(depth + 1)]
    combined = [layers.build(spec, depth) for least, spec in _COMBINED if least <= depth]
    return [
        _over(strategy, each, depth)
        for strategy in strategies
        for each in dict.fromkeys([*alone, *combined])
        if each != strategy.embedder.recipe.layers or each != LAST
    ]


def _over(strategy: Strategy, used: Layers, depth: int) -> OverLayers:
    embedder = strategy.embedder
    over = Embedder(embedder.encoder, replace(embedder.recipe, layers=used, declared=False))
    layer, own = (
        each.used[0] % (depth + 1) if len(each.used) == 1 else None for each in (used, embedder.recipe.layers)
    )
    name = f"{strategy.name}, {used}"
    return OverLayers(name, over, strategy.weights, pooling=strategy.name, layer=layer, own=own)

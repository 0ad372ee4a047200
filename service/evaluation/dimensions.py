"""Strategies of which the leading dimensions alone are kept, as Matryoshka models are trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.embedding.postprocessing import ToVectors
from service.errors import InvalidInput
from service.evaluation.report import StrategySummary
from service.evaluation.strategies import Strategy


@dataclass(frozen=True)
class Leading(Strategy):
    """A strategy cut to its leading dimensions, which are normalised anew, as `dimensions` of a request does.

    Args:
        pooling: the name of the same strategy uncut.
        dimensions: how many are kept.
    """

    pooling: str = field(kw_only=True)
    dimensions: int = field(kw_only=True)

    @property
    def to_vectors(self) -> ToVectors:
        """As of the strategy uncut, and the cut."""
        return replace(super().to_vectors, dimensions=self.dimensions)

    def summary(self) -> StrategySummary:
        """Summarise it for a report."""
        return replace(super().summary(), dim=self.dimensions)


def leading(strategies: Sequence[Strategy], dimensions: Sequence[int]) -> list[Leading]:
    """Return each strategy cut to each number of dimensions, but the number that it has.

    Raises:
        InvalidInput: a strategy has fewer dimensions.
    """
    for each in strategies:
        most = each.embedder.recipe.head.output_dim
        if dimensions and not 1 <= min(dimensions) <= max(dimensions) <= most:
            asked = ",".join(map(str, dimensions))
            raise InvalidInput(f"--dimensions {asked}: {each.name} has {most}; give numbers from 1 to {most}.")
    return [
        Leading(f"{each.name}, {kept} dimensions", each.embedder, each.weights, pooling=each.name, dimensions=kept)
        for each in strategies
        for kept in sorted(set(dimensions), reverse=True)
        if kept != each.embedder.dim
    ]

"""The strategies that an evaluation compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

import pooling
from pooling import PoolingError
from pooling.layers import LAST
from service.embedding.embedder import Embedder
from service.embedding.postprocessing import ToVectors
from service.embedding.recipe import load_pooler
from service.errors import CheckpointError, InvalidInput
from service.evaluation.report import StrategySummary

FIXED: Final = (
    *("mean", "cls", "last", "max", "weighted_mean", "mean_sqrt_len"),
    *("gem", "kmax", "logsumexp", "mean + max", "piecewise"),
)
"""Compared by default, simpler ones first."""


@dataclass(frozen=True)
class Strategy:
    """One way to pool the states of an encoder.

    Args:
        name: as in tables: its canonical form, or the folder of a saved pooler.
        embedder: the encoder with this pooling.
        weights: the folder, for a saved pooler.
    """

    name: str
    embedder: Embedder
    weights: str | None = None

    @property
    def to_vectors(self) -> ToVectors:
        """What makes its vectors of token states."""
        return ToVectors(self.embedder.recipe)

    @property
    def yaml(self) -> str:
        """The line of a config that selects it; a second one for its layers, unless it is of the last alone."""
        pooler = self.embedder.recipe.pooler
        spec: Any = pooler.spec
        if self.weights is not None:
            spec = {"strategy": pooler.config()["strategy"], "weights": self.weights}
        layers = self.embedder.recipe.layers
        return "\n".join([_line(pooling=spec), *([] if layers == LAST else [_line(layers=layers.spec)])])

    def summary(self) -> StrategySummary:
        """Summarise it for a report."""
        recipe = self.embedder.recipe
        return StrategySummary(self.name, recipe.pooler.spec, self.embedder.dim, self.weights, recipe.layers.spec)


def _line(**setting: Any) -> str:
    mapping: str = yaml.safe_dump(setting, default_flow_style=True, width=10_000)
    return mapping.strip()[1:-1]


def choose(
    model: Embedder,
    specs: Sequence[str],
    folders: Sequence[str],
    note: Callable[[str], None],
    defaults: Sequence[str] = FIXED,
) -> list[Strategy]:
    """Build the strategies, each once; the one that the checkpoint declares is always among them.

    Args:
        model: provides the encoder, and the head that vectors must fit.
        specs: fixed strategies; if there are none, those of `defaults` that fit the head.
        folders: saved poolers.
        note: called with a sentence about what is left out or doubtful.
        defaults: fixed strategies.

    Raises:
        InvalidInput: a strategy cannot be built or is not fitted, or a saved pooler is for another encoder.
    """
    model.require_one_route("an evaluation of poolings")
    for spec in specs:
        _check(spec, model.recipe.pooler.dim)
    found: dict[str, Strategy] = {}
    for spec in specs or defaults:
        try:
            strategy = _fixed(model, spec)
        except InvalidInput as error:
            if specs:
                raise
            note(f"{spec} is left out: {error}")
            continue
        found.setdefault(strategy.name, strategy)
    if model.recipe.checkpoint.pooling is not None:
        strategy = _fixed(model, "declared")
        found.setdefault(strategy.name, strategy)
    for folder in folders:
        found[folder] = _saved(model, folder)
        if not found[folder].embedder.recipe.pooler.trained:
            note(f"{folder} holds a pooler that was never fitted.")
    return list(found.values())


def _check(spec: str, dim: int) -> None:
    try:
        trained = pooling.build(spec, dim).trained
    except PoolingError as error:
        raise InvalidInput(f"--pooling {spec}: {error}.") from None
    if not trained:
        raise InvalidInput(f"--pooling {spec}: is learned. Name the folder of a fitted one with --pooler.")


def _fixed(model: Embedder, spec: str) -> Strategy:
    embedder = Embedder(model.encoder, model.recipe.with_pooling(spec))
    return Strategy(embedder.recipe.pooler.spec, embedder)


def _saved(model: Embedder, folder: str) -> Strategy:
    try:
        pooler = load_pooler({"weights": folder}, model.recipe.pooler.dim)
        return Strategy(folder, Embedder(model.encoder, model.recipe.with_pooler(pooler)), folder)
    except (PoolingError, CheckpointError) as error:
        raise InvalidInput(f"--pooler {folder}: {error}.") from None

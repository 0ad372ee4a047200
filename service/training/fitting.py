"""Fits poolers over the states of an encoder, and tests and saves the best one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

import pooling
from pooling import Pooler, PoolingError
from pooling.training import (
    Epoch,
    Settings,
    Split,
    Splits,
    TrainingError,
    Verdict,
    assess,
    averaged,
    fit,
    followed_by,
)
from pooling.training.states import Encode
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.errors import CheckpointError, ConfigError
from service.training import export
from service.training.state_cache import CachedStates

FIXED: Final = ("cls", "mean", "max", "last", "weighted_mean")
_MOST_HEADS: Final = 12

OnEpoch = Callable[[str, int | None, Epoch], object]
"""Called after each epoch with the pooling, the seed (None for the average of all seeds) and the epoch."""


@dataclass(frozen=True)
class Report:
    """The results of training: scores by pooling and split, and the verdict on the best fitted pooling."""

    metric: str
    scores: dict[str, dict[str, float]]
    fitted: tuple[str, ...]
    verdict: Verdict


def default_poolings(dim: int) -> list[str]:
    """Return what is fitted by default: the strongest pooling, and two with few parameters."""
    heads = max(heads for heads in range(1, _MOST_HEADS + 1) if dim % heads == 0)
    return ["gated", "attention", f"multihead_attention(heads={heads}, split_heads=true, projection=true)"]


def build(specs: Sequence[str], recipe: Recipe) -> list[Pooler]:
    """Build the poolers to fit, each once.

    Raises:
        ConfigError: one cannot be built, has no parameters, or does not fit the head; or the states are of other
            layers than the checkpoint declares, as will the folder that is written; or the model is static, whose
            folder has no place for a fitted pooling.
    """
    if not recipe.layers_declared:
        raise ConfigError(
            f"models.{recipe.name}.layers: a pooling is fitted over the layers that the checkpoint declares, and the "
            "folder that is written declares them too. Leave layers out."
        )
    if recipe.checkpoint.table is not None:
        raise ConfigError(
            f"{recipe.checkpoint.name}: is a static model, whose folder declares no pooling, so no fitted one can be "
            "saved with it. Fit one to an encoder."
        )
    poolers: dict[str, Pooler] = {}
    for spec in specs:
        try:
            pooler = pooling.build(spec, recipe.pooler.dim)
            recipe.with_pooler(pooler)
        except (PoolingError, CheckpointError) as error:
            raise ConfigError(f"--pooling {spec!r}: {error}") from None
        if not any(True for _ in pooler.parameters()):
            raise ConfigError(
                f"--pooling {spec!r}: has nothing to fit; attention, gated, multihead_attention and gem have."
            )
        poolers[pooler.spec] = pooler
    return list(poolers.values())


def train(
    recipe: Recipe,
    splits: Splits,
    states: CachedStates,
    poolers: Sequence[Pooler],
    settings: Settings,
    *,
    seeds: int,
    on_epoch: OnEpoch,
) -> tuple[Pooler, Report]:
    """Fit poolers, and compare the best on dev with the poolings that need no fitting, on test.

    Args:
        recipe: of the model that the states are from.
        splits: the data.
        states: of all its texts.
        poolers: to fit.
        settings: hyperparameters.
        seeds: number of fits of each, with different orders of the examples; their average is a candidate too.
        on_epoch: see `OnEpoch`.

    Raises:
        ConfigError: the loss is not finite.
    """
    fit_to, dev, test = (Split(task, states.of(task.parts)) for task in (splits.train, splits.dev, splits.test))
    fitted = {pooler.spec: _fit(pooler, recipe, fit_to, dev, settings, seeds, on_epoch) for pooler in poolers}
    best = max(fitted, key=lambda name: fitted[name][0])
    encoders = _fixed(recipe) | {name: _encode(recipe, pooler) for name, (_, pooler) in fitted.items()}
    scores, outcomes = {}, {}
    for name, encode in encoders.items():
        found = test.outcomes(encode)
        scores[name] = {"dev": dev.score(encode), "test": test.scores(found[np.newaxis])[0]}
        if name == best or name not in fitted:
            outcomes[name] = found
    report = Report(splits.metric, scores, tuple(fitted), assess(test, outcomes, best))
    return fitted[best][1], report


def save(folder: Path, recipe: Recipe, pooler: Pooler, report: Report, about: dict[str, Any]) -> None:
    """Write the model with the pooler, and beside the pooler a record of its training."""
    export.save(folder, recipe.checkpoint, pooler, recipe.max_tokens)
    record = about | asdict(report) | {"worth_it": report.verdict.worth_it}
    (folder / export.POOLER / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def _fit(
    pooler: Pooler, recipe: Recipe, train: Split, dev: Split, settings: Settings, seeds: int, on_epoch: OnEpoch
) -> tuple[float, Pooler]:
    """Fit a pooler with each seed; return the best of these and of their average, with its score on dev."""
    head = _head(recipe, pooler)
    found: list[tuple[float, Pooler]] = []
    for seed in range(seeds):
        one = copy.deepcopy(pooler)
        try:
            best = fit(one, train, dev, settings, head=head, seed=seed, on_epoch=partial(on_epoch, pooler.spec, seed))
        except TrainingError as error:
            raise ConfigError(f"{pooler.spec}: {error}.") from None
        found.append((best.score, one))
    if seeds > 1:
        mean = averaged([one for _, one in found])
        score = dev.score(followed_by(mean, head))
        on_epoch(pooler.spec, None, Epoch(0, None, score))
        found.append((score, mean))
    return max(found, key=lambda each: each[0])


def _fixed(recipe: Recipe) -> dict[str, Encode]:
    """Return the poolings that a fitted one must beat: those without parameters, and the declared one."""
    further = () if recipe.checkpoint.pooling in (None, *FIXED) else ("declared",)
    recipes = {name: recipe.with_pooling(name) for name in (*FIXED, *further)}
    return {name: _encode(each, each.pooler) for name, each in recipes.items()}


def _encode(recipe: Recipe, pooler: Pooler) -> Encode:
    return followed_by(pooler.eval(), _head(recipe, pooler))


def _head(recipe: Recipe, pooler: Pooler) -> Callable[[Tensor], Tensor]:
    """Return what follows pooling, except for normalisation, which cosines do not need."""
    return partial(complete, recipe.with_pooler(pooler), normalize=False)

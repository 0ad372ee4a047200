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
from pooling import Pooler, PoolingError, Token
from pooling.training import (
    Epoch,
    LayerWeights,
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


def default_under_layers(recipe: Recipe) -> list[str]:
    """Return the pooling under which weights of layers are fitted by default: the model's own, or the mean."""
    return ["mean" if any(True for _ in recipe.pooler.parameters()) else recipe.pooler.spec]


def _check(recipe: Recipe) -> None:
    """Raise `ConfigError` where nothing can be fitted to a model.

    The states are of other layers than the checkpoint declares, as will the folder that is written; or the model is
    static, whose folder has no place for a fitted pooling.
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


def build(specs: Sequence[str], recipe: Recipe) -> list[Pooler]:
    """Build the poolers to fit, each once.

    Raises:
        ConfigError: one cannot be built, has no parameters, or does not fit the head; or nothing can be fitted to
            the model.
    """
    _check(recipe)
    poolers: dict[str, Pooler] = {}
    for spec in specs:
        pooler = _built(spec, recipe)
        if not any(True for _ in pooler.parameters()):
            raise ConfigError(
                f"--pooling {spec!r}: has nothing to fit; attention, gated, multihead_attention and gem have."
            )
        poolers[pooler.spec] = pooler
    return list(poolers.values())


def _built(spec: str, recipe: Recipe) -> Pooler:
    try:
        pooler = pooling.build(spec, recipe.pooler.dim)
        recipe.with_pooler(pooler)
    except (PoolingError, CheckpointError) as error:
        raise ConfigError(f"--pooling {spec!r}: {error}") from None
    return pooler


def build_over_layers(specs: Sequence[str], recipe: Recipe, depth: int) -> list[Pooler]:
    """Build poolings over a mean of layers whose weights are to be fitted: from equal ones, and from the last alone.

    Args:
        specs: poolings without parameters.
        recipe: of the model.
        depth: how many layers its encoder has.

    Raises:
        ConfigError: as `build` does, or a pooling has parameters of its own to fit.
    """
    _check(recipe)
    starts = {"equal weights": [1 / (depth + 1)] * (depth + 1), "the last": [0.0] * depth + [1.0]}
    found: list[Pooler] = []
    for spec in specs:
        pooler = _built(spec, recipe)
        if isinstance(pooler, Token):
            raise ConfigError(f"--pooling {spec!r}: takes one token's state, which is not told apart in training.")
        if any(True for _ in pooler.parameters()):
            raise ConfigError(
                f"--pooling {spec!r}: is fitted itself, and --layers fits the weights of layers alone. Give it with "
                "a pooling that has no parameters, such as mean."
            )
        found += [LayerWeights(f"{pooler.spec}, layers from {name}", pooler, start) for name, start in starts.items()]
    return found


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
    widen = _over(recipe, states.states.dim // recipe.pooler.dim)
    fitted = {pooler.spec: _fit(pooler, recipe, fit_to, dev, settings, seeds, on_epoch) for pooler in poolers}
    best = max(fitted, key=lambda name: fitted[name][0])
    encoders = _fixed(recipe, widen) | {name: _encode(recipe, pooler) for name, (_, pooler) in fitted.items()}
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
    if isinstance(pooler, LayerWeights):
        weights: list[float] = pooler.layer_weights.tolist()
        export.save(folder, recipe.checkpoint, pooler.pooler, recipe.max_tokens, weights)
    else:
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


def _over(recipe: Recipe, layers: int) -> Callable[[Pooler], Pooler]:
    """Return what gives a pooling the model's own layers of states of so many; of one, those are its own."""
    if layers == 1:
        return lambda pooler: pooler
    weights = [0.0] * layers
    for layer, weight in recipe.layers.weights:
        weights[layer] = weight
    return lambda pooler: LayerWeights(pooler.spec, pooler, weights)


def _fixed(recipe: Recipe, widen: Callable[[Pooler], Pooler]) -> dict[str, Encode]:
    """Return the poolings that a fitted one must beat: those without parameters, and the declared one."""
    further = () if recipe.checkpoint.pooling in (None, *FIXED) else ("declared",)
    recipes = {name: recipe.with_pooling(name) for name in (*FIXED, *further)}
    return {name: _encode(each, widen(each.pooler)) for name, each in recipes.items()}


def _encode(recipe: Recipe, pooler: Pooler) -> Encode:
    return followed_by(pooler.eval(), _head(recipe, pooler))


def _head(recipe: Recipe, pooler: Pooler) -> Callable[[Tensor], Tensor]:
    """Return what follows pooling, except for normalisation, which cosines do not need."""
    return partial(complete, recipe.with_pooler(pooler), normalize=False)

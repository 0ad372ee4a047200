"""`train`, end to end: states of an encoder, poolers fitted over them, the best one judged and saved."""

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
    States,
    Task,
    Text,
    TrainingError,
    Verdict,
    averaged,
    fit,
    followed_by,
    judge,
    outcomes,
)
from pooling.training.states import Encode
from service.embedding.postprocessing import complete
from service.embedding.recipe import Recipe
from service.errors import CheckpointError, ConfigError
from service.training import export

FIXED: Final = ("cls", "mean", "max", "last", "weighted_mean")
_MOST_HEADS: Final = 12

Told = Callable[[str, int | None, Epoch], object]
"""Called with a pooling, the number of the seed (None: the average of all) and an epoch of it."""


@dataclass(frozen=True)
class Report:
    """What training came to: scores by pooling and split, and the verdict on the best fitted one."""

    metric: str
    scores: dict[str, dict[str, float]]
    fitted: tuple[str, ...]
    verdict: Verdict


def default_poolings(dim: int) -> list[str]:
    """What is tried where nothing is asked for: the strongest, and two with few parameters."""
    heads = max(heads for heads in range(1, _MOST_HEADS + 1) if dim % heads == 0)
    return ["gated", "attention", f"multihead_attention(heads={heads}, split_heads=true, projection=true)"]


def build(specs: Sequence[str], recipe: Recipe) -> list[Pooler]:
    """Poolers to be fitted, none of them twice.

    Raises:
        ConfigError: one cannot be built, has no parameters, or does not fit what follows pooling.

    """
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
    states: States,
    places: dict[Text, int],
    poolers: Sequence[Pooler],
    settings: Settings,
    *,
    seeds: int,
    told: Told,
) -> tuple[Pooler, Report]:
    """Fit the poolers and judge the one that is best on dev by the test split.

    Args:
        recipe: of the model whose states they are.
        splits: the data.
        states: of all their texts.
        places: where each text's states are.
        poolers: to be fitted.
        settings: how.
        seeds: how often each is fitted, in other orders; the mean of the parameters is tried as well.
        told: of the progress.

    Raises:
        ConfigError: the loss is not finite.

    """

    def split(task: Task) -> Split:
        return Split(task, states.select(np.array([places[text] for text in task.texts])))

    fit_to, dev, test = split(splits.train), split(splits.dev), split(splits.test)
    fitted = {pooler.spec: _fit(pooler, recipe, fit_to, dev, settings, seeds, told) for pooler in poolers}
    best = max(fitted, key=lambda name: fitted[name][0])
    encoders = _fixed(recipe) | {name: _encode(recipe, pooler) for name, (_, pooler) in fitted.items()}
    on_dev, on_test = outcomes(dev, encoders), outcomes(test, encoders)
    compared = {name: found for name, found in on_test.items() if name == best or name not in fitted}
    report = Report(
        metric=test.task.metric,
        scores={
            name: {"dev": dev.task.score(on_dev[name]), "test": test.task.score(on_test[name])} for name in encoders
        },
        fitted=tuple(fitted),
        verdict=judge(test, compared, best),
    )
    return fitted[best][1], report


def save(folder: Path, recipe: Recipe, pooler: Pooler, report: Report, about: dict[str, Any]) -> None:
    """Write the pooler as a whole model, and beside it what it was fitted on and came to."""
    export.save(folder, recipe.checkpoint, pooler, recipe.max_tokens)
    record = about | asdict(report) | {"worth_it": report.verdict.worth_it}
    (folder / export.POOLER / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def _fit(
    pooler: Pooler, recipe: Recipe, train: Split, dev: Split, settings: Settings, seeds: int, told: Told
) -> tuple[float, Pooler]:
    """The best of the pooler fitted with each seed, and the average of those, by its score on dev."""
    head = _head(recipe, pooler)
    found: list[tuple[float, Pooler]] = []
    for seed in range(seeds):
        one = copy.deepcopy(pooler)
        try:
            best = fit(one, train, dev, settings, head=head, seed=seed, told=partial(told, pooler.spec, seed))
        except TrainingError as error:
            raise ConfigError(f"{pooler.spec}: {error}.") from None
        found.append((best.score, one))
    if seeds > 1:
        mean = averaged([one for _, one in found])
        score = dev.score(followed_by(mean, head))
        told(pooler.spec, None, Epoch(0, None, score))
        found.append((score, mean))
    return max(found, key=lambda each: each[0])


def _fixed(recipe: Recipe) -> dict[str, Encode]:
    """The poolings that a fitted one must beat: those without parameters, and what the checkpoint declares."""
    further = () if recipe.checkpoint.pooling in (None, *FIXED) else ("declared",)
    recipes = {name: recipe.with_pooling(name) for name in (*FIXED, *further)}
    return {name: _encode(each, each.pooler) for name, each in recipes.items()}


def _encode(recipe: Recipe, pooler: Pooler) -> Encode:
    return followed_by(pooler.eval(), _head(recipe, pooler))


def _head(recipe: Recipe, pooler: Pooler) -> Callable[[Tensor], Tensor]:
    """Return what follows pooling, but for the length of a vector, since cosines are compared."""
    return partial(complete, recipe.with_pooler(pooler), normalize=False)

"""The strategies that take part in an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

import pooling
from pooling import PoolingError
from pooling.evaluation.report import Described
from service.embedder import Embedder
from service.errors import CheckpointError, InvalidInput
from service.recipe import load_pooler

FIXED: Final = ("mean", "cls", "last", "max", "weighted_mean", "mean_sqrt_len", "gem", "mean + max")
"""What is compared unless others are asked for, the simpler first."""


@dataclass(frozen=True)
class Strategy:
    """One way to pool the states of an encoder; `weights` is the folder of a saved pooler."""

    name: str
    embedder: Embedder
    weights: str | None = None

    @property
    def yaml(self) -> str:
        """The line of a config that chooses it."""
        pooler = self.embedder.pooler
        spec: Any = pooler.spec
        if self.weights is not None:
            spec = {"strategy": pooler.config()["strategy"], "weights": self.weights}
        line: str = yaml.safe_dump({"pooling": spec}, default_flow_style=None, width=10_000)
        return line.strip()

    def described(self) -> Described:
        """As a report has it."""
        return Described(self.name, self.embedder.pooler.spec, self.embedder.dim, self.weights)


def choose(
    model: Embedder, specs: Sequence[str], folders: Sequence[str], note: Callable[[str], None]
) -> list[Strategy]:
    """The strategies, each once; the one that the checkpoint declares is always among them.

    Args:
        model: gives the encoder, and the head that a vector must fit.
        specs: fixed strategies; where there are none, those of `FIXED` that fit the head.
        folders: saved poolers.
        note: told in a sentence what is left out or doubtful.

    Raises:
        InvalidInput: a strategy cannot be built or is not fitted, or a saved pooler is not for this encoder.

    """
    declared = model.recipe.checkpoint.pooling
    found: dict[str, Strategy] = {}
    for spec in [*(specs or FIXED), *([declared] if declared is not None else [])]:
        try:
            embedder = _fixed(model, spec)
        except InvalidInput as error:
            if specs:
                raise
            note(f"{spec} is left out: {error}")
            continue
        name = embedder.pooler.spec
        found.setdefault(name, Strategy(name, embedder))
    for folder in dict.fromkeys(folders):
        embedder = _saved(model, folder)
        if not embedder.pooler.trained:
            note(f"{folder} holds a pooler that was never fitted.")
        name = Path(folder).name if Path(folder).name not in found else folder
        found[name] = Strategy(name, embedder, folder)
    return list(found.values())


def _fixed(model: Embedder, spec: str) -> Embedder:
    try:
        draft = pooling.build(spec, model.pooler.dim)
    except PoolingError as error:
        raise InvalidInput(f"--pooling {spec}: {error}.") from None
    if not draft.trained:
        raise InvalidInput(f"--pooling {spec}: is learned. Name the folder of a fitted one with --pooler.")
    return Embedder(model.encoder, model.recipe.with_pooling(spec))


def _saved(model: Embedder, folder: str) -> Embedder:
    try:
        return Embedder(model.encoder, model.recipe.with_pooler(load_pooler({"weights": folder}, model.pooler.dim)))
    except (PoolingError, CheckpointError) as error:
        raise InvalidInput(f"--pooler {error}.") from None

"""A single model inside this process, for commands that process whole data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.console import Failure
from service.config import Config, ModelConfig, load_config, make_config
from service.environment import of_runtime
from service.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from service.embedding.embedder import Embedder


def single_model(model: str, name: str | None, max_tokens: int | None, *, served: bool = False) -> Embedder:
    """Load a model of a deployment's YAML file, its default one for None, or what `lone_model` takes.

    Raises:
        Failure: the deployment has no model of this name.
        ServiceError: the model cannot be served as configured.
    """
    return _loaded(single_config(model, name, max_tokens, served=served), max_tokens)


def single_config(model: str, name: str | None, max_tokens: int | None, *, served: bool = False) -> Config:
    """Return the config of what `single_model` loads, which names that model alone; errors as there."""
    if not model.endswith((".yaml", ".yml")):
        if name is not None:
            raise Failure(
                f"--model {name}: goes with a deployment's YAML file, and {model} is none. Leave it out.", 2
            )
        return _lone_config(model, max_tokens, served=served)
    settings = load_config(Path(model))
    if name is None:
        name = "default" if "default" in settings.models else next(iter(settings.models))
    chosen = named_model(settings, name)
    if max_tokens is not None:
        chosen = chosen.model_copy(update={"max_tokens": max_tokens})
    return settings.model_copy(update={"models": {name: chosen}})


def lone_model(model: str, max_tokens: int | None, *, served: bool = False) -> Embedder:
    """Load a folder, a Hugging Face id or `bundled/NAME` in float32 on PyTorch: for a pass no conversion pays off.

    With `served`, load it as a config that only names it would, with what the environment says of the runtime.
    """
    return _loaded(_lone_config(model, max_tokens, served=served), max_tokens)


def _loaded(config: Config, max_tokens: int | None) -> Embedder:
    from service.embedding.models import Models

    with _flagged(max_tokens):
        return Models(config).get()


def _lone_config(model: str, max_tokens: int | None, *, served: bool) -> Config:
    from service.checkpoint import Checkpoint, read_model

    checkpoint = read_model(model)
    undeclared = isinstance(checkpoint, Checkpoint) and checkpoint.pooling is None
    values: dict[str, Any] = {
        "encoder": model,
        "pooling": "mean" if undeclared else "declared",
        "max_tokens": max_tokens or "declared",
    }
    runtime = {} if served else {"backend": "torch", "precision": "fp32"}
    env = of_runtime(os.environ) if served else {}
    with _flagged(max_tokens):
        return make_config({"models": {"default": values}, "runtime": runtime}, model, env=env)


@contextmanager
def _flagged(max_tokens: int | None) -> Iterator[None]:
    """Call the longest text by its flag in errors where it was given by that."""
    try:
        yield
    except ConfigError as error:
        if max_tokens is None:
            raise
        raise ConfigError(re.sub(r"^models\..*?\.max_tokens:", "--max-tokens:", str(error))) from None


def named_model(settings: Config, name: str) -> ModelConfig:
    """Return the settings of a model; raises `Failure` if the config does not name it."""
    known = settings.models
    if name not in known:
        raise Failure(f"--model {name}: the config names {', '.join(known)}.{did_you_mean(name, known)}", 2)
    return known[name]

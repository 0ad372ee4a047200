"""A single model inside this process, for commands that process whole data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.console import Failure
from service.config import Config, load_config
from service.errors import did_you_mean

if TYPE_CHECKING:
    from service.embedding.embedder import Embedder

_CONFIGS = (".yaml", ".yml")


@contextmanager
def single_model(model: str, name: str | None = None, max_tokens: int | None = None) -> Iterator[Embedder]:
    """Load a model, and stop its threads on exit.

    Args:
        model: a folder, a Hugging Face id or `bundled/NAME`, which runs on PyTorch in float32, the reference: a
            conversion does not pay off for one pass. Or the YAML file of a deployment, which is followed.
        name: the model of a deployment; by default its default model.
        max_tokens: the maximum length of a text; by default as declared.

    Raises:
        Failure: the deployment has no model of this name.
        ServiceError: the model cannot be served as configured.
    """
    from service.embedding.models import Models

    settings = _deployment(Path(model), name) if model.endswith(_CONFIGS) else _alone(model, name)
    if max_tokens is not None:
        models = {key: value.model_copy(update={"max_tokens": max_tokens}) for key, value in settings.models.items()}
        settings = settings.model_copy(update={"models": models})
    loaded = Models(settings)
    try:
        yield loaded.get()
    finally:
        loaded.close()


def _deployment(path: Path, name: str | None) -> Config:
    settings = load_config(path)
    known = settings.models
    if name is None:
        name = "default" if "default" in known else next(iter(known))
    if name not in known:
        raise Failure(f"--model {name}: the config names {', '.join(known)}.{did_you_mean(name, known)}", 2)
    return settings.model_copy(update={"models": {name: known[name]}})


def _alone(model: str, name: str | None) -> Config:
    from service.checkpoint.checkpoint import read_checkpoint

    if name is not None:
        raise Failure(f"--model {name}: goes with a deployment's YAML file, and {model} is none. Leave it out.", 2)
    declares = read_checkpoint(model).pooling is not None
    settings: dict[str, Any] = {"encoder": model, "pooling": "declared" if declares else "mean"}
    runtime = {"backend": "torch", "precision": "fp32"}
    return Config.model_validate({"models": {"default": settings}, "runtime": runtime})

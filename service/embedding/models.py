"""The models of a deployment, by name: encoders loaded once, embedders over them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from service.checkpoint.checkpoint import read_checkpoint
from service.config import Config, ModelConfig
from service.embedding.embedder import Embedder
from service.embedding.recipe import Spec, declared_or, resolve
from service.encoder import Encoder
from service.errors import InvalidInput, Place, UnknownModel, did_you_mean, shortened

logger = logging.getLogger(__name__)

_MOST_VARIANTS: Final = 128
"""Poolings other than the configured ones that stay built."""
_LONGEST_SPEC: Final = 10_000
"""Characters, as JSON, of a pooling that a request may ask for."""


class Models:
    """Loads every model that a config names.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.

    """

    def __init__(self, config: Config) -> None:
        self._encoders: dict[tuple[Any, ...], Encoder] = {}
        self._models: dict[str, Embedder] = {}
        try:
            for name, settings in config.models.items():
                self._models[name] = self._load(name, settings, config)
        except BaseException:
            self.close()
            raise
        self.default = "default" if "default" in self._models else next(iter(self._models))
        self._building = threading.Lock()
        self._variant = lru_cache(maxsize=_MOST_VARIANTS)(self._build_variant)

    def __iter__(self) -> Iterator[tuple[str, Embedder]]:
        return iter(self._models.items())

    def get(self, name: str | None = None, spec: Spec | None = None) -> Embedder:
        """An embedder by name (the default one for None), with another pooling where `spec` gives one.

        Raises:
            UnknownModel: no model has this name.
            InvalidInput: the pooling cannot be built, is learned, or does not fit the model's head.

        """
        model = self._models.get(self.default if name is None else name)
        if model is None:
            raise UnknownModel(
                f"no model is named {shortened(name)}; served are {', '.join(map(repr, self._models))}."
                f"{did_you_mean(name or '', self._models)}",
                where=Place("model"),
            )
        if spec is None or (spec == "declared" and model.recipe.declared):
            return model
        spec_json = json.dumps(spec, sort_keys=True)
        if len(spec_json) > _LONGEST_SPEC:
            raise InvalidInput(
                f"pooling {shortened(spec)} has {len(spec_json)} characters; a request may ask for one of "
                f"{_LONGEST_SPEC}. Say it shorter, or give it a model of its own in the config.",
                where=Place("pooling"),
            )
        with self._building:
            return self._variant(model, spec_json)

    @property
    def alive(self) -> bool:
        """Whether every encoder's queue runs."""
        return all(encoder.batcher.alive for encoder in self._encoders.values())

    def close(self) -> None:
        """Stop all queues."""
        for encoder in self._encoders.values():
            encoder.close()

    def _build_variant(self, model: Embedder, spec_json: str) -> Embedder:
        recipe = model.recipe.with_pooling(json.loads(spec_json))
        logger.info("model %r: built pooling %s on request", model.name, recipe.pooler.spec)
        return Embedder(model.encoder, recipe)

    def _load(self, name: str, settings: ModelConfig, config: Config) -> Embedder:
        checkpoint = read_checkpoint(settings.encoder, settings.revision)
        # What the config forgot to choose must not come out after minutes of loading weights.
        declared_or(settings.pooling, checkpoint, f"models.{name}")
        key = (checkpoint.transformer.resolve(), checkpoint.lower_case, settings.trust_remote_code)
        if key not in self._encoders:
            logger.info("loading %s from %s", settings.encoder, checkpoint.transformer)
            self._encoders[key] = Encoder(
                checkpoint, config.runtime, config.batching, trust_remote_code=settings.trust_remote_code
            )
        encoder = self._encoders[key]
        recipe = resolve(name, settings, checkpoint, encoder.tokenizer, encoder.dim)
        for warning in recipe.warnings:
            logger.warning("models.%s: %s", name, warning)
        return Embedder(encoder, recipe)

"""The models of a deployment by name. Models of one encoder share it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from pooling.layers import LayerSpec
from service.config import Config
from service.embedding.embedder import Embedder
from service.embedding.recipe import Recipe, Spec
from service.encoder import Encoders
from service.errors import CheckpointError, InvalidInput, Place, UnknownModel, did_you_mean, shortened

logger = logging.getLogger(__name__)

_MOST_VARIANTS: Final = 128
"""Embedders with a pooling that requests asked for, kept for further requests."""
_LONGEST_SPEC: Final = 10_000
"""Most characters of a pooling that a request asks for, as JSON."""


class Models:
    """Loads every model that a config names.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.
    """

    def __init__(self, config: Config) -> None:
        self.encoders = Encoders()
        """The encoders, each once."""
        self._models: dict[str, Embedder] = {}
        self._config = config
        try:
            for name in config.models:
                self._models[name] = Embedder.of_config(name, config, self.encoders)
        except BaseException:
            self.close()
            raise
        self.default = "default" if "default" in self._models else next(iter(self._models))
        self._building = threading.Lock()
        self._variant = lru_cache(maxsize=_MOST_VARIANTS)(self._build_variant)

    def __iter__(self) -> Iterator[tuple[str, Embedder]]:
        return iter(self._models.items())

    def get(self, name: str | None = None, spec: Spec | None = None, layers: LayerSpec | None = None) -> Embedder:
        """Return the embedder of a model, the default one for None, with another pooling and layers if given.

        Raises:
            UnknownModel: no model has this name.
            InvalidInput: the pooling cannot be built, is learned, or does not fit the model's head; or the layers are
                none, or not given by the model's encoder.
        """
        model = self._models.get(self.default if name is None else name)
        if model is None and (use := self._config.use_of(name or "")):
            raise UnknownModel(
                f"{use}; models that make vectors are {', '.join(map(repr, self._models))}.", where=Place("model")
            )
        if model is None:
            raise UnknownModel(
                f"no model is named {shortened(name)}; served are {', '.join(map(repr, self._models))}."
                f"{did_you_mean(name or '', self._models)}",
                where=Place("model"),
            )
        if spec == "declared" and model.declared:
            spec = None
        if spec is None and layers is None:
            return model
        given = [_as_json(field, value) for field, value in (("pooling", spec), ("layers", layers))]
        with self._building:
            return self._variant(model, *given)

    def close(self) -> None:
        """Stop the queues of all encoders."""
        self.encoders.close()

    def _build_variant(self, model: Embedder, spec_json: str, layers_json: str) -> Embedder:
        spec, layers = json.loads(spec_json), json.loads(layers_json)
        if layers is not None and model.routes:
            raise InvalidInput(
                f"layers: model {model.name!r} has a Router, and the layers of one route's encoder are not those of "
                "another's. Leave it out.",
                where=Place("layers"),
            )

        def changed(branch: Embedder) -> Recipe:
            recipe = branch.recipe if spec is None else branch.recipe.with_pooling(spec)
            return recipe if layers is None else recipe.with_layers(layers, branch.encoder.depth)

        try:
            found = model.changed(changed)
        except CheckpointError as error:
            raise InvalidInput(f"pooling {shortened(spec)}: {error.detail}", where=Place("pooling")) from None
        recipe = found.recipe
        logger.info("model %r: built pooling %s of the %s on request", model.name, recipe.pooler.spec, recipe.layers)
        return found


def _as_json(field: str, value: Any) -> str:
    found = json.dumps(value, sort_keys=True)
    if len(found) > _LONGEST_SPEC:
        raise InvalidInput(
            f"{field} {shortened(value)} has {len(found)} characters; a request may ask for one of {_LONGEST_SPEC}. "
            "Say it shorter, or give it a model of its own in the config.",
            where=Place(field),
        )
    return found

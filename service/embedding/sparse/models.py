"""The sparse models of a deployment by name. Those of one encoder share it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from service.checkpoint import read_sparse_encoder
from service.config import Config, SparseConfig
from service.embedding.sparse.embedder import SparseEmbedder
from service.embedding.sparse.recipe import resolve
from service.encoder import Encoder, Encoders
from service.encoder.splade import Splade
from service.errors import Place, UnknownModel, UnsupportedTask, did_you_mean, shortened

logger = logging.getLogger(__name__)


class SparseModels:
    """Loads every sparse model that a config names; there may be none.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.
    """

    def __init__(self, config: Config) -> None:
        self.encoders = Encoders()
        """The encoders, each once."""
        self._config = config
        self._models: dict[str, SparseEmbedder] = {}
        try:
            for name, settings in config.sparse.items():
                self._models[name] = self._load(name, settings)
        except BaseException:
            self.close()
            raise
        self.default = next(iter(self._models), None)

    def __iter__(self) -> Iterator[tuple[str, SparseEmbedder]]:
        return iter(self._models.items())

    def get(self, name: str | None = None) -> SparseEmbedder:
        """Return a sparse model, the first one for None.

        Raises:
            UnsupportedTask: none is served.
            UnknownModel: none has this name.
        """
        asked = self.default if name is None else name
        if asked is None or not self._models:
            raise UnsupportedTask(
                "no model here makes sparse vectors; `sparse` in the config names those that do. '/embed' gives "
                "dense vectors."
            )
        if asked not in self._models:
            served = f"sparse models are {', '.join(map(repr, self._models))}"
            use = self._config.use_of(asked)
            raise UnknownModel(
                f"{use}; {served}."
                if use
                else f"no sparse model is named {shortened(asked)}; {served}.{did_you_mean(asked, self._models)}",
                where=Place("model"),
            )
        return self._models[asked]

    def close(self) -> None:
        """Stop the queues of all encoders."""
        self.encoders.close()

    def _load(self, name: str, settings: SparseConfig) -> SparseEmbedder:
        declared = read_sparse_encoder(settings.encoder, settings.revision)
        checkpoint, trusted = declared.checkpoint, settings.trust_remote_code
        task = Splade(declared.strategy, declared.activation)
        key = (*task.key.values(), checkpoint.transformer.resolve(), checkpoint.lower_case, trusted)
        if key not in self.encoders:
            logger.info("loading %s from %s", settings.encoder, checkpoint.transformer)
            self.encoders[key] = Encoder(
                checkpoint, self._config.runtime, self._config.batching, trust_remote_code=trusted, task=task
            )
        encoder = self.encoders[key]
        recipe = resolve(name, settings, declared, encoder.tokenizer, encoder.anatomy.positions)
        for warning in recipe.warnings:
            logger.warning("sparse.%s: %s", name, warning)
        return SparseEmbedder(encoder, recipe)

"""The rerankers of a deployment by name. Those of one encoder share it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from service.checkpoint import read_cross_encoder
from service.config import Config, RerankerConfig
from service.encoder import Encoder, Encoders
from service.encoder.task import Scores
from service.errors import CheckpointError, Place, UnknownModel, UnsupportedTask, did_you_mean, shortened
from service.ranking.recipe import resolve
from service.ranking.reranker import Reranker

logger = logging.getLogger(__name__)


class Rerankers:
    """Loads every reranker that a config names; there may be none.

    Raises:
        CheckpointError, ConfigError: naming the reranker, what is wrong with it, and the remedy.
    """

    def __init__(self, config: Config) -> None:
        self.encoders = Encoders()
        """The encoders, each once."""
        self._config = config
        self._rerankers: dict[str, Reranker] = {}
        try:
            for name, settings in config.rerankers.items():
                self._rerankers[name] = self._load(name, settings, config)
        except BaseException:
            self.close()
            raise
        self.default = next(iter(self._rerankers), None)

    def __iter__(self) -> Iterator[tuple[str, Reranker]]:
        return iter(self._rerankers.items())

    def get(self, name: str | None = None, field: str = "model") -> Reranker:
        """Return a reranker, the first one for None; `field` is where it was named, for errors.

        Raises:
            UnsupportedTask: none is served.
            UnknownModel: none has this name.
        """
        asked = self.default if name is None else name
        if asked is None or not self._rerankers:
            raise UnsupportedTask(
                "no model here ranks or classifies texts; `rerankers` in the config names those that do. "
                "'/similarity' compares texts by their vectors, and '/embed' gives vectors to train a classifier on."
            )
        if asked not in self._rerankers:
            served = f"rerankers are {', '.join(map(repr, self._rerankers))}"
            use = self._config.use_of(asked)
            raise UnknownModel(
                f"{use}; {served}."
                if use
                else f"no reranker is named {shortened(asked)}; {served}.{did_you_mean(asked, self._rerankers)}",
                where=Place(field),
            )
        return self._rerankers[asked]

    def close(self) -> None:
        """Stop the queues of all encoders."""
        self.encoders.close()

    def _load(self, name: str, settings: RerankerConfig, config: Config) -> Reranker:
        at = f"rerankers.{name}"
        declared = read_cross_encoder(settings.encoder, settings.revision)
        checkpoint, trusted = declared.checkpoint, settings.trust_remote_code
        key = ("scores", checkpoint.transformer.resolve(), checkpoint.lower_case, trusted)
        if key not in self.encoders:
            logger.info("loading %s from %s", settings.encoder, checkpoint.transformer)
            self.encoders[key] = Encoder(
                checkpoint, config.runtime, config.batching, trust_remote_code=trusted, task=Scores()
            )
        encoder = self.encoders[key]
        if encoder.dim != len(declared.labels):
            raise CheckpointError(
                f"{checkpoint.folder}: id2label of config.json names {len(declared.labels)} scores, and its "
                f"classifier gives {encoder.dim}. Correct config.json, or get the folder anew."
            )
        if trusted:
            logger.warning("%s: trust_remote_code is on: the checkpoint's own code runs in this process", at)
        recipe = resolve(name, settings, declared, encoder.tokenizer, encoder.anatomy.positions)
        return Reranker(encoder, recipe)

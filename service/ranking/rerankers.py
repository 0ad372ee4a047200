"""The rerankers of a deployment by name."""

from __future__ import annotations

import logging

from service.checkpoint import read_cross_encoder
from service.config import RerankerConfig
from service.encoder.by_name import ByName
from service.encoder.task import Scores
from service.errors import CheckpointError
from service.ranking.recipe import resolve
from service.ranking.reranker import Reranker

logger = logging.getLogger(__name__)


class Rerankers(ByName[Reranker]):
    """The models that a config names under `rerankers`."""

    section = "rerankers"
    noun = "reranker"
    missing = (
        "no model here ranks or classifies texts; `rerankers` in the config names those that do. "
        "'/similarity' compares texts by their vectors, and '/embed' gives vectors to train a classifier on."
    )

    def _load(self, name: str, settings: RerankerConfig) -> Reranker:
        declared = read_cross_encoder(settings.encoder, settings.revision)
        checkpoint, trusted = declared.checkpoint, settings.trust_remote_code
        encoder = self.encoders.load(checkpoint, self._config, Scores(), trust_remote_code=trusted)
        if encoder.dim != len(declared.labels):
            raise CheckpointError(
                f"{checkpoint.folder}: id2label of config.json names {len(declared.labels)} scores, and its "
                f"classifier gives {encoder.dim}. Correct config.json, or get the folder anew."
            )
        if trusted:
            logger.warning(
                "rerankers.%s: trust_remote_code is on: the checkpoint's own code runs in this process", name
            )
        recipe = resolve(name, settings, declared, encoder.tokenizer, encoder.anatomy.positions)
        return Reranker(encoder, recipe)

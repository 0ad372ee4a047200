"""The sparse models of a deployment by name."""

from __future__ import annotations

import logging

from service.checkpoint import read_sparse_encoder
from service.config import SparseConfig
from service.embedding.sparse.embedder import SparseEmbedder
from service.embedding.sparse.recipe import resolve
from service.encoder.by_name import ByName
from service.encoder.splade import Splade

logger = logging.getLogger(__name__)


class SparseModels(ByName[SparseEmbedder]):
    """The models that a config names under `sparse`."""

    section = "sparse"
    noun = "sparse model"
    missing = (
        "no model here makes sparse vectors; `sparse` in the config names those that do. '/embed' gives dense "
        "vectors."
    )

    def _load(self, name: str, settings: SparseConfig) -> SparseEmbedder:
        declared = read_sparse_encoder(settings.encoder, settings.revision)
        task = Splade(declared.strategy, declared.activation)
        encoder = self.encoders.load(
            declared.checkpoint, self._config, task, trust_remote_code=settings.trust_remote_code
        )
        recipe = resolve(name, settings, declared, encoder.tokenizer, encoder.anatomy.positions)
        for warning in recipe.warnings:
            logger.warning("sparse.%s: %s", name, warning)
        return SparseEmbedder(encoder, recipe)

"""Loads the encoder of a model and resolves its recipe."""

from __future__ import annotations

import logging

from service.checkpoint import read_checkpoint
from service.config import Config
from service.embedding.recipe import Recipe, declared_or, needs_layers, resolve
from service.encoder import Encoder, Encoders

logger = logging.getLogger(__name__)


def load(name: str, config: Config, encoders: Encoders) -> tuple[Encoder, Recipe]:
    """Load the model of this name in a config, with one of the encoders loaded before or one that is added to them.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.
    """
    settings = config.models[name]
    checkpoint = read_checkpoint(settings.encoder, settings.revision)
    # If the config has yet to choose a pooling, say so before minutes of loading weights.
    declared_or(settings.pooling, checkpoint, f"models.{name}")
    layered = needs_layers(name, settings, checkpoint)
    encoder = encoders.load(
        checkpoint,
        config,
        trust_remote_code=settings.trust_remote_code,
        parse_special_tokens=settings.parse_special_tokens,
    )
    if layered:
        encoder.carry_layers()
    recipe = resolve(name, settings, checkpoint, encoder.tokenizer, encoder.anatomy, encoder.depth)
    for warning in recipe.warnings:
        logger.warning("models.%s: %s", name, warning)
    return encoder, recipe

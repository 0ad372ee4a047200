"""Loads the encoder of a model and resolves its recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.checkpoint import Checkpoint, Routes, read_model
from service.config import Config
from service.embedding.recipe import Recipe, declared_or, needs_layers, resolve
from service.encoder import Encoder, Encoders
from service.errors import CheckpointError

logger = logging.getLogger(__name__)

Branch = tuple[Encoder, Recipe]
"""An encoder, and how its states become vectors."""


def load(name: str, config: Config, encoders: Encoders) -> Branch | Routes[Branch]:
    """Load the model of this name in a config, with encoders loaded before or ones that are added to them.

    Returns:
        An encoder and a recipe; those of each route for a model with a Router.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.
    """
    settings = config.models[name]
    checkpoint = read_model(settings.encoder, settings.revision)
    routes = {"": checkpoint} if isinstance(checkpoint, Checkpoint) else checkpoint.named()
    # If the config has yet to choose a pooling, say so before minutes of loading weights.
    for each in routes.values():
        declared_or(settings.pooling, each, f"models.{name}")

    def loaded(checkpoint: Checkpoint) -> Branch:
        layered = needs_layers(name, settings, checkpoint)
        encoder = encoders.load(
            checkpoint,
            config,
            trust_remote_code=settings.trust_remote_code,
            parse_special_tokens=settings.parse_special_tokens,
        )
        if layered:
            encoder.carry_layers()
        return encoder, resolve(name, settings, checkpoint, encoder.tokenizer, encoder.anatomy, encoder.depth)

    found = loaded(checkpoint) if isinstance(checkpoint, Checkpoint) else checkpoint.map(loaded)
    for route, (_, recipe) in ({"": found} if isinstance(found, tuple) else found.named()).items():
        for warning in recipe.warnings:
            logger.warning("models.%s: %s%s", name, f"{route}: " if route else "", warning)
    return found


def require_equal_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """Raise `CheckpointError` unless the vectors of all routes of a model are of the same size, here by route."""
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} dimensions on the route {route}" for route, size in sizes.items())
        raise CheckpointError(
            f"models.{name}: vectors have {told}, so they cannot be compared. Train the model, or choose poolings, "
            "so that they have as many on each."
        )

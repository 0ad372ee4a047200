"""How texts become scores, by what a config says and what a checkpoint declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from service.checkpoint import CrossEncoder
from service.config import RerankerConfig
from service.encoder import Tokenizer
from service.encoder.activation import activation
from service.encoder.length import most_tokens
from service.errors import CheckpointError, ConfigError

_MODULES: Final = "torch.nn."
_PROBE: Final = torch.tensor([[-8.0], [-1.0], [-0.1], [0.1], [1.0], [8.0]])
"""Single scores as classifiers give them."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is done around the encoder of a reranker.

    Args:
        name: the reranker's name in the deployment.
        activation: what logits go through.
        labels: the names of the scores, in order.
        max_tokens: of the longest text or pair, special tokens among them.
        truncate: whether what is longer is cut unless a request says otherwise.
    """

    name: str
    activation: nn.Module
    labels: tuple[str, ...]
    max_tokens: int
    truncate: bool


def resolve(
    name: str, settings: RerankerConfig, declared: CrossEncoder, tokenizer: Tokenizer, positions: int | None
) -> Recipe:
    """Make the recipe of a reranker: what the checkpoint declares wherever the settings say `declared`.

    Args:
        name: its name in the config.
        settings: its settings in the config.
        declared: what its folder declares.
        tokenizer: the folder's tokenizer.
        positions: most tokens by the encoder's architecture; None where that sets no bound.

    Raises:
        ConfigError, CheckpointError: naming the key or file, and the remedy.
    """
    at = f"rerankers.{name}"
    special = tokenizer.num_special_of_pair()
    return Recipe(
        name,
        _activation(settings, declared, at),
        declared.labels,
        most_tokens(settings.max_tokens, declared.checkpoint, tokenizer, positions, special, at),
        settings.truncate,
    )


def _activation(settings: RerankerConfig, declared: CrossEncoder, at: str) -> nn.Module:
    """Return a module of torch.nn that keeps the shape of scores."""
    own = settings.activation != "declared"
    name = settings.activation if own else declared.activation
    try:
        module = activation(name if "." in name else _MODULES + name)
        if any(True for _ in module.parameters()):
            raise ValueError(f"{name!r} has weights, and none are saved")
        scores = torch.zeros((1, len(declared.labels)))
        if module(scores).shape != scores.shape:
            raise ValueError(f"{name!r} gives something else than a number a score")
        if len(declared.labels) == 1 and len(set(module(_PROBE).flatten().tolist())) == 1:
            raise ValueError(f"{name!r} of a single score is the same for every text, so it ranks none")
    except Exception as error:  # modules take any arguments, and fail in their own ways
        if own:
            raise ConfigError(f"{at}.activation: {error}. Give one such as Sigmoid or Identity.") from None
        raise CheckpointError(
            f"{declared.checkpoint.folder}: its activation cannot be followed: {error}. Set {at}.activation to one, "
            "such as Sigmoid or Identity."
        ) from None
    return module.eval()

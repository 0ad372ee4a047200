"""Whether what a transformers module was converted to computes the same."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from service.encoder.anatomy import positions
from service.encoder.samples import UNBOUNDED, affordable, draw
from service.encoder.task import TOKEN_STATES, Task

CHECK: Final = 3
"""Version of the check; increase it when it comes to refuse more, so that what is cached is checked again."""
GivesStates = Callable[[Tensor, Tensor], Tensor | Sequence[Tensor]]
"""Token ids and mask, both (batch, time) -> states (batch, time, dim), of one layer or of several."""
_SHAPES: Final = ((1, 1), (1, 3), (2, 8), (3, 18), (1, 33))
_TOLERANCE: Final = 1e-4
"""Largest difference from the module's states, relative to the largest state."""
_SCORES: Final = 2**25
"""Most attention scores of one layer in a checked pass: 128 MiB in float32."""
_BOUNDARIES: Final = (
    *("attention_window", "local_attention", "sliding_window", "local_radius", "attention_chunk_size"),
    *("block_size", "global_block_size", "original_max_position_embeddings"),
)
"""Numbers of tokens in a config at which modelling code takes another way."""


def difference(module: Any, states: GivesStates, task: Task = TOKEN_STATES) -> str | None:
    """Say how `states`, or what else a task gives, differ from a module's.

    The shapes and masks are such that they reveal what tracing took for constant.

    Short sequences come again after long ones, since what was compiled may have kept something of those.

    Args:
        module: the encoder.
        states: gives the results of what it was converted to.
        task: what those are.
    """
    most = longest(module)
    exact = task.wrap(module)
    with torch.inference_mode():
        for rows, width in (*_SHAPES, (2, most // 2 + 1), (1, 3), (1, most), (2, 8)):
            ids, mask = sample(module, rows, width)
            for given, right in zip(_layers(states(ids, mask)), _layers(exact(ids, mask)), strict=True):
                found, wanted = task.rows(given, mask), task.rows(right, mask)
                apart = float((found - wanted).abs().max() / wanted.abs().max())
                if not apart <= _TOLERANCE:
                    return f"at {rows} x {ids.shape[1]} tokens its states differ by {apart:.1e} of the largest"
    return None


def _layers(states: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [states] if isinstance(states, Tensor) else states


def longest(module: Any) -> int:
    """Return how many tokens the longest checked sequence has.

    It is as long as the module's positions allow where that is cheap. An encoder of 8,192 tokens would keep a start
    waiting for minutes, and need gigabytes, so there it goes twice as far as any number at which the config declares
    that something changes.
    """
    config = module.config.get_text_config()
    parts = [part for part in module.modules() if not isinstance(part, torch.nn.Embedding)]
    weights = sum(weight.numel() for part in parts for weight in part.parameters(recurse=False))
    heads = getattr(config, "num_attention_heads", None) or 1
    cheap = min(affordable(weights), math.isqrt(_SCORES // heads))
    return min(positions(module) or UNBOUNDED, max(cheap, 2 * _last_boundary(config), _SHAPES[-1][1]))


def _last_boundary(config: Any) -> int:
    rope = getattr(config, "rope_parameters", None) or {}
    values = [getattr(config, name, None) for name in _BOUNDARIES]
    values += [part.get(_BOUNDARIES[-1]) for part in (rope, *rope.values()) if isinstance(part, dict)]
    numbers = [number for value in values for number in (value if isinstance(value, list | tuple) else [value])]
    return max((number for number in numbers if isinstance(number, int)), default=0)


def sample(module: Any, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return token ids and a mask, both (rows, width), padded at the right except in the first row."""
    width = min(width, positions(module) or UNBOUNDED)
    ids = torch.from_numpy(draw(np.arange(module.config.get_text_config().vocab_size), (rows, width), rows * width))
    lengths = torch.tensor([max(width // (row + 1), 1) for row in range(rows)])
    return ids, (torch.arange(width) < lengths[:, None]).long()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence tracing: its warnings are about code that is checked by its results instead."""
    loggers = [logging.getLogger("transformers"), logging.getLogger()]  # OpenVINO changes the root's level for good
    levels = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

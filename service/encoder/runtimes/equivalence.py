"""Whether what was made of a transformers module, traced or converted, computes the same states."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

_SHAPES: Final = ((1, 3), (2, 8), (3, 18), (1, 33))
_FIRST_POSITION: Final = 2
"""Where models of the RoBERTa family count positions from."""
_TOLERANCE: Final = 1e-4
"""Largest difference from the module's states, relative to the largest state."""


def difference(module: Any, states: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    """Say how `states` differ from a module's, over shapes and masks that reveal what tracing took for constant."""
    with torch.inference_mode():
        for rows, width in _SHAPES:
            ids, mask = sample(module, rows, width)
            wanted = module(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
            found = states(ids, mask)[mask.bool()]
            apart = float((found - wanted).abs().max() / wanted.abs().max())
            if not apart <= _TOLERANCE:
                return f"at {rows} x {width} tokens its states differ by {apart:.1e} of the largest"
    return None


def sample(module: Any, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return token ids and a mask, both (rows, width), padded at the right except in the first row."""
    config = module.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or width + _FIRST_POSITION
    width = min(width, positions - _FIRST_POSITION)
    generator = torch.Generator().manual_seed(rows * width)
    ids = torch.randint(config.vocab_size, (rows, width), generator=generator)
    lengths = torch.tensor([max(width - 2 * row, 1) for row in range(rows)])
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

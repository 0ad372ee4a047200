"""A transformers module as a function of ids and mask; traced, it runs without the Python between its operations."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_SHAPES: Final = ((1, 3), (2, 8), (3, 18), (1, 33))
_FIRST_POSITION: Final = 2
"""Where models of the RoBERTa family count positions from."""
_TOLERANCE: Final = 1e-4
"""Largest difference from the module's states, relative to the largest state."""


class StatesOnly(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> states (batch, time, dim)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return the module's last hidden states."""
        return self.module(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def trace(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Trace a module, so that a whole pass is one call that holds Python's global lock only to start.

    Short passes lose most of their time to Python and to threads that wait for its lock. A module that cannot be
    traced, or whose trace computes other states, is returned as it is.
    """
    plain = StatesOnly(module)
    try:
        with silenced(), torch.inference_mode():
            traced: Any = torch.jit.trace(plain, sample(module, 2, 7), check_trace=False)  # type: ignore[no-untyped-call]
        reason = difference(module, traced)
    except Exception as error:  # tracing raises whatever the architecture's code does
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason is None:
        return lambda ids, mask: traced(ids, mask)
    logger.warning("its passes cannot be traced and are slower for it (%s)", reason)
    return plain


def difference(module: Any, states: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    """Say how `states` differ from a module's, over shapes and masks that reveal what tracing took for constant."""
    plain = StatesOnly(module)
    with torch.inference_mode():
        for rows, width in _SHAPES:
            ids, mask = sample(module, rows, width)
            wanted, found = plain(ids, mask)[mask.bool()], states(ids, mask)[mask.bool()]
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

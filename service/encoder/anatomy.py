"""What an encoder's code makes of its config: the size of its states, its embedding table and its positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Final

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from service.checkpoint import Checkpoint
from service.encoder.task import TOKEN_STATES, Task
from service.errors import CheckpointError, brief

_POSITION_KEYS: Final = ("max_position_embeddings", "max_seq_len")
"""What configs call the most positions; the second is MPT's name."""
_OTHER_TOWERS: Final = ("vision", "visual", "image", "audio")
"""Parts of the names of modules that read something else than text."""
_POSITION_TABLES: Final = {"position_embeddings", "position_embedding", "embed_positions", "positions_embed", "wpe"}
"""What modelling code calls a table with a row for each position."""
_MOST_A_BYTE: Final = 4
"""Weights that a byte of the files may become: two of four bits each, and twice, where two layers share them."""
_UNSAVED: Final = 2**24
"""Weights that an encoder may have besides, such as a pooler that was not saved."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Sizes of an encoder.

    Args:
        dim: of a row of what it computes, such as a token state.
        vocabulary: rows of the embedding table; None where there is none of tokens.
        positions: most tokens of a text; None where the architecture sets no bound.
    """

    dim: int
    vocabulary: int | None
    positions: int | None


def examine(checkpoint: Checkpoint, task: Task = TOKEN_STATES, *, trust_remote_code: bool = False) -> Anatomy:
    """Build an encoder without its weights, and read its sizes.

    Raises:
        CheckpointError: its config describes no encoder, or one of which its weights are but a small part.
    """
    from transformers import AutoConfig

    folder = checkpoint.encoder
    kind = task.auto_class(checkpoint, trust_remote_code=trust_remote_code)
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"), _no_more_than_saved(checkpoint):
            module = kind.from_config(config, trust_remote_code=trust_remote_code)
        dim = _dim(module, task)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds for a damaged config
        raise CheckpointError(f"{folder}: its config.json describes no encoder ({brief(error, 300)}).") from None
    return Anatomy(dim, _vocabulary(module), positions(module))


@contextmanager
def _no_more_than_saved(checkpoint: Checkpoint) -> Iterator[None]:
    """Stop to build an encoder that becomes much larger than its weights, since a wrong size may ask for any memory.

    Raises:
        CheckpointError: it does.
    """
    size = sum(path.stat().st_size for path in checkpoint.weight_files())
    most, built, thread = _MOST_A_BYTE * size + _UNSAVED, 0, get_ident()

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal built
        if weight is None or get_ident() != thread:
            return
        built += weight.numel()
        if built > most:
            shape = " x ".join(map(str, weight.shape))
            raise CheckpointError(
                f"{checkpoint.encoder}: config.json describes an encoder of more than {most} weights (building "
                f"stopped at {name!r} of a {type(module).__name__}, {shape}), and the weights beside it take {size} "
                "bytes, so the two are not of one model. Correct its sizes, or get both anew."
            )

    counting = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        counting.remove()


def positions(module: Any) -> int | None:
    """Return how many tokens a transformers module has positions for; None where it sets no bound.

    In the RoBERTa family, ESM and others, a text's positions start behind that of the padding token, so its table
    has more rows than a text may have tokens.
    """
    limits = [getattr(module.config.get_text_config(), key, None) for key in _POSITION_KEYS]
    for name, part in module.named_modules():
        of_text = not any(other in name for other in _OTHER_TOWERS)
        if of_text and name.rpartition(".")[2] in _POSITION_TABLES and (rows := _rows(part)) is not None:
            padding = getattr(part, "padding_idx", None)
            limits.append(rows - (0 if padding is None else padding + 1))
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def _dim(module: Any, task: Task) -> int:
    """Return the size of a row: some architectures project their states, so that it is not the hidden size."""
    ids = torch.ones((1, 2), dtype=torch.int64, device="meta")
    try:
        return int(task.wrap(module)(ids, torch.ones_like(ids)).shape[2])
    except Exception:  # code that looks at numbers does not run without them
        return task.size(module.config)


def _vocabulary(module: Any) -> int | None:
    try:
        return _rows(module.get_input_embeddings())
    except NotImplementedError:  # an encoder of something else than text
        return None


def _rows(table: Any) -> int | None:
    weight = getattr(table, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.dim() == 2 else None

"""The mask algebra: which tokens count, said once, so that no strategy needs to ask.

Masks are bool, true where a token counts: (batch, time), or (batch, n, time) for n groups of tokens a text.
"Counting" tokens are ranked 1, 2, ... wherever they stand, so left and right padding are the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from pooling.base import Pooler, count, one_of

_AT_ONCE: Final = 8_192
"""Tokens of spans that are pooled in one call; their states are copied for it."""


def rank(mask: Tensor) -> Tensor:
    """1, 2, ... over the tokens that count, (batch, time); 0 where a token does not."""
    return mask.cumsum(1) * mask


def from_lengths(
    lengths: Tensor | Sequence[int], time: int | None = None, padding: Literal["right", "left"] = "right"
) -> Tensor:
    """The mask (batch, time) of texts with `lengths` tokens; `time` defaults to the longest.

    Raises:
        ValueError: a length is negative or exceeds `time`.

    """
    one_of("padding", padding, ("right", "left"))
    lengths = torch.as_tensor(lengths).unsqueeze(1)
    longest = int(lengths.max()) if lengths.numel() else 0
    time = longest if time is None else time
    if longest > time or (lengths < 0).any():
        raise ValueError(f"lengths must lie between 0 and {time}")
    positions = torch.arange(time, device=lengths.device).unsqueeze(0)
    return positions < lengths if padding == "right" else positions >= time - lengths


def exclude_prefix(mask: Tensor, n: int | Tensor) -> Tensor:
    """Leaves out the first `n` tokens that count, a prompt for example; `n` is one number or one a row.

    Raises:
        ValueError: `n` is negative.

    """
    n = torch.as_tensor(n, device=mask.device)
    if (n < 0).any():
        raise ValueError("n must not be negative")
    return rank(mask.bool()) > n.reshape(-1, 1)


def windows(mask: Tensor, size: int, stride: int) -> Tensor:
    """Windows of `size` counting tokens, one every `stride`: (batch, n, time).

    The last window of a row may be shorter, so no token is lost while stride <= size; a row with fewer
    windows than the longest has empty ones at its end.
    """
    count("size", size)
    count("stride", stride)
    ranks = rank(mask.bool()).unsqueeze(1)
    total = ranks.amax(2, keepdim=True) if mask.shape[1] else ranks.new_zeros(mask.shape[0], 1, 1)
    most = int(total.max()) if total.numel() else 0
    start = torch.arange(0, most, stride, device=mask.device).reshape(1, -1, 1)
    # A window is there unless it begins behind the text, or the one before it already reached the end.
    present = (start < total) & ((start == 0) | (start - stride + size < total))
    inside = (ranks > start) & (ranks <= start + size) & present
    return inside[:, present.any(0).flatten()]


def adaptive(mask: Tensor, n: int) -> Tensor:
    """Cuts each row's T counting tokens into `n` segments: (batch, n, time).

    Segment i covers floor(i T / n) to ceil((i + 1) T / n), the rule of PyTorch's adaptive pooling: neighbours
    may overlap, and none is empty.
    """
    count("n", n)
    ranks = rank(mask.bool()).unsqueeze(1)
    total = mask.bool().sum(1).reshape(-1, 1, 1)
    index = torch.arange(n, device=mask.device).reshape(1, -1, 1)
    start = index * total // n
    end = -(-(index + 1) * total // n)
    return (ranks > start) & (ranks <= end)


def spans(offsets: Tensor, characters: Tensor) -> Tensor:
    """The tokens that overlap each span of characters: (batch, n, time).

    Args:
        offsets: (batch, time, 2), where each token starts and ends in its text; special tokens and padding
            have an empty range and belong to no span.
        characters: (batch, n, 2), start and end of each span; an empty range is no span and fills short rows.

    """
    start, end = offsets.unsqueeze(1).unbind(3)
    first, last = characters.unsqueeze(2).unbind(3)
    return (start < end) & (first < last) & (start < last) & (end > first)


def pool_spans(pooler: Pooler, tokens: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Many vectors a text from one pass of the encoder (late chunking).

    Args:
        pooler: any strategy.
        tokens: (batch, time, dim).
        masks: (batch, n, time), the tokens of each span.

    Returns:
        Vectors (batch, n, output_dim) and validity (batch, n): a span without tokens is zero and invalid.

    """
    masks = masks.bool()
    valid = masks.any(2)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    vectors = tokens.new_zeros((*valid.shape, pooler.output_dim), dtype=dtype)
    # A span is short and a text long: what lies outside on both sides is never read. Those of like width go together.
    texts, places = valid.nonzero().unbind(1)
    own = masks[texts, places].byte()
    first = own.argmax(1)
    width = masks.shape[2] - own.flip(1).argmax(1) - first
    for some in _groups(width):
        steps = torch.arange(int(width[some].max()), device=tokens.device)
        inside = steps < width[some].unsqueeze(1)
        columns = (first[some].unsqueeze(1) + steps) * inside
        text, place = texts[some].unsqueeze(1), places[some].unsqueeze(1)
        vectors[texts[some], places[some]] = pooler(tokens[text, columns], masks[text, place, columns] & inside)
    return vectors, valid


def _groups(width: Tensor) -> Iterator[Tensor]:
    """Places of spans of like width, in groups of at most `_AT_ONCE` tokens, padding included, or of one span."""
    order = width.argsort(descending=True)
    widths: list[int] = width[order].tolist()
    start = 0
    while start < len(widths):
        size = max(1, _AT_ONCE // widths[start])
        yield order[start : start + size]
        start += size

"""Operations on masks: which tokens count.

Masks are bool, true where a token counts: (batch, time), or (batch, n, time) for n groups of tokens per text.
The tokens that count are ranked 1, 2, ... regardless of position, so left and right padding are equivalent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from pooling.base import Pooler, check_choice, check_count

_MAX_GROUP_TOKENS: Final = 8_192
"""Tokens of the spans pooled in one call, which copies their states."""


def rank(mask: Tensor) -> Tensor:
    """Rank the tokens that count 1, 2, ..., (batch, time); the others get 0."""
    return mask.cumsum(1) * mask


def from_lengths(
    lengths: Tensor | Sequence[int], time: int | None = None, padding: Literal["right", "left"] = "right"
) -> Tensor:
    """Return the mask (batch, time) of texts with `lengths` tokens; `time` defaults to the longest.

    Raises:
        ValueError: a length is negative or exceeds `time`.
    """
    check_choice("padding", padding, ("right", "left"))
    lengths = torch.as_tensor(lengths).unsqueeze(1)
    longest = int(lengths.max()) if lengths.numel() else 0
    time = longest if time is None else time
    if longest > time or (lengths < 0).any():
        raise ValueError(f"lengths must lie between 0 and {time}")
    positions = torch.arange(time, device=lengths.device).unsqueeze(0)
    return positions < lengths if padding == "right" else positions >= time - lengths


def exclude_prefix(mask: Tensor, n: int | Tensor) -> Tensor:
    """Exclude the first `n` tokens that count, such as a prompt; `n` is one number or one per row.

    Raises:
        ValueError: `n` is negative.
    """
    n = torch.as_tensor(n, device=mask.device)
    if (n < 0).any():
        raise ValueError("n must not be negative")
    return rank(mask.bool()) > n.reshape(-1, 1)


def only(mask: Tensor, ids: Tensor, token: int) -> Tensor:
    """Keep those tokens that count whose id is `token`; `mask` and `ids` are (batch, time)."""
    return mask.bool() & (ids == token)


def windows(mask: Tensor, size: int, stride: int) -> Tensor:
    """Return windows of `size` tokens that count, one every `stride`: (batch, n, time).

    The last window of a row may be shorter, so no token is lost if stride <= size; a row with fewer windows
    than the longest ends in empty ones.
    """
    check_count("size", size)
    check_count("stride", stride)
    ranks = rank(mask.bool()).unsqueeze(1)
    total = mask.bool().sum(1).reshape(-1, 1, 1)
    longest = int(total.max()) if total.numel() else 0
    start = torch.arange(0, longest, stride, device=mask.device).reshape(1, -1, 1)
    # A window exists unless it would begin after the text, or the one before it already reached the end.
    present = (start < total) & ((start == 0) | (start - stride + size < total))
    inside = (ranks > start) & (ranks <= start + size) & present
    return inside[:, present.any(0).flatten()]


def adaptive(mask: Tensor, n: int) -> Tensor:
    """Divide the T tokens of each row that count into `n` segments: (batch, n, time).

    Segment i covers floor(i T / n) to ceil((i + 1) T / n), the rule of PyTorch's adaptive pooling: neighbours
    may overlap, and none is empty.
    """
    check_count("n", n)
    ranks = rank(mask.bool()).unsqueeze(1)
    total = mask.bool().sum(1).reshape(-1, 1, 1)
    index = torch.arange(n, device=mask.device).reshape(1, -1, 1)
    start = index * total // n
    end = -(-(index + 1) * total // n)
    return (ranks > start) & (ranks <= end)


def spans(offsets: Tensor, characters: Tensor) -> Tensor:
    """Return the masks of the tokens that overlap each span of characters: (batch, n, time).

    Args:
        offsets: (batch, time, 2), start and end of each token in the characters of its text; special tokens
            and padding have an empty range and belong to no span.
        characters: (batch, n, 2), start and end of each span; rows with fewer spans are padded with empty ranges.
    """
    start, end = offsets.unsqueeze(1).unbind(3)
    first, last = characters.unsqueeze(2).unbind(3)
    return (start < end) & (first < last) & (start < last) & (end > first)


def pool_spans(pooler: Pooler, tokens: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Pool several spans of each text from one pass of the encoder (late chunking).

    Args:
        pooler: any strategy.
        tokens: (batch, time, dim).
        masks: (batch, n, time), the tokens of each span.

    Returns:
        Vectors (batch, n, output_dim), and validity (batch, n), false for a span without tokens; its vector is zero.
    """
    masks = masks.bool()
    valid = masks.any(2)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    vectors = tokens.new_zeros((*valid.shape, pooler.output_dim), dtype=dtype)
    # Spans are short and texts long, so only the states between the first and the last token of a span are read.
    texts, indices = valid.nonzero().unbind(1)
    span_masks = masks[texts, indices].byte()
    first = span_masks.argmax(1)
    width = masks.shape[2] - span_masks.flip(1).argmax(1) - first
    for group in _groups(width):
        steps = torch.arange(int(width[group].max()), device=tokens.device)
        inside = steps < width[group].unsqueeze(1)
        columns = (first[group].unsqueeze(1) + steps) * inside
        text, index = texts[group].unsqueeze(1), indices[group].unsqueeze(1)
        vectors[texts[group], indices[group]] = pooler(tokens[text, columns], masks[text, index, columns] & inside)
    return vectors, valid


def _groups(width: Tensor) -> Iterator[Tensor]:
    """Group spans of similar width: at most `_MAX_GROUP_TOKENS` tokens with padding, or a single span."""
    order = width.argsort(descending=True)
    widths: list[int] = width[order].tolist()
    start = 0
    while start < len(widths):
        size = max(1, _MAX_GROUP_TOKENS // widths[start])
        yield order[start : start + size]
        start += size

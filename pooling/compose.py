"""Composite strategies: concatenations and sequences, with a warning for combinations that defeat themselves."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import pairwise
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn

from pooling import masks
from pooling.base import Component, Pooler, PoolingError, Stage, check_choice, check_count
from pooling.between import KMax
from pooling.fixed import Max, Mean, Token
from pooling.learned import Scored
from pooling.piecewise import Piecewise
from pooling.weights import expand, product

MAX_PARTS: Final = 32
MAX_SEGMENTS: Final = 4096


class ComposeWarning(UserWarning):
    """A strategy in a sequence undoes the one before it."""


class Concatenation(Pooler):
    """`a + b`: the concatenated vectors of the parts. Nested concatenations are flattened.

    Args:
        parts: poolers over states of one `dim`.
    """

    name = "concatenation"
    summary = "the vectors of several strategies, one after the other"
    good_for = "checkpoints that declare several"
    weak_at = "index size: the dimension grows"

    def __init__(self, parts: Iterable[Component]) -> None:
        flat: list[Pooler] = []
        for part in parts:
            if not isinstance(part, Pooler):
                raise PoolingError(f"{_spec(part)} is no strategy by itself and cannot be concatenated")
            flat += part.poolers if isinstance(part, Concatenation) else [part]
        super().__init__(_common_dim(flat))
        self.parts = nn.ModuleList(flat)

    @property
    def poolers(self) -> list[Pooler]:
        """The parts in order."""
        return [cast(Pooler, part) for part in self.parts]

    @property
    def output_dim(self) -> int:
        """The sum of the output dimensions of the parts."""
        return sum(part.output_dim for part in self.poolers)

    @property
    def linear(self) -> bool:
        """Whether every part is linear."""
        return all(part.linear for part in self.poolers)

    @property
    def exact(self) -> bool:
        """Whether every part is exact."""
        return all(part.exact for part in self.poolers)

    @property
    def options(self) -> Mapping[str, Any]:
        """The parts' configs."""
        return {"parts": [part.config() for part in self.poolers]}

    @property
    def spec(self) -> str:
        """The short form, such as `mean + max`; a sequence among the parts is in parentheses."""
        return " + ".join(f"({p.spec})" if isinstance(p, Sequence) else p.spec for p in self.poolers)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([part._pool(tokens, mask) for part in self.poolers], dim=1)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([expand(part._weights(tokens, mask), part.output_dim) for part in self.poolers], dim=2)

    def _terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([part._terms(tokens, mask) for part in self.poolers], dim=2)


class Sequence(Pooler):
    """`a > b`: each stage transforms the token states, and the last strategy pools them.

    Weights follow the chain rule: those of the last strategy are propagated back through each stage.

    Args:
        stages: stages (`window`, `adaptive`, `attention`, `gated`), then one pooler; a sequence at the end is
            flattened.

    Warns:
        ComposeWarning: a max, or `kmax`, immediately follows `attention` or `gated`.
    """

    name = "sequence"
    summary = "stages that rework the token states, then a strategy that pools them"
    good_for = "local pooling before global pooling"
    weak_at = "a hard selection behind a soft one, which undoes it"

    def __init__(self, stages: Iterable[Component]) -> None:
        components = list(stages)
        if components and isinstance(components[-1], Sequence):
            components[-1:] = components[-1].components
        for stage in components[:-1]:
            if not isinstance(stage, Stage):
                raise PoolingError(
                    f"{_spec(stage)} makes one vector, so nothing can come after it; "
                    "what can: window, adaptive, attention, gated"
                )
        if not components or not isinstance(components[-1], Pooler):
            raise PoolingError(
                "a sequence must end in a strategy that pools, as in 'window(size=8, stride=8) > mean'"
            )
        super().__init__(_common_dim(components))
        self.stages = nn.ModuleList(components)
        _warn_of_undoing(components)

    @property
    def components(self) -> list[Component]:
        """The stages and the last pooler, in order."""
        return [cast(Component, component) for component in self.stages]

    @property
    def output_dim(self) -> int:
        """The output dimension of the last pooler."""
        return self._last.output_dim

    @property
    def linear(self) -> bool:
        """Whether the last pooler is linear; every stage is."""
        return self._last.linear

    @property
    def options(self) -> Mapping[str, Any]:
        """The stages' configs."""
        return {"stages": [component.config() for component in self.components]}

    @property
    def spec(self) -> str:
        """The short form, such as `attention > mean`."""
        return " > ".join(component.spec for component in self.components)

    @property
    def _last(self) -> Pooler:
        return cast(Pooler, self.stages[-1])

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        for stage in self.components[:-1]:
            tokens, mask = cast(Stage, stage)._transform(tokens, mask)
        return self._last._pool(tokens, mask)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        inputs = []
        for component in self.components[:-1]:
            stage = cast(Stage, component)
            inputs.append((stage, tokens, mask))
            tokens, mask = stage._transform(tokens, mask)
        weights = self._last._weights(tokens, mask)
        for stage, tokens, mask in reversed(inputs):
            weights = stage._trace(weights, tokens, mask)
        return weights if weights.dim() == 2 else expand(weights, self.output_dim)


class Segments(Stage):
    """One new token for each segment of the text, as `_masks` defines them, pooled by mean or max."""

    def __init__(self, dim: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim)
        check_choice("by", by, ("mean", "max"))
        self.by = by
        self._pooler: Pooler = Mean(dim) if by == "mean" else Max(dim)

    @abstractmethod
    def _masks(self, mask: Tensor) -> Tensor:
        """Return the masks of n segments: (batch, time) -> (batch, n, time)."""

    @abstractmethod
    def count(self, tokens: int) -> int:
        """Return how many segments a text of so many tokens that count has."""

    @abstractmethod
    def width(self, tokens: int) -> int:
        """Return how many tokens a segment of such a text has at most."""

    def _transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return masks.pool_spans(self._pooler, tokens, self._masks(mask))

    def _trace(self, weights: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        segments = self._masks(mask)
        # A row with fewer segments ends in empty ones; as their weights are zero, any tokens can take their place.
        segments = segments | (mask.unsqueeze(1) & ~segments.any(2, keepdim=True))
        shares = (
            product(self._pooler._weights(tokens, segment), weights[:, i : i + 1])
            for i, segment in enumerate(segments.unbind(1))
        )
        return reduce(torch.add, shares)  # thousands at once would not fit in memory


class Windows(Segments):
    """Local pooling: one token per window of `size` tokens that count, a window every `stride` tokens."""

    name = "window"
    example = "window(size=8, stride=4) > mean"
    summary = "stage: one token for each window"
    good_for = "local pooling before global pooling"
    weak_at = "short texts, of which it leaves one window"

    def __init__(self, dim: int, size: int, stride: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim, by)
        check_count("size", size)
        check_count("stride", stride)
        self.size = size
        self.stride = stride

    def _masks(self, mask: Tensor) -> Tensor:
        return masks.windows(mask, self.size, self.stride)

    def count(self, tokens: int) -> int:
        """Return how many windows there are: none begins behind one that reaches the end."""
        behind_first = min(-(-(tokens - self.size) // self.stride), -(-tokens // self.stride) - 1)
        return 1 + max(behind_first, 0)

    def width(self, tokens: int) -> int:
        """Return the size, or all tokens where there are fewer."""
        return min(self.size, tokens)


class Adaptive(Segments):
    """Local pooling to `n` tokens regardless of length, with the segments of PyTorch's adaptive pooling."""

    name = "adaptive"
    example = "adaptive(n=3) > mean"
    summary = "stage: n tokens, one for each nth part of the text"
    good_for = "giving each part of a text the same weight"
    weak_at = "texts shorter than n, whose tokens it repeats"

    def __init__(self, dim: int, n: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim, by)
        check_count("n", n, MAX_SEGMENTS)
        self.n = n

    def _masks(self, mask: Tensor) -> Tensor:
        return masks.adaptive(mask, self.n)

    def count(self, tokens: int) -> int:
        """Return n."""
        return self.n

    def width(self, tokens: int) -> int:
        """Return the nth part of the tokens, with what it may share with its neighbours."""
        return min(-(-tokens // self.n) + 1, tokens)


def _spec(component: object) -> str:
    return repr(component.spec if isinstance(component, Component) else component)


def _common_dim(components: list[Any]) -> int:
    if not 1 <= len(components) <= MAX_PARTS:
        raise PoolingError(f"{len(components)} parts: must be from 1 to {MAX_PARTS}")
    if alone := next((component for component in components if isinstance(component, Token)), None):
        raise PoolingError(
            f"{alone.spec} stands alone: it is given a mask of one token, and other parts need them all"
        )
    dims = {component.dim for component in components}
    if len(dims) > 1:
        raise PoolingError(f"all parts must pool states of one dimension, not of {sorted(dims)}")
    return int(dims.pop())


def _hard_selection(component: Component) -> Component | None:
    """Return the part of `component` that takes a max over its input, None if there is none."""
    if isinstance(component, Concatenation):
        return next((hard for part in component.poolers if (hard := _hard_selection(part))), None)
    if isinstance(component, Sequence):
        return _hard_selection(component.components[0])
    if isinstance(component, Segments | Piecewise):
        return component if component.by == "max" else None
    return component if isinstance(component, Max | KMax) else None


def _warn_of_undoing(components: list[Component]) -> None:
    for soft, after in pairwise(components):
        hard = _hard_selection(after)
        if isinstance(soft, Scored) and hard is not None:
            warnings.warn(
                f"{hard.spec!r} straight after {soft.spec!r} undoes it: the weighting keeps context, the max "
                f"throws it away, and trains winners only. Use either alone, {soft.spec!r} or {hard.spec!r}; "
                "'attention(scores=descriptors)' computes the weights from max and mean instead.",
                ComposeWarning,
                stacklevel=3,
            )

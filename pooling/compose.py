"""Strategies made of strategies, and a warning where two should not meet."""

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
from pooling.base import Component, Pooler, PoolingError, Stage, chain, count, one_of, spread
from pooling.fixed import Max, Mean
from pooling.learned import Scored

MAX_PARTS: Final = 32
MAX_SEGMENTS: Final = 4096


class ComposeWarning(UserWarning):
    """Two strategies follow each other of which the second undoes the first."""


class Concatenation(Pooler):
    """`a + b`: the parts' vectors one after the other. A concatenation among the parts is taken apart.

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
        """The sum of the parts'."""
        return sum(part.output_dim for part in self.poolers)

    @property
    def linear(self) -> bool:
        """Whether every part is."""
        return all(part.linear for part in self.poolers)

    @property
    def exact(self) -> bool:
        """Whether every part is."""
        return all(part.exact for part in self.poolers)

    @property
    def options(self) -> Mapping[str, Any]:
        """The parts' configs."""
        return {"parts": [part.config() for part in self.poolers]}

    @property
    def spec(self) -> str:
        """`mean + max`; a sequence among the parts stands in parentheses."""
        return " + ".join(f"({p.spec})" if isinstance(p, Sequence) else p.spec for p in self.poolers)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([part._pool(tokens, mask) for part in self.poolers], dim=1)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([spread(part._weights(tokens, mask), part.output_dim) for part in self.poolers], dim=2)

    def _terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([part._terms(tokens, mask) for part in self.poolers], dim=2)


class Sequence(Pooler):
    """`a > b`: each stage makes new token states of the old, the last strategy pools them.

    Weights follow the chain rule: the last strategy's, carried back through each stage.

    Args:
        stages: stages (`window`, `adaptive`, `attention`, `gated`), then one pooler; a sequence at the end is
            taken apart.

    Warns:
        ComposeWarning: a max comes straight after `attention` or `gated`.

    """

    name = "sequence"
    summary = "stages that rework the token states, then a strategy that pools them"
    good_for = "local pooling before global pooling"
    weak_at = "a hard selection behind a soft one, which undoes it"

    def __init__(self, stages: Iterable[Component]) -> None:
        given = list(stages)
        if given and isinstance(given[-1], Sequence):
            given[-1:] = given[-1].components
        for stage in given[:-1]:
            if not isinstance(stage, Stage):
                raise PoolingError(
                    f"{_spec(stage)} makes one vector, so nothing can come after it; "
                    "what can: window, adaptive, attention, gated"
                )
        if not given or not isinstance(given[-1], Pooler):
            raise PoolingError(
                "a sequence must end in a strategy that pools, as in 'window(size=8, stride=8) > mean'"
            )
        super().__init__(_common_dim(given))
        self.stages = nn.ModuleList(given)
        _warn_of_undoing(given)

    @property
    def components(self) -> list[Component]:
        """The stages and the last pooler, in order."""
        return [cast(Component, component) for component in self.stages]

    @property
    def output_dim(self) -> int:
        """The last pooler's."""
        return self._last.output_dim

    @property
    def linear(self) -> bool:
        """Whether the last pooler is: every stage is."""
        return self._last.linear

    @property
    def options(self) -> Mapping[str, Any]:
        """The stages' configs."""
        return {"stages": [component.config() for component in self.components]}

    @property
    def spec(self) -> str:
        """`attention > mean`."""
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
        return weights if weights.dim() == 2 else spread(weights, self.output_dim)


class Segments(Stage):
    """One new token for each segment of the text that `_masks` cuts, pooled by mean or max."""

    def __init__(self, dim: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim)
        one_of("by", by, ("mean", "max"))
        self.by = by
        self._pooler: Pooler = Mean(dim) if by == "mean" else Max(dim)

    @abstractmethod
    def _masks(self, mask: Tensor) -> Tensor:
        """(batch, time) -> (batch, n, time)."""

    def _transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return masks.pool_spans(self._pooler, tokens, self._masks(mask))

    def _trace(self, weights: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        segments = self._masks(mask)
        # A row with fewer segments has empty ones; they weigh nothing, so any tokens that count can stand in.
        segments = segments | (mask.unsqueeze(1) & ~segments.any(2, keepdim=True))
        shares = (
            chain(self._pooler._weights(tokens, segment), weights[:, i : i + 1])
            for i, segment in enumerate(segments.unbind(1))
        )
        return reduce(torch.add, shares)  # one after the other, for there may be thousands


class Windows(Segments):
    """Local pooling over time: a token for each window of `size` tokens that count, one every `stride`."""

    name = "window"
    summary = "stage: one token for each window"
    good_for = "local pooling before global pooling"
    weak_at = "short texts, of which it leaves one window"

    def __init__(self, dim: int, size: int, stride: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim, by)
        count("size", size)
        count("stride", stride)
        self.size = size
        self.stride = stride

    def _masks(self, mask: Tensor) -> Tensor:
        return masks.windows(mask, self.size, self.stride)


class Adaptive(Segments):
    """Local pooling to `n` tokens, whatever the length: the segments of PyTorch's adaptive pooling."""

    name = "adaptive"
    summary = "stage: n tokens, one for each nth part of the text"
    good_for = "giving each part of a text the same weight"
    weak_at = "texts shorter than n, whose tokens it repeats"

    def __init__(self, dim: int, n: int, by: Literal["mean", "max"] = "mean") -> None:
        super().__init__(dim, by)
        count("n", n, MAX_SEGMENTS)
        self.n = n

    def _masks(self, mask: Tensor) -> Tensor:
        return masks.adaptive(mask, self.n)


def _spec(component: object) -> str:
    return repr(component.spec if isinstance(component, Component) else component)


def _common_dim(components: list[Any]) -> int:
    if not 1 <= len(components) <= MAX_PARTS:
        raise PoolingError(f"{len(components)} parts: must be from 1 to {MAX_PARTS}")
    dims = {component.dim for component in components}
    if len(dims) > 1:
        raise PoolingError(f"all parts must pool states of one dimension, not of {sorted(dims)}")
    return int(dims.pop())


def _hard_selection(component: Component) -> Component | None:
    """The part of `component` that takes a max over what comes in, if there is one."""
    if isinstance(component, Concatenation):
        return next((hard for part in component.poolers if (hard := _hard_selection(part))), None)
    if isinstance(component, Sequence):
        return _hard_selection(component.components[0])
    if isinstance(component, Segments):
        return component if component.by == "max" else None
    return component if isinstance(component, Max) else None


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

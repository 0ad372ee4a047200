"""Layers of an encoder: whose states are pooled, the last one's alone or a mean of several.

Layers are numbered as hidden states are: 0 is what the embeddings give, 1 to L what the transformer layers give. Two
have names. `last` is L, and its states are those that the encoder gives where nothing else is asked of it, behind
its final norm where it has one; other layers come as they are, before that norm. `first` is 1, the first transformer
layer, as in the first-last-avg of Su et al. (2021) and in the code of SimCSE; what others mean by it, the embeddings,
is 0.

    >>> import torch
    >>> from pooling.layers import build
    >>> layers = build({"use": ["first", "last"], "by": "mean"}, depth=6)
    >>> layers.used
    (1, 6)
    >>> layers({1: torch.zeros(2, 5, 384), 6: torch.ones(2, 5, 384)})[0, 0, 0]
    tensor(0.5000)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from pooling.base import PoolingError

LayerSpec = str | Mapping[str, Any]
"""`last`, `{use: [first, last], by: mean}` or `{last: 4, by: mean}`."""

FIRST: Final = 1
"""The number of the layer that is called `first`."""
_LAST: Final = -1
"""Stands for the last layer where it does not matter how many there are."""
_FORMS: Final = "give last, {use: [first, last], by: mean} with layers by number or name, or {last: 4, by: mean}"
_SHOWN: Final = 80


class NoLayersError(PoolingError):
    """Other layers than the last are asked for where no others are known."""


class LayerStates(Protocol):
    """What is made of the states of some layers."""

    @property
    def used(self) -> tuple[int, ...]:
        """The layers; -1 is the last one."""

    def __call__(self, states: Mapping[int, Tensor]) -> Tensor:
        """By layer, states (batch, time, dim) -> (batch, time, ...)."""


@dataclass(frozen=True)
class Layers:
    """A weighted mean of the states of some layers.

    Args:
        weights: layer and weight of each, by layer; the weights add up to one.
    """

    weights: tuple[tuple[int, float], ...]

    @property
    def used(self) -> tuple[int, ...]:
        """The layers; -1 is the last one."""
        return tuple(layer for layer, _ in self.weights)

    @property
    def spec(self) -> str | dict[str, Any]:
        """The canonical form: `last`, `{use, by: mean}`, or with weights of their own `{use, weights}`."""
        if self == LAST:
            return "last"
        if self == _mean(self.used):
            return {"use": list(self.used), "by": "mean"}
        return {"use": list(self.used), "weights": [weight for _, weight in self.weights]}

    def __str__(self) -> str:
        if self == LAST:
            return "last layer"
        numbers = ", ".join(map(str, self.used))
        if len(self.weights) == 1:
            return f"layer {numbers}"
        return f"{'mean' if self == _mean(self.used) else 'weighted mean'} of layers {numbers}"

    def __call__(self, states: Mapping[int, Tensor]) -> Tensor:
        """Mix states.

        Args:
            states: by layer, (batch, time, dim), of any float type.

        Returns:
            (batch, time, dim): a single layer's states as they are, a mean in float32 (float64 for float64 states).
        """
        if len(self.weights) == 1:
            return states[self.used[0]]
        mixed, *others = (weight * _wide(states[layer]) for layer, weight in self.weights)
        for other in others:
            mixed = mixed + other
        return mixed


LAST: Final = Layers(((_LAST, 1.0),))
"""The last layer's states as the encoder gives them."""


@dataclass(frozen=True)
class Stack:
    """The states of several layers side by side, for whoever pools each of them.

    Args:
        used: the layers; -1 is the last one.
    """

    used: tuple[int, ...]

    def __call__(self, states: Mapping[int, Tensor]) -> Tensor:
        """By layer, states (batch, time, dim) -> (batch, time, layers, dim)."""
        if len(self.used) == 1:
            return states[self.used[0]].unsqueeze(2)
        return torch.stack([states[layer] for layer in self.used], dim=2)

    def split(self, stacked: Tensor) -> dict[int, Tensor]:
        """Undo it: (batch, time, layers, dim) -> by layer, (batch, time, dim)."""
        return dict(zip(self.used, stacked.unbind(2), strict=True))


def require_form(spec: Any) -> Any:
    """Return what a config or a request says of layers; raises `PoolingError` for what no layers are written as."""
    if not isinstance(spec, str | Mapping):
        raise PoolingError(f"{_short(spec)} names no layers; {_FORMS}")
    return spec


def build(spec: Any, depth: int | None) -> Layers:
    """Make layers of what a config or a request says.

    Args:
        spec: a `LayerSpec`, not checked yet.
        depth: L, how many transformer layers the encoder has; None where only its last states are known.

    Raises:
        NoLayersError: `depth` is None, and other layers than the last are asked for.
        PoolingError: this is no spec, or names a layer that is not there.
    """
    if spec == "last":
        return LAST
    if not isinstance(spec, Mapping) or not ({"use"} <= spec.keys() or {"last"} <= spec.keys()):
        raise PoolingError(f"{_short(spec)} names no layers; {_FORMS}")
    key = "use" if "use" in spec else "last"
    if "weights" in spec:
        raise PoolingError("weights of layers are those that a checkpoint declares: give declared")
    if unknown := [name for name in spec if name not in (key, "by")]:
        raise PoolingError(f"{_short(unknown[0])} does not go with {key!r}; {_FORMS}")
    if spec.get("by", "mean") != "mean":
        raise PoolingError(f"by: {_short(spec['by'])} is not known; layers are mixed by 'mean'")
    numbers = _used(spec["use"], depth) if key == "use" else _of_last(spec["last"], depth)
    return LAST if numbers == [_LAST] else _mean(tuple(sorted(numbers)))


def weighted(weights: Mapping[int, float], depth: int) -> Layers:
    """Make layers with weights of their own, which are scaled to add up to one.

    Raises:
        PoolingError: a layer is not there, or the weights are not finite or add up to nothing.
    """
    if missing := [layer for layer in weights if not 0 <= layer <= depth]:
        raise PoolingError(_not_there(missing[0], depth))
    total = math.fsum(weights.values())
    if not math.isfinite(total) or total == 0:
        raise PoolingError(f"the weights of the layers add up to {total}, and nothing can be divided by that")
    if {layer for layer, weight in weights.items() if weight} == {depth}:
        return LAST
    return Layers(tuple(sorted((layer, weight / total) for layer, weight in weights.items() if weight)))


def _wide(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _used(listed: Any, depth: int | None) -> list[int]:
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise PoolingError(f"use: {_short(listed)} lists no layers; {_FORMS}")
    numbers: dict[int, None] = {}
    for name in listed:
        number = _number(name, depth)
        if number in numbers:
            raise PoolingError(f"use: layer {_short(name)} is listed twice; list each once")
        numbers[number] = None
    used = list(numbers)
    if depth is None and used != [_LAST]:
        raise _no_layers()
    return [_LAST] if used == [depth] else used


def _number(name: Any, depth: int | None) -> int:
    if name == "last":
        return _LAST if depth is None else depth
    if name == "first":
        return FIRST
    if type(name) is not int:
        raise PoolingError(f"use: {_short(name)} is no layer; give a whole number, first or last")
    if name < 0 or (depth is not None and name > depth):
        raise PoolingError(f"use: {_not_there(name, depth)}")
    return name


def _of_last(count: Any, depth: int | None) -> list[int]:
    if type(count) is not int or count < 1 or (depth is not None and count > depth):
        most = "1 or more" if depth is None else f"1 to {depth}, the layers that there are"
        raise PoolingError(f"last: {_short(count)} is not how many of the last layers; give {most}")
    if count == 1:
        return [_LAST]
    if depth is None:
        raise _no_layers()
    return list(range(depth - count + 1, depth + 1))


def _mean(numbers: tuple[int, ...]) -> Layers:
    return Layers(tuple((number, 1 / len(numbers)) for number in numbers))


def _not_there(number: int, depth: int | None) -> str:
    there = "the embeddings are 0, and layers count from 1" if depth is None else f"0, the embeddings, to {depth}"
    return f"there is no layer {_short(number)}; there are {there}"


def _no_layers() -> NoLayersError:
    return NoLayersError("only the states of the last layer are known here; give last")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."

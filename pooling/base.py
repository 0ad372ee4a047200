"""What every strategy shares: the contract of `Pooler`, and of `Stage`, which comes before one."""

from __future__ import annotations

import hashlib
import inspect
import json
import keyword
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG_FILE: Final = "pooler.json"
PARAMETERS_FILE: Final = "pooler.safetensors"
REQUIRED: Final = inspect.Parameter.empty
"""The default that `options_of` gives for an option that has none."""


class PoolingError(ValueError):
    """A strategy cannot be built, saved or loaded as asked; the message says what would be right."""


class EmptyTextError(ValueError):
    """No token of a text counts, so there is nothing to pool. `rows` holds the rows concerned."""

    def __init__(self, rows: list[int]) -> None:
        shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        super().__init__(f"no token counts in row {shown}: an empty text has no vector")
        self.rows = rows


def one_of(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises PoolingError unless `value` is one of `choices`, in type as well."""
    if (type(value), value) not in [(type(choice), choice) for choice in choices]:
        raise PoolingError(f"{option}={value!r}: must be one of {', '.join(map(repr, choices))}")


def count(option: str, value: Any, most: int = 2**31 - 1) -> None:
    """Raises PoolingError unless `value` is a whole number from 1 to `most`."""
    if type(value) is not int or not 1 <= value <= most:
        raise PoolingError(f"{option}={value!r}: must be a whole number from 1 to {most}")


def options_of(cls: type[Component]) -> dict[str, Any]:
    """Option names of a strategy and their defaults (`REQUIRED` where there is none)."""
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "dim"}


def spread(weights: Tensor, width: int) -> Tensor:
    """Weights (batch, time) or (batch, time, dim) as one share per output dimension: (batch, time, width)."""
    if weights.dim() == 2:
        return weights.unsqueeze(2).expand(-1, -1, width)
    return weights.repeat(1, 1, width // weights.shape[2])


def portions(weights: Tensor, mask: Tensor) -> Tensor:
    """Weights of either shape by magnitude, made to add up to one along time.

    Where none weighs anything, the tokens that count share alike.
    """
    mask = mask if weights.dim() == 2 else mask.unsqueeze(2)
    sizes = weights.abs()
    total = sizes.sum(1, keepdim=True)
    return torch.where(total > 0, sizes / total.clamp(min=torch.finfo(sizes.dtype).tiny), mask / mask.sum(1, True))


def chain(shares: Tensor, weights: Tensor) -> Tensor:
    """The product of two kinds of weights; per dimension where either is."""
    if shares.dim() == weights.dim() == 2:
        return shares * weights
    width = weights.shape[2] if weights.dim() == 3 else shares.shape[2]
    return spread(shares, width) * spread(weights, width)


class Component(nn.Module, ABC):
    """A named module with options: what `Pooler` and `Stage` have in common.

    A subclass takes `dim` and its options as arguments of `__init__` and keeps each option as an attribute of
    the same name; `options`, `config()` and `spec` follow from the signature.

    Args:
        dim: size of a token state.

    """

    name: ClassVar[str]
    summary: ClassVar[str]
    good_for: ClassVar[str]
    weak_at: ClassVar[str]

    def __init__(self, dim: int) -> None:
        super().__init__()
        count("dim", dim)
        self.dim = dim

    @property
    def options(self) -> Mapping[str, Any]:
        """The options in force, as JSON can hold them."""
        return {option: getattr(self, option) for option in options_of(type(self))}

    def config(self) -> dict[str, Any]:
        """`{"strategy": name, "dim": dim, **options}`: builds an equal, untrained one."""
        return {"strategy": self.name, "dim": self.dim, **self.options}

    @property
    def spec(self) -> str:
        """The canonical short form, `gem(p=3.0)`: numbers always, the rest where it is not the default."""
        defaults = options_of(type(self))
        shown = [
            f"{option}={_literal(value)}"
            for option, value in self.options.items()
            if type(value) in (int, float) or value != defaults[option]
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def _prepare(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Checks both tensors; gives new token states, at least float32, zero where none counts."""
        if tokens.dim() != 3 or tokens.shape[2] != self.dim or not tokens.is_floating_point():
            raise ValueError(
                f"tokens must be floats of shape (batch, time, {self.dim}), "
                f"not {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        if mask.shape != tokens.shape[:2]:
            raise ValueError(f"mask must have shape {tuple(tokens.shape[:2])}, not {tuple(mask.shape)}")
        if mask.dtype != torch.bool:
            if mask.is_floating_point() or mask.is_complex() or not ((mask == 0) | (mask == 1)).all():
                raise ValueError("mask must be bool, or whole numbers 0 and 1")
            mask = mask.bool()
        empty = ~mask.any(1)
        if empty.any():
            raise EmptyTextError(empty.nonzero().flatten().tolist())
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        # Filling, unlike multiplying by zero, also stops NaN and inf; the gradient there is exactly zero.
        return tokens.masked_fill(~mask.unsqueeze(2), 0.0), mask


class Pooler(Component):
    """A pooling strategy: (token states, mask) -> one vector a text.

    Padding never matters, whatever it holds: states where the mask is false are replaced by zero before a
    strategy sees them. States in bfloat16 or float16 are pooled in float32, and the vectors are float32.

    A subclass says `_pool` and `_weights`; both are given valid tensors in which every row has a token that
    counts. `output_dim` is a multiple of `dim`, and output dimension j stems from dimension j % dim.
    """

    learned: ClassVar[bool] = False
    """Whether the parameters mean nothing until they are fitted."""

    if TYPE_CHECKING:

        def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
            """As `forward`."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._trained = not self.learned

    @property
    def output_dim(self) -> int:
        """Size of the vector."""
        return self.dim

    @property
    def linear(self) -> bool:
        """Whether the vector is the sum of weights times token states, as `weights` gives them."""
        return False

    @property
    def exact(self) -> bool:
        """Whether `terms` are what the tokens put in, rather than the finished vector divided by weight."""
        return self.linear

    @property
    def trained(self) -> bool:
        """False where a learned part still has the parameters it was born with."""
        return all(part._trained for part in self.modules() if isinstance(part, Pooler))

    def mark_trained(self) -> None:
        """Says that the parameters, those of every part included, are fitted."""
        for part in self.modules():
            if isinstance(part, Pooler):
                part._trained = True

    @final  # type: ignore[misc]  # nn.Module declares an attribute
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pools each text of a batch.

        Args:
            tokens: token states (batch, time, dim), any float type; never changed.
            mask: (batch, time), bool or 0/1, true where a token counts.

        Returns:
            (batch, output_dim), float32 (float64 for float64 states).

        Raises:
            EmptyTextError: no token counts in some row.
            ValueError: shapes or types are not as above.

        """
        tokens, mask = self._prepare(tokens, mask)
        with torch.autocast(tokens.device.type, enabled=False):
            return self._pool(tokens, mask)

    @final
    def weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """What each token contributes; arguments and errors as for `forward`.

        Returns:
            (batch, time) where one share holds for all dimensions, else (batch, time, output_dim). Exactly
            zero where a token does not count.

        """
        tokens, mask = self._prepare(tokens, mask)
        with torch.autocast(tokens.device.type, enabled=False):
            return self._weights(tokens, mask)

    @final
    def terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """What each token gives to the vector, which is their sum along time; arguments and errors as for `forward`.

        Where the vector is a weighted sum, weight times state. Where it is not (`exact` tells), each dimension of
        the vector is divided in proportion to the weights.

        Returns:
            (batch, time, output_dim), exactly zero where a token does not count.

        """
        tokens, mask = self._prepare(tokens, mask)
        with torch.autocast(tokens.device.type, enabled=False):
            return self._terms(tokens, mask)

    @abstractmethod
    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor: ...

    @abstractmethod
    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor: ...

    def _terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        weights = spread(self._weights(tokens, mask), self.output_dim)
        if self.linear:
            return weights * tokens.repeat(1, 1, self.output_dim // self.dim)
        return portions(weights, mask) * self._pool(tokens, mask).unsqueeze(1)

    def fingerprint(self) -> str:
        """Sixteen hex digits of SHA-256 over the config and the parameters: equal where vectors are."""
        digest = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Writes `pooler.json` and `pooler.safetensors`, each whole or not at all; `load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        about = {"format": 1, "spec": self.spec, "trained": self.trained, "config": self.config()}
        _replace(folder / PARAMETERS_FILE, lambda path: save_file(tensors, path))
        _replace(folder / CONFIG_FILE, lambda path: path.write_text(json.dumps(about, indent=2) + "\n"))


class WeightedPooler(Pooler):
    """A strategy whose vector is the weighted sum of the token states: saying `_weights` is enough."""

    @property
    def linear(self) -> bool:
        """True."""
        return True

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return weighted_sum(self._weights(tokens, mask), tokens)


class Stage(Component):
    """A step before the pooler of a sequence: makes new token states and a new mask, of the same `dim`."""

    @final
    def transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """New token states (batch, time', dim) and mask (batch, time'); errors as for `Pooler.forward`."""
        tokens, mask = self._prepare(tokens, mask)
        with torch.autocast(tokens.device.type, enabled=False):
            return self._transform(tokens, mask)

    @abstractmethod
    def _transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _trace(self, weights: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Weights over this stage's results, carried back to the tokens that went in."""


def weighted_sum(weights: Tensor, tokens: Tensor) -> Tensor:
    """(batch, time) and (batch, time, dim) -> (batch, dim)."""
    return torch.bmm(weights.unsqueeze(1), tokens).squeeze(1)


def _literal(value: Any) -> str:
    bare = isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    return str(value) if bare else repr(value)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside `path`, then renames it, so that a reader sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

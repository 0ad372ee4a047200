"""Base classes of pooling strategies: `Pooler`, and `Stage` for the steps before one."""

from __future__ import annotations

import hashlib
import inspect
import json
import keyword
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pooling.weights import expand, normalize, weighted_sum

CONFIG_FILE: Final = "pooler.json"
PARAMETERS_FILE: Final = "pooler.safetensors"
REQUIRED: Final = inspect.Parameter.empty
"""What `options_of` returns for an option without a default."""
MAX_DIM: Final = 65_536
"""More than any encoder's; parameters of a larger one would take gigabytes before they are compared with a file."""

Result = TypeVar("Result")


class PoolingError(ValueError):
    """A strategy cannot be built or loaded; the message says what would be right."""


class EmptyTextError(ValueError):
    """The mask of a text is false everywhere; `rows` lists the rows of such texts."""

    def __init__(self, rows: list[int]) -> None:
        listed = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        super().__init__(f"no token counts in row {listed}: an empty text has no vector")
        self.rows = rows


def check_choice(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise PoolingError unless `value` equals one of `choices` in value and type."""
    if (type(value), value) not in [(type(choice), choice) for choice in choices]:
        raise PoolingError(f"{option}={value!r}: must be one of {', '.join(map(repr, choices))}")


def check_count(option: str, value: Any, maximum: int = 2**31 - 1) -> None:
    """Raise PoolingError unless `value` is an integer from 1 to `maximum`."""
    if type(value) is not int or not 1 <= value <= maximum:
        raise PoolingError(f"{option}={value!r}: must be a whole number from 1 to {maximum}")


def options_of(cls: type[Component]) -> dict[str, Any]:
    """Return the options of a strategy with their defaults (`REQUIRED` for an option without one)."""
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "dim"}


class Component(nn.Module, ABC):
    """A named module with options; the common base of `Pooler` and `Stage`.

    A subclass takes `dim` and its options as arguments of `__init__` and keeps each option as an attribute of
    the same name; `options`, `config()` and `spec` are derived from the signature.

    Args:
        dim: size of a token state.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    good_for: ClassVar[str]
    weak_at: ClassVar[str]
    example: ClassVar[str] = ""
    """How it is written, where an option has no default."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_count("dim", dim, MAX_DIM)
        self.dim = dim

    @property
    def options(self) -> Mapping[str, Any]:
        """The current values of the options, JSON-serializable."""
        return {option: getattr(self, option) for option in options_of(type(self))}

    def config(self) -> dict[str, Any]:
        """Return `{"strategy": name, "dim": dim, **options}`, from which `build` makes an equal, untrained one."""
        return {"strategy": self.name, "dim": self.dim, **self.options}

    @property
    def spec(self) -> str:
        """The canonical short form, such as `gem(p=3.0)`: numeric options always, others if not the default."""
        defaults = options_of(type(self))
        arguments = [
            f"{option}={_literal(value)}"
            for option, value in self.options.items()
            if type(value) in (int, float) or value != defaults[option]
        ]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name

    def _checked(self, method: Callable[[Tensor, Tensor], Result], tokens: Tensor, mask: Tensor) -> Result:
        """Check both tensors and call `method` with states of at least float32, zero where the mask is false."""
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
        # Filling, unlike multiplying by zero, also removes NaN and inf; the gradient there is exactly zero.
        tokens = tokens.masked_fill(~mask.unsqueeze(2), 0.0)
        with torch.autocast(tokens.device.type, enabled=False):
            return method(tokens, mask)


class Pooler(Component):
    """A pooling strategy: (token states, mask) -> one vector per text.

    The contents of padding never matter: states where the mask is false are set to zero before a strategy sees
    them. States in bfloat16 or float16 are pooled in float32, and the vectors are float32.

    A subclass implements `_pool` and `_weights`; both receive valid tensors in which every row has a token that
    counts. `output_dim` is a multiple of `dim`, and output dimension j is computed from dimension j % dim.
    """

    learned: ClassVar[bool] = False
    """Whether the parameters are meaningless until they are fitted."""

    if TYPE_CHECKING:

        def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
            """Call `forward`."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._trained = not self.learned

    @property
    def output_dim(self) -> int:
        """Size of the vector."""
        return self.dim

    @property
    def linear(self) -> bool:
        """Whether the vector is the sum of the token states multiplied by `weights`."""
        return False

    @property
    def exact(self) -> bool:
        """Whether `terms` are the terms of a sum, rather than the vector split in proportion to the weights."""
        return self.linear

    @property
    def trained(self) -> bool:
        """Whether no learned part still has its initial parameters."""
        return all(part._trained for part in self.modules() if isinstance(part, Pooler))

    def mark_trained(self) -> None:
        """Mark the parameters as fitted, including those of every part."""
        for part in self.modules():
            if isinstance(part, Pooler):
                part._trained = True

    @final  # type: ignore[misc]  # nn.Module declares an attribute
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool each text of a batch.

        Args:
            tokens: token states (batch, time, dim), any float type; not modified.
            mask: (batch, time), bool or 0/1, true where a token counts.

        Returns:
            (batch, output_dim), float32 (float64 for float64 states).

        Raises:
            EmptyTextError: no token counts in some row.
            ValueError: shapes or types are not as above.
        """
        return self._checked(self._pool, tokens, mask)

    @final
    def weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each token; arguments and errors as for `forward`.

        Returns:
            (batch, time) if one weight applies to all dimensions, else (batch, time, output_dim). Exactly
            zero where a token does not count.
        """
        return self._checked(self._weights, tokens, mask)

    @final
    def terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the additive contribution of each token to the vector; arguments and errors as for `forward`.

        The terms sum to the vector over time. If the vector is a weighted sum, a term is weight times state. If it
        is no such sum (`exact` is false), each dimension of the vector is split in proportion to the weights.

        Returns:
            (batch, time, output_dim), exactly zero where a token does not count.
        """
        return self._checked(self._terms, tokens, mask)

    @abstractmethod
    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor: ...

    @abstractmethod
    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor: ...

    def _terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        weights = expand(self._weights(tokens, mask), self.output_dim)
        if self.linear:
            return weights * tokens.repeat(1, 1, self.output_dim // self.dim)
        return normalize(weights, mask) * self._pool(tokens, mask).unsqueeze(1)

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the config and the parameters: they determine the vectors."""
        digest = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write `pooler.json` and `pooler.safetensors`, each atomically; `load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        description = {"format": 1, "spec": self.spec, "trained": self.trained, "config": self.config()}
        text = json.dumps(description, indent=2) + "\n"
        _write_atomically(folder / PARAMETERS_FILE, lambda path: save_file(tensors, path))
        _write_atomically(folder / CONFIG_FILE, lambda path: path.write_text(text))


class WeightedPooler(Pooler):
    """A strategy whose vector is the weighted sum of the token states; a subclass implements `_weights` alone."""

    @property
    def linear(self) -> bool:
        """True."""
        return True

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return weighted_sum(self._weights(tokens, mask), tokens)


class Stage(Component):
    """A step before the pooler of a sequence: computes new token states of the same `dim`, and their mask."""

    @final
    def transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return new token states (batch, time', dim) and mask (batch, time'); errors as for `Pooler.forward`."""
        return self._checked(self._transform, tokens, mask)

    @abstractmethod
    def _transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _trace(self, weights: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Propagate weights over the output tokens of this stage back to its input tokens."""


def _literal(value: Any) -> str:
    bare = isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    return str(value) if bare else repr(value)


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file and rename it, so that a reader sees either the old or the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

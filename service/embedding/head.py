"""Heads: the layers that a checkpoint declares after pooling, and whether it normalises vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.checkpoint import HeadModule
from service.encoder.activation import activation
from service.errors import CheckpointError

_NAMED_KEYS: Final = {"module_input_name", "module_output_name"}


class Dense(nn.Module):
    """A linear layer, an activation, and if declared a residual connection around both."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = int(config["in_features"]), int(config["out_features"])
        self.linear = nn.Linear(*size, bias=bool(config.get("bias", True)))
        self.activation = activation(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        self.residual: nn.Module | None = None
        if config.get("use_residual", False):
            self.residual = nn.Identity() if size[0] == size[1] else nn.Linear(*size, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, in) -> (batch, out)."""
        result = cast(Tensor, self.activation(self.linear(vectors)))
        return result if self.residual is None else result + self.residual(vectors)


class LayerNorm(nn.Module):
    """Layer normalisation of the pooled vector."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(int(config["dimension"]))

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, dim) -> (batch, dim)."""
        return cast(Tensor, self.norm(vectors))


class Normalize(nn.Module):
    """L2 normalisation between other modules."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, dim) -> (batch, dim)."""
        return nn.functional.normalize(vectors, dim=-1)


_KINDS: Final[dict[str, tuple[Callable[[Mapping[str, Any]], nn.Module], set[str]]]] = {
    "Dense": (Dense, {"in_features", "out_features", "bias", "activation_function", "use_residual"}),
    "LayerNorm": (LayerNorm, {"dimension"}),
    "Normalize": (lambda _: Normalize(), set()),
}


class Head(nn.Module):
    """The declared modules after pooling, without gradients of their own.

    A final Normalize is not applied: `normalize` says whether there is one, so that a request or a config can decide.

    Args:
        modules: as the checkpoint declares them, in order.
        dim: size of the pooled vector.

    Raises:
        CheckpointError: a module is damaged, or sizes do not match.
    """

    def __init__(self, modules: Sequence[HeadModule], dim: int) -> None:
        super().__init__()
        modules = [module for module in modules if module.kind != "Dropout"]  # nothing to do when serving
        self.normalize = bool(modules) and modules[-1].kind == "Normalize"
        declared = modules[:-1] if self.normalize else modules
        self.layers = nn.ModuleList(_load(module) for module in declared)
        self.output_dim = dim
        for module, layer in zip(declared, self.layers, strict=True):
            expected = module.config.get("in_features", module.config.get("dimension", self.output_dim))
            if expected != self.output_dim:
                raise CheckpointError(
                    f"{module.folder}: {module.kind} takes vectors of {expected} dimensions and would be given "
                    f"{self.output_dim}. Keep the declared pooling, or choose one of the same size."
                )
            if isinstance(layer, Dense):
                self.output_dim = layer.linear.out_features
        self.spec = " > ".join(module.kind for module in declared)
        self.requires_grad_(False).eval()

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, dim) -> (batch, output_dim), not normalised."""
        for layer in self.layers:
            vectors = layer(vectors)
        return vectors

    def fingerprint(self) -> str:
        """Return the kinds of the modules and a hash of their weights; empty if there are none."""
        if not self.layers:
            return ""
        digest = hashlib.sha256(repr(self.layers).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return f"{self.spec} {digest.hexdigest()[:16]}"


def _load(module: HeadModule) -> nn.Module:
    kind, keys = _KINDS[module.kind]
    path = module.folder / "config.json"
    unknown = set(module.config) - keys - _NAMED_KEYS
    if unknown:
        raise CheckpointError(f"{path}: {module.kind} with {sorted(unknown)} is not known here.")
    for key in _NAMED_KEYS:
        if module.config.get(key) not in (None, "sentence_embedding"):
            raise CheckpointError(f"{path}: {key} {module.config[key]!r} is not the pooled vector.")
    try:
        with torch.device("meta"):  # the memory that it takes is that of its weights, whatever sizes it declares
            layer = kind(module.config)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not describe a {module.kind}: {error!r}.") from None
    if not layer.state_dict():
        return layer
    weights = module.folder / "model.safetensors"
    try:
        read = {name: tensor.to(torch.float32, copy=True) for name, tensor in load_file(weights).items()}
        layer.load_state_dict(read, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{weights}: is missing, damaged, or not this {module.kind}'s: {reason}.") from None
    for name, tensor in layer.state_dict().items():
        if not tensor.isfinite().all() or (name.endswith("weight") and not tensor.any()):
            held = "nothing but zeros" if tensor.isfinite().all() else "NaN or infinity"
            raise CheckpointError(
                f"{weights}: holds {held} in {name}, so no text would have a vector that means anything. Get it anew."
            )
    return layer

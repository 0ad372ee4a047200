"""Layers that a checkpoint declares beside its encoder: of each token's state, or of the pooled vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.checkpoint import TOKENS, HeadModule
from service.encoder.activation import activation
from service.errors import CheckpointError

WEIGHTS: Final = "model.safetensors"
"""The file of a layer's weights, in its folder."""
POOLED: Final = "sentence_embedding"
"""What sentence-transformers calls the pooled vector, and which layers after pooling read and write."""
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
        """(..., in) -> (..., out)."""
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


class TokenLayers(nn.Module):
    """Layers that each token's state goes through before pooling.

    Args:
        modules: as the checkpoint declares them, in order; one at least.
        dim: size of the encoder's states; by default what the first layer takes.

    Raises:
        CheckpointError: a module is damaged, or sizes do not match.
    """

    def __init__(self, modules: Sequence[HeadModule], dim: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(load(module, TOKENS) for module in modules)
        self.output_dim = cast(Dense, self.layers[0]).linear.in_features if dim is None else dim
        for module, layer in zip(modules, self.layers, strict=True):
            dense = cast(Dense, layer)
            if dense.linear.in_features != self.output_dim:
                raise CheckpointError(
                    f"{module.folder}: {module.kind} takes states of {dense.linear.in_features} dimensions and would "
                    f"be given {self.output_dim}, so it is of another model. Get the folder anew."
                )
            self.output_dim = dense.linear.out_features
        self.requires_grad_(False).eval()

    def forward(self, states: Tensor) -> Tensor:
        """(batch, time, dim) -> (batch, time, output_dim)."""
        for layer in self.layers:
            states = layer(states)
        return states

    def put_on(self, module: nn.Module) -> None:
        """Make the last hidden states of a transformers module those behind the layers, however it is called."""
        self.to(next(module.parameters()).dtype)
        module.token_layers = self  # moves and is converted with it
        module.register_forward_hook(_through_layers)


def _through_layers(module: nn.Module, _: Any, output: Any) -> Any:
    output["last_hidden_state"] = cast(TokenLayers, module.token_layers)(output["last_hidden_state"])
    return output


def check_names(module: HeadModule, name: str) -> None:
    """Raise `CheckpointError` unless a module reads and writes what sentence-transformers calls `name`."""
    for key in _NAMED_KEYS:
        if module.config.get(key) not in (None, name):
            what = "the pooled vector" if name == POOLED else "the states of tokens"
            raise CheckpointError(f"{module.folder / 'config.json'}: {key} {module.config[key]!r} is not {what}.")


def load(module: HeadModule, name: str) -> nn.Module:
    """Make a module's layer with its weights.

    Args:
        module: a Dense, LayerNorm or Normalize.
        name: what it is to read and write, `POOLED` or `TOKENS`.

    Raises:
        CheckpointError: it is damaged, not known, or reads or writes something else.
    """
    kind, keys = _KINDS[module.kind]
    path = module.folder / "config.json"
    unknown = set(module.config) - keys - _NAMED_KEYS
    if unknown:
        raise CheckpointError(f"{path}: {module.kind} with {sorted(unknown)} is not known here.")
    check_names(module, name)
    try:
        with torch.device("meta"):  # the memory that it takes is that of its weights, whatever sizes it declares
            layer = kind(module.config)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not describe a {module.kind}: {error!r}.") from None
    if not layer.state_dict():
        return layer
    weights = module.folder / WEIGHTS
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

"""Heads: the layers that a checkpoint declares after pooling, and whether it normalises vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from torch import Tensor, nn

from service.checkpoint import HeadModule
from service.encoder.modules import POOLED, Dense, check_names, load
from service.errors import CheckpointError


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
        for module in modules:
            check_names(module, POOLED)
        self.normalize = bool(modules) and modules[-1].kind == "Normalize"
        declared = modules[:-1] if self.normalize else modules
        self.layers = nn.ModuleList(load(module, POOLED) for module in declared)
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

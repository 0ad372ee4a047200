"""Activations by the names that checkpoints give them: modules of torch.nn without arguments or weights."""

from __future__ import annotations

import json
from typing import Any, Final

from torch import nn

_MODULES: Final = "torch.nn."


def activation(name: Any) -> nn.Module:
    """Make an activation from its dotted name, such as `torch.nn.modules.activation.Sigmoid`.

    Raises:
        ValueError: it is no such module.
    """
    known = isinstance(name, str) and name.startswith(_MODULES)
    kind = getattr(nn, name.rpartition(".")[2], None) if known else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"activation_function {json.dumps(name)} is not a module of torch.nn")
    return kind()

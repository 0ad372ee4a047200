"""The dimensions that a model's leading numbers were trained to be cut to (Matryoshka), where it declares them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.checkpoint.readme import read_readme

_KEYS: Final = ("matryoshka_dims", "matryoshka_dimensions")
"""What configs call them: nomic's, and that of vLLM."""
_LOSS: Final = re.compile(r'"matryoshka_dims":\s*(\[[\d\s,]{1,400}\])')
"""The parameters of a MatryoshkaLoss, as sentence-transformers writes them to a model's README."""


def matryoshka_dims(config: Mapping[str, Any], folder: Path) -> tuple[int, ...]:
    """Return the dimensions that a model declares, the largest first; empty where it declares none.

    Args:
        config: the encoder's config.json, which goes before the README.
        folder: the model's folder.
    """
    for key in _KEYS:
        if found := _dims(config.get(key)):
            return found
    loss = _LOSS.search(read_readme(folder))
    return _dims(json.loads(loss[1])) if loss else ()


def _dims(value: Any) -> tuple[int, ...]:
    """Return a list of sizes in order; a value that is none says nothing, and changes no vector."""
    if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
        return ()
    return tuple(sorted(set(value), reverse=True))

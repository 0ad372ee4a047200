"""The public names of Millpond; checkpoints name `millpond.LearnedPooling`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "LearnedPooling":
        from pooling.sentence_transformers import LearnedPooling

        return LearnedPooling
    raise AttributeError(f"module 'millpond' has no attribute {name!r}")

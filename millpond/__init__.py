"""Millpond for Python: embedders and deployments without a server, and the bases of poolings of your own.

Each name is imported from its home when it is first used, so that loading a checkpoint that names
`millpond.LearnedPooling` does not import the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pooling.base import Pooler, PoolingError, Stage, WeightedPooler
    from pooling.sentence_transformers import LearnedPooling
    from service.config import Config, load_config
    from service.deployment import Deployment, open_deployment
    from service.embedding.embedder import Embedder
    from service.errors import ServiceError
    from service.store.document import Document

_HOMES: Final = {
    "Config": "service.config",
    "Deployment": "service.deployment",
    "Document": "service.store.document",
    "Embedder": "service.embedding.embedder",
    "LearnedPooling": "pooling.sentence_transformers",
    "Pooler": "pooling.base",
    "PoolingError": "pooling.base",
    "ServiceError": "service.errors",
    "Stage": "pooling.base",
    "WeightedPooler": "pooling.base",
    "load_config": "service.config",
    "open_deployment": "service.deployment",
}

__all__ = [
    "Config",
    "Deployment",
    "Document",
    "Embedder",
    "LearnedPooling",
    "Pooler",
    "PoolingError",
    "ServiceError",
    "Stage",
    "WeightedPooler",
    "load_config",
    "open_deployment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

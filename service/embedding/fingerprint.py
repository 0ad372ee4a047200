"""Fingerprints: short hashes over everything that changes a vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from service.embedding.recipe import Recipe
from service.encoder import Encoder


def fingerprint_parts(encoder: Encoder, recipe: Recipe) -> dict[str, Any]:
    """Return everything that changes a vector, by name; the encoder's precision is left out on purpose."""
    return {
        "encoder": encoder.fingerprint,
        "tokenizer": encoder.tokenizer.fingerprint(),
        "max_tokens": recipe.max_tokens,
        "pooling": recipe.pooler.spec,
        "pooling_parameters": recipe.pooler.fingerprint(),
        "head": recipe.head.fingerprint(),
        "normalize": recipe.normalize,
        "truncate_dim": recipe.truncate_dim,
        "prompts": dict(recipe.prompts),
        "default_prompt": recipe.default_prompt,
        "include_prompt": recipe.include_prompt,
    }


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return sixteen hex digits over `fingerprint_parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

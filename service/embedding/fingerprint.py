"""Fingerprints: a short hash over everything that changes a vector, and how those of earlier releases compare.

What a fingerprint is made of may change between releases, and so may the vectors that the same settings give. The
number of its scheme says by which rules it was made. Vectors of an older scheme are still right where no rule that
has changed since touches them; `changes` says which do.

Whoever adds a part leaves it out where it has its default: a new setting leaves every fingerprint alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from pooling.layers import LAST
from service.embedding.prompts import role_prompts
from service.embedding.recipe import Recipe
from service.encoder import Encoder
from service.encoder.loading import fingerprint as encoder_fingerprint

SCHEME: Final = 2
"""Increase it when a rule changes what is hashed, or which vectors the same parts give, and add the rule here."""
FIRST: Final = 1
"""The scheme of fingerprints that do not name theirs."""
# In scheme 1, the model types whose positions were known to start behind the padding token's.
_OFFSET_POSITIONS: Final = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text"}
# In scheme 1, the names of the prompt of documents.
_DOCUMENT_NAMES: Final = ("document", "passage", "corpus")

Texts = Callable[[], Iterable[str]]
"""Gives the texts that were embedded."""


def parts(encoder: Encoder, recipe: Recipe) -> dict[str, Any]:
    """Return everything that changes a vector, by name."""
    return {
        "scheme": SCHEME,
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
        **_layers(recipe),
    }


def _layers(recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.layers == LAST else {"layers": recipe.layers.spec}


def digest(values: Mapping[str, Any]) -> str:
    """Return sixteen hex digits over the parts of a fingerprint."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def changes(encoder: Encoder, recipe: Recipe, fingerprint: str, texts: Texts) -> list[str] | None:
    """Say, in words, which rules that have changed since scheme 1 touch vectors made under one of its fingerprints.

    None means that scheme 1 itself would make another fingerprint now, so that more has changed than rules.
    """
    for max_tokens in _limits_of_first(encoder, recipe):
        if digest(_first(encoder, recipe, max_tokens)) == fingerprint:
            return list(_changed_rules(encoder, recipe, max_tokens, texts))
    return None


def _changed_rules(encoder: Encoder, recipe: Recipe, max_tokens: int, texts: Texts) -> Iterator[str]:
    if max_tokens != recipe.max_tokens:
        yield (
            f"the longest text has {recipe.max_tokens} tokens, where {max_tokens} were taken (positions start behind "
            "that of the padding token)"
        )
    config = recipe.checkpoint.config
    if config.get("model_type") == "big_bird" and config.get("attention_type") != "original_full":
        yield "BigBird attends to all tokens, whatever texts came before"
    if encoder.trial.equal_lengths:
        yield "texts are not padded beside longer ones, which changes what this architecture makes of them"
    known = (recipe.prompts[name] for name in _DOCUMENT_NAMES if name in recipe.prompts)
    if next(known, "") != (prompt := role_prompts(recipe.prompts).get("document", "")):
        yield f"documents have the prompt {prompt!r}, by the name that it is declared under"
    tokenizer = encoder.tokenizer
    plainly = not tokenizer.parses_special_tokens and not tokenizer.spec.split_special_tokens
    if plainly and any(map(tokenizer.spells_special, texts())):
        yield "special tokens that a text spells out, as one here does, are read as plain characters"


def _first(encoder: Encoder, recipe: Recipe, max_tokens: int) -> dict[str, Any]:
    """Return the parts as scheme 1 had them."""
    spec, folder = encoder.tokenizer.spec, recipe.checkpoint.transformer
    tokenizer = spec.backend + ("split special tokens" if spec.split_special_tokens else "")
    older = parts(encoder, recipe) | {
        "encoder": encoder_fingerprint(recipe.checkpoint, sorted(folder.glob("*.safetensors"))),
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()[:16],
        "max_tokens": max_tokens,
    }
    del older["scheme"]
    return older


def _limits_of_first(encoder: Encoder, recipe: Recipe) -> set[int]:
    """Return the longest texts that scheme 1 can have taken: what the config says, or what it found declared."""
    config = recipe.checkpoint.config
    positions = config.get("max_position_embeddings")
    if positions is None and "relative_attention_num_buckets" not in config:
        positions = config.get("n_positions")
    if isinstance(positions, int) and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= 2
    limits = (positions, recipe.checkpoint.max_tokens or encoder.tokenizer.declared_limit)
    numbers = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return {recipe.max_tokens, min(numbers, default=recipe.max_tokens)}

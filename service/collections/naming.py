"""What a collection may be called, and how one is described in a conflict; every engine has it so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from service.collections.protocols import NAME
from service.collections.provenance import Definition
from service.errors import Conflict, InvalidName, Place
from service.store.tokenizers import Tokenizer

_NAME: Final = re.compile(NAME)


def check_name(name: str, where: Place, what: str = "collection name") -> None:
    """Check what a collection or an alias is to be called; raises `InvalidName`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(
            f"{what} {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - "
            "and begins with a letter or a digit.",
            where=where,
        )


def described(
    definition: Definition,
    dim: int,
    index: str,
    recall: float | None,
    tokenizer: Tokenizer | None,
    idle_timeout: int | None = None,
) -> dict[str, Any]:
    """Return what a collection is created with, as errors show it; `recall` is None where none is a target."""
    asked = {} if recall is None else {"recall": recall}
    keyword = None if tokenizer is None else {"tokenizer": tokenizer.name}
    own = {"dimension": dim, "index": index, **asked, "keyword": keyword}
    temporary = {} if idle_timeout is None else {"idle_timeout": idle_timeout}
    return {**own, **definition.to_json(), "similarity": definition.similarity.name, **temporary}


def require_equal(name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise `Conflict` unless a collection is described as it is asked for; 1, 1.0 and true differ."""
    if json.dumps(stored, sort_keys=True) != json.dumps(asked, sort_keys=True):
        raise Conflict(name, stored, asked)

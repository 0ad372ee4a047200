"""Which prompt a text gets by its role in a search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

Role = Literal["query", "document"]
"""What a text is for."""

ROLE_NAMES: Final[Mapping[Role, tuple[str, ...]]] = {
    "query": ("query", "search_query", "retrieval_query", "web_search_query", "s2p_query"),
    "document": (
        *("document", "passage", "corpus", "search_document", "search_passage"),
        *("retrieval_document", "retrieval_passage"),
    ),
}
"""Names under which models declare the prompt of a role, in order of preference.

The first of each role are those of sentence-transformers' `encode_query` and `encode_document`, the others those of
models on the Hugging Face hub. In `s2p_query` a sentence asks for passages.
"""


def role_prompts(prompts: Mapping[str, str]) -> dict[Role, str]:
    """Return the text that each role gets from prompts by name; a role that gets none is left out.

    A role gets the first of its names that has a text: sentence-transformers saves an empty `query` and `document`
    beside the prompts that a model does declare. Case does not matter, nor does `-`, `.` or a space in place of `_`.
    """
    given = {name: text for name, text in prompts.items() if text}
    texts = {re.sub("[-. ]", "_", name.lower()): text for name, text in given.items()} | given
    found = {role: next((texts[name] for name in names if name in texts), "") for role, names in ROLE_NAMES.items()}
    return {role: text for role, text in found.items() if text}

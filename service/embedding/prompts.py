"""Which prompt a text gets by its role in a search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

Role = Literal["query", "document"]
"""What a text is for."""
Purpose = Role | Literal["other"]
"""What a text is for, in a search or not; under `other`, it has no prompt."""

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


_TASKS: Final = r"classif|cluster|(?<![a-z])sts|s2s|bitext|summar|similar|pair|rerank"
_NOT_OF: Final[Mapping[Role, re.Pattern[str]]] = {
    "query": re.compile(f"doc|passage|corpus|{_TASKS}", re.IGNORECASE),
    "document": re.compile(f"quer|question|{_TASKS}", re.IGNORECASE),
}
"""Names of prompts that are of the other role, or of tasks other than a search."""


OTHER_TASKS: Final = (
    *("classification", "clustering", "separation"),
    *("similarity", "semantic_similarity", "text_matching"),
)
"""Tasks that clients name, in which texts have no role, by their names in APIs of embeddings."""


def purpose(asked: str, prompts: Mapping[str, str]) -> tuple[str | None, Purpose | None] | None:
    """Return what is meant by a text's purpose as clients name it: the prompt of this name, or a role of the text.

    None if it is not known.
    """
    name = _plain(asked)
    role = role_of_prompt(asked)
    if role is not None:
        return None, role
    prompt = next((prompt for prompt in (asked, *prompts) if prompt in prompts and _plain(prompt) == name), None)
    if prompt is not None:
        return prompt, None
    return (None, "other") if name in OTHER_TASKS else None


def role_of_prompt(name: str | None) -> Role | None:
    """Return the role under whose names a prompt's name is; None for a name of no role, and for none."""
    return next((role for role, names in ROLE_NAMES.items() if name and _plain(name) in names), None)


def role_prompts(prompts: Mapping[str, str]) -> dict[Role, str]:
    """Return the text that each role gets from prompts by name; a role that gets none is left out.

    A role gets the first of its names that has a text: sentence-transformers saves an empty `query` and `document`
    beside the prompts that a model does declare. Case does not matter, nor does `-`, `.` or a space in place of `_`.
    """
    given = {name: text for name, text in prompts.items() if text}
    texts = {_plain(name): text for name, text in given.items()} | given
    found = {role: next((texts[name] for name in names if name in texts), "") for role, names in ROLE_NAMES.items()}
    return {role: text for role, text in found.items() if text}


def without_prompt(prompts: Mapping[str, str], default: str | None) -> tuple[Role, list[str]] | None:
    """Return the role that has no prompt though the other has one, and the names of prompts that may be meant for it.

    Those have a text that neither the other role nor the default prompt has, and a name that does not speak of
    something else. None if there are no such names.
    """
    found = role_prompts(prompts)
    missing = next((role for role in ROLE_NAMES if role not in found), None)
    if missing is None or not found:
        return None
    used = {"", *found.values(), prompts.get(default or "", "")}
    names = [name for name, text in prompts.items() if text not in used and not _NOT_OF[missing].search(name)]
    return (missing, names) if names else None


def _plain(name: str) -> str:
    return re.sub("[-. ]", "_", name.lower())

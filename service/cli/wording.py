"""Remedies in terms of the command line, in place of those in terms of a request."""

from __future__ import annotations

from typing import Final

_REMEDIES: Final[tuple[tuple[str, str], ...]] = (
    ('Send "truncate": true to embed', "Give --truncate to embed"),
    ("set truncate to use the first ones", "give --truncate to use the first ones"),
    ("Leave the vector out, and the text is embedded.", "Give --embed-again, and the texts are embedded here."),
    (
        "Leave the vector out, send the 'fingerprint' that it was made under, or create a collection with a "
        "'dimension' for vectors that are made elsewhere.",
        "Give --embed-again to leave such vectors aside, add the 'fingerprint' that they were made under, or name a "
        "new collection and its --dimension for vectors that are made elsewhere.",
    ),
    (
        "Search it by 'vector', or create it with the 'model' that makes such vectors.",
        "Index it again with --dimension and the --model that makes such vectors.",
    ),
    (
        "Use mode 'dense', or store its documents in one that is created with \"keyword\": "
        '{"tokenizer": "unicode61"}.',
        "Use --mode dense, or index its documents into another one, with --tokenizer unicode61.",
    ),
    ("say 'all' (true) in its place", "say --all in its place"),
    (' ("rebuild": true)', ""),
    ('(`--truncate`, "truncate": true)', "(--truncate)"),
    ("Send 'input_type' ", "Give --input-type "),
    ("'input_type' query or document", "--input-type query or document"),
    (" (in Python: role)", ""),
    ("send 'other' too", "give a second text"),
    ("; create it first.", "; `millpond index` creates it."),
    (
        "this service wants a key with each request, in the header 'authorization: Bearer KEY'.",
        "this service wants a key. Give it with --api-key, or as MILLPOND_API_KEY.",
    ),
)
"""What a refusal says in terms of a request, and what that is on the command line."""


def too_long(name: str, length: int | str, limit: int | str) -> str:
    """Return what is said of a text with more tokens than the model takes."""
    return (
        f"{name} has {length} tokens and the model takes {limit}. Give --truncate to embed the beginning of such "
        "texts alone, or split the text."
    )


def in_options(detail: str) -> str:
    """Return what the service says is wrong, with remedies that a command has."""
    for said, meant in _REMEDIES:
        detail = detail.replace(said, meant)
    return detail

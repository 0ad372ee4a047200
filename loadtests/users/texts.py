"""The texts that users send, read once."""

from __future__ import annotations

from functools import cache

from benchmarks import datasets

MOST_SENTENCES = 512
"""Few enough that each is sent several times in a short run, in other company each time."""


@cache
def sentences() -> list[str]:
    """Different sentences of STS-B."""
    return list(dict.fromkeys(datasets.sts_sentences()))[:MOST_SENTENCES]


@cache
def questions() -> list[str]:
    """Cranfield's queries."""
    return list(datasets.cranfield().queries.values())


@cache
def documents() -> dict[str, str]:
    """Cranfield's documents by id, those without text left out, as the index leaves them out."""
    return {key: text for key, text in datasets.cranfield().documents.items() if text}

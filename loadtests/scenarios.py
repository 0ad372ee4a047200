"""The scenarios: what each does, and by how many users unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scenario:
    """One kind of load.

    Args:
        name: what the command line and the report call it.
        user: the class of its users in `locustfile.py`.
        users: how many of them at once.
        searches: whether it needs a collection with Cranfield in it.
        summary: what a user does, over and over.

    """

    name: str
    user: str
    users: int
    searches: bool
    summary: str


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "embed-small",
            "EmbedSmall",
            16,
            False,
            "Each user embeds one sentence of STS-B a request, through `/v1/embeddings` with base64.",
        ),
        Scenario(
            "embed-bulk",
            "EmbedBulk",
            4,
            False,
            "Each user embeds 32 to 64 sentences of STS-B a request, through `/v1/embeddings` with base64.",
        ),
        Scenario(
            "search",
            "SearchDocuments",
            16,
            True,
            "Each user searches Cranfield's documents by one of its questions, for ten hits.",
        ),
        Scenario(
            "mixed",
            "ReadAndWrite",
            8,
            True,
            "Each user searches, embeds, and inserts, replaces, fetches and deletes documents of its own in the same "
            "collection.",
        ),
    )
}

"""The scenarios: what each does, and by how many users unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Phase:
    """A part of a scenario with a load of its own.

    Args:
        name: what the report calls it.
        share: of the scenario's time.
        factor: how many times the scenario's users.

    """

    name: str
    share: float
    factor: int


@dataclass(frozen=True)
class Scenario:
    """One kind of load.

    Args:
        name: what the command line and the report call it.
        user: the class of its users in `locustfile.py`, and others that are there beside them, after spaces.
        users: how many of them at once.
        searches: whether it needs a collection with Cranfield in it.
        summary: what a user does, over and over.
        phases: one after the other; by default one load, after a ramp.

    """

    name: str
    user: str
    users: int
    searches: bool
    summary: str
    phases: tuple[Phase, ...] = ()


_IMPATIENT: Final = (
    "Each user embeds 32 sentences of STS-B a request, through `/v1/embeddings` with base64. One that is refused "
    "asks again in 0.5 to 1.5 s, whatever `Retry-After` says. Another one asks for `/health` and `/ready`."
)

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
        Scenario(
            "spike",
            "EmbedImpatient Watcher",
            20,
            False,
            _IMPATIENT,
            (Phase("normal", 0.4, 1), Phase("spike", 0.2, 10), Phase("after", 0.4, 1)),
        ),
        Scenario(
            "overload",
            "EmbedImpatient Watcher",
            20,
            False,
            _IMPATIENT,
            (Phase("normal", 0.15, 1), Phase("overload", 0.7, 10), Phase("after", 0.15, 1)),
        ),
        Scenario(
            "soak",
            "Anything Watcher",
            6,
            True,
            "Each user does what those of `mixed` do, and embeds anything from a word to 200 texts, cut at what the "
            "model takes, so that passes come in all shapes.",
        ),
    )
}

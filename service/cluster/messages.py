"""What the edge sends to a replica, and what it gets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.observation import Phase

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose body is whole; `id` is what its answer and log lines are known by."""

    id: str
    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Noted:
    """What a replica noted of a request, as `Observed` has it, and the tokens that its key pays for.

    The phases count seconds from its beginning there, since clocks of machines differ.
    """

    texts: int
    characters: int
    tokens: int
    paid: int
    phases: Sequence[Phase]


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole response, of which one replica has made all."""

    status: int
    headers: Headers
    body: bytes
    noted: Noted

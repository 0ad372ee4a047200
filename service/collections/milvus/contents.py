"""What a collection is in Milvus now, which another service may have changed since one looked last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from service.collections.milvus.client import Client, Gone
from service.collections.milvus.generation import Generation, every, found
from service.collections.milvus.moment import Moment
from service.collections.milvus.rows import Clock
from service.collections.provenance import Definition
from service.errors import NotFound, ServiceError, StaleDefinition, StoreUnavailable
from service.store.tokenizers import Tokenizer

T = TypeVar("T")
_TRIES: Final = 8


class Contents:
    """One collection, whichever generation holds it.

    What is kept here of the generation is what was read last, for what a request asks without waiting. What reads or
    writes rows looks first, and goes to that generation by its name: where a rebuild has taken its place since,
    Milvus does not have that name any more, and it looks again.
    """

    def __init__(self, client: Client, clock: Clock, generation: Generation) -> None:
        self._client = client
        self._clock = clock
        self._generation = generation

    @property
    def uid(self) -> int:
        """What it is known by under any name."""
        return self._generation.uid

    @property
    def name(self) -> str:
        """Its own name, which may change."""
        return self._generation.name

    @property
    def created(self) -> datetime:
        """In UTC."""
        return self._generation.created

    @property
    def definition(self) -> Definition:
        """What its vectors are made under: what it was created with, or last rebuilt under."""
        return self._generation.definition

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._generation.dim

    @property
    def index_kind(self) -> str:
        """The kind of index that it was created with."""
        return self._generation.index_kind

    @property
    def recall(self) -> float | None:
        """None: Milvus is asked for none."""
        return None

    @property
    def idle_timeout(self) -> int | None:
        """None: no service knows whether another one uses it."""
        return None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: it is not searched by words."""
        return None

    def show(self, generation: Generation) -> None:
        """Take what was read of it."""
        self._generation = generation

    def _look(self) -> Generation:
        """Return what it is now; raises `NotFound` where it was dropped."""
        last = self._generation
        described = self._client.describe(last.physical)
        if described is not None and (now := Generation.of(described)).current:
            self._generation = now
            return now
        latest = found(self._client, last.name)
        if latest is None or latest.uid != last.uid:  # renamed by another service, or dropped
            latest = next((each for each in every(self._client) if each.uid == last.uid and each.current), None)
        if latest is None:
            raise NotFound(f"collection {last.name!r} was dropped.")
        self._generation = latest
        return latest

    def _reading(self, work: Callable[[Moment], T]) -> T:
        """Do something with the collection as it is now, again where another generation takes its place meanwhile.

        Milvus may answer for a collection that is dropped at that moment as if it were empty, so that it has to be
        there afterwards, too.
        """
        for _ in range(_TRIES):
            generation = self._look()
            try:
                done = work(Moment(self._client, generation, self._client.moment()))
            except Gone:
                continue
            except ServiceError:
                if not self._is_there(generation):
                    continue
                raise
            if self._is_there(generation):
                return done
        raise StoreUnavailable(f"collection {self.name!r} is changed all the time. Repeat the request.")

    def _is_there(self, generation: Generation) -> bool:
        """Return whether what reads call a generation is still that one."""
        described = self._client.describe(generation.read_as)
        return described is not None and described.name == generation.physical

    def _require_current(self, under: Definition | None, generation: Generation) -> None:
        if under is not None and under != generation.definition:
            raise StaleDefinition(f"collection {generation.name!r} was rebuilt under another definition meanwhile.")

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"collection {self.name!r} has no document {document_id!r}.")

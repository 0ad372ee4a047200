"""Rebuilding a collection: vectors under another definition are collected in a second Milvus collection.

That has whole documents, so that in the end the aliases are moved to it, which is one step for every reader. No
change may come between the look at what it lacks and that step: the first collection is given another name meanwhile,
so that a change by any service, which goes to it by name, fails and is made anew afterwards. Once nothing is lacking
it is marked as replaced, from which on every service that finds it so moves the aliases. Before that, one that finds
it closed for long gives it its first name back, and whoever had closed it cannot mark it under the second.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from service.collections.milvus import changing
from service.collections.milvus.changing import Changing
from service.collections.milvus.client import Gone, Row
from service.collections.milvus.generation import Generation, Target, physical_name, with_rebuild_done
from service.collections.milvus.moment import Moment
from service.collections.milvus.names import CLOSED, alias_of
from service.collections.milvus.rows import encoded, validated
from service.collections.milvus.schema import BYTES, HEAD, OWNER, REVISION, SEQUENCE
from service.collections.milvus.writing import put, remove, tidy
from service.collections.protocols import Rebuild
from service.collections.provenance import Definition
from service.errors import StaleDefinition
from service.store.document import Document, Embedded

_LOOKED: Final = 1_000
"""Documents that are looked at together for whether they are built."""


class Rebuilding(Changing):
    """The part of a collection that gives it another definition."""

    def rebuild(self) -> Rebuild | None:
        """Return the rebuild that was begun, by this service or another, if there is one."""

        def read(moment: Moment) -> Rebuild | None:
            target = moment.generation.target
            if target is None:
                return None
            return Rebuild(target.definition, self._beside(moment, target).count(HEAD))

        return self._reading(read)

    def begin_rebuild(self, definition: Definition, dim: int) -> None:
        """Begin to collect vectors of `dim` numbers under a definition, or go on; any other rebuild is dropped."""
        self._open()

        def begin(moment: Moment) -> None:
            generation, before = moment.generation, moment.generation.target
            if before is not None:
                there = self._client.describe(before.physical) is not None
                if there and (before.definition, before.dim) == (definition, dim):
                    return
            turn = random.SystemRandom().getrandbits(48)
            target = Target(physical_name(generation.uid, turn), definition, dim)
            made = replace(with_rebuild_done(generation, target), precisions=())
            self._client.create(target.physical, dim, made.index(), made.properties())
            self._set(replace(generation, target=target), "target")
            if before is not None:
                self._client.drop(before.physical)

        self._changing(begin)

    def unbuilt(
        self, after: int | None = None, most: int = 64, characters: int = 262_144
    ) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vectors for, behind the one with the key `after`."""

        def read(moment: Moment) -> list[tuple[int, Document]]:
            target = moment.generation.target
            if target is None:
                return []
            beside, behind = self._beside(moment, target), -1 if after is None else after
            while rows := moment.in_order(HEAD, behind, _LOOKED):
                rows = rows[:_LOOKED]
                missing = _missing(rows, beside)
                if missing:
                    return self._first(moment, missing, most, characters)
                behind = int(rows[-1][SEQUENCE])
            return []

        return self._reading(read)

    def put_rebuilt(
        self, definition: Definition, keys: Sequence[int], vectors: Embedded, precision: str | None = None
    ) -> None:
        """Store vectors of documents under the rebuild's definition, by the keys that `unbuilt` gave."""

        def store(moment: Moment) -> None:
            target = moment.generation.target
            if target is None or target.definition != definition:
                raise self._abandoned()
            beside = self._beside(moment, target)
            own = validated(definition, vectors, target.dim, len(keys))
            rows = [row for start in range(0, len(keys), _LOOKED) for row in _by_sequence(moment, keys, start)]
            found = {kept.sequence: kept for kept in moment.read([row[OWNER] for row in rows]).values()}
            built = []
            for key, (vectors_of, spans) in zip(keys, own, strict=True):
                if (kept := found.get(key)) is not None:
                    of = encoded(kept.document)
                    built.append((of, of.rows(vectors_of, spans, kept.sequence, kept.revision)))
            if precision is not None:
                self._note(beside.generation, precision)
            put(self._client, target.physical, built)
            tidy(self._later(beside), [of.owner for of, _ in built])

        self._changing(store)

    def finish_rebuild(self) -> bool:
        """Replace definition and vectors with the rebuilt ones, as one step for every reader."""
        generation = self._open()
        if generation.target is None:
            raise self._abandoned()
        physical = generation.physical
        try:
            self._client.rename(physical, physical + CLOSED)
            try:
                done = self._completed(physical, generation.target)
            except BaseException:
                with contextlib.suppress(Exception):  # what cannot be undone now is by the next that goes on with it
                    self._client.rename(physical + CLOSED, physical)
                raise
            if not done:
                self._client.rename(physical + CLOSED, physical)
                return False
        except Gone:  # another service has closed it before, or has opened it again and may have changed it
            return False
        self._replace(self._look())
        return True

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""
        self._open()

        def abandon(moment: Moment) -> bool:
            target = moment.generation.target
            if target is None:
                return False
            self._set(replace(moment.generation, target=None), "target")
            self._client.drop(target.physical)
            return True

        return self._changing(abandon)

    def _open(self) -> Generation:
        """Return the present generation, open to changes: where the end of a rebuild was interrupted, it is ended."""
        until = time.monotonic() + changing.PATIENCE
        while (generation := self._look()).closed:
            if time.monotonic() < until:  # whoever closed it may be at work
                time.sleep(changing.POLLED)
            elif generation.replaced:
                self._replace(generation)
            else:
                with contextlib.suppress(Gone):  # another service was quicker
                    self._client.rename(generation.physical, generation.physical.removesuffix(CLOSED))
        return generation

    def _completed(self, physical: str, target: Target) -> bool:
        """Settle that a closed collection is replaced if nothing is lacking any more, and return whether it is."""
        described = self._client.describe(physical + CLOSED)
        if described is None:
            raise Gone
        closed = Generation.of(described)  # with the names that it was given until it was closed
        if closed.target != target:
            raise self._abandoned()
        moment = Moment(self._client, closed, self._client.moment())
        beside = self._beside(moment, target)
        if not self._complete(moment, beside):
            return False
        made = replace(with_rebuild_done(closed, target), precisions=beside.generation.precisions)
        self._client.set_properties(made.physical, made.properties())
        self._client.set_properties(closed.physical, replace(closed, replaced=True).properties("replaced"))
        return True

    def _replace(self, generation: Generation) -> None:
        """Move the names of a collection that is replaced to what replaces it; once more does no harm."""
        if generation.target is None or not generation.replaced:
            return  # another service was quicker
        own = alias_of(generation.name)
        for alias in sorted(generation.others, key=lambda alias: alias != own):
            self._client.move(alias, generation.target.physical)
        self._look()
        self._client.drop(generation.physical)

    def _complete(self, moment: Moment, beside: Moment) -> bool:
        """Return whether every document is built as it is now, and delete what is built of others."""
        columns = [OWNER, SEQUENCE, REVISION]
        present = {(row[OWNER], row[SEQUENCE], row[REVISION]) for row in moment.all(HEAD, columns)}
        built = {(row[OWNER], row[SEQUENCE], row[REVISION]) for row in beside.all(HEAD, columns)}
        if others := sorted({owner for owner, _, _ in built - present}):
            remove(beside, others)
        return present <= built

    def _first(self, moment: Moment, rows: Sequence[Row], most: int, characters: int) -> list[tuple[int, Document]]:
        """Return the first documents of heads, by their numbers."""
        rows = rows[:most]
        found = moment.read([row[OWNER] for row in rows])
        first: list[tuple[int, Document]] = []
        for row in rows:
            kept = found.get(row[OWNER])
            if kept is None or kept.sequence != row[SEQUENCE]:
                continue
            first.append((kept.sequence, kept.document))
            characters -= len(kept.document.text)
            if characters <= 0:
                break
        return first

    def _abandoned(self) -> StaleDefinition:
        return StaleDefinition(f"the rebuild of collection {self.name!r} was abandoned.")


def _missing(rows: Sequence[Row], beside: Moment) -> list[Row]:
    """Return the heads that are not built as they are now."""
    built = beside.heads([row[OWNER] for row in rows], [OWNER, SEQUENCE, REVISION])
    kept = {(row[OWNER], row[SEQUENCE], row[REVISION]) for row in built.values()}
    return [row for row in rows if (row[OWNER], row[SEQUENCE], row[REVISION]) not in kept]


def _by_sequence(moment: Moment, keys: Sequence[int], start: int) -> list[Row]:
    numbers = ", ".join(str(int(key)) for key in keys[start : start + _LOOKED])
    return moment.query(f"{HEAD} and {SEQUENCE} in [{numbers}]", [OWNER, BYTES])

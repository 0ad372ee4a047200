"""Rebuilding a collection: vectors under another definition are collected in a second Milvus collection.

That has whole documents, so that in the end the aliases are moved to it, which is one step for every reader. No
change may come between the look at what it lacks and that step: the first collection is given another name meanwhile,
so that a change by any service, which goes to it by name, fails and is made anew afterwards.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

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
        self._client.rename(generation.physical, generation.physical + CLOSED)
        closed = replace(generation, physical=generation.physical + CLOSED)
        try:
            closed = self._closed(closed)  # with the names that it was given until it was closed
            moment = Moment(self._client, closed, self._client.moment())
            beside = self._beside(moment, generation.target)
            done = self._complete(moment, beside)
            if done:
                made = replace(with_rebuild_done(closed, generation.target), precisions=beside.generation.precisions)
                self._client.set_properties(made.physical, made.properties())
                self._client.move(alias_of(closed.name), made.physical)
        except BaseException:
            with contextlib.suppress(Exception):  # what cannot be undone now is by the next that goes on with it
                self._client.rename(closed.physical, generation.physical)
            raise
        if not done:
            self._client.rename(closed.physical, generation.physical)
            return False
        for alias in closed.others:
            if alias != alias_of(closed.name):
                self._client.move(alias, made.physical)
        self.show(made)
        self._look()
        self._client.drop(closed.physical)
        return True

    def _closed(self, generation: Generation) -> Generation:
        """Return what is known of a generation that was just closed, which no service changes any more."""
        described = self._client.describe(generation.physical)
        if described is None:
            raise Gone
        closed = Generation.of(described)
        if closed.target != generation.target:
            raise self._abandoned()
        return closed

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""
        generation = self._open()
        if generation.target is None:
            return False
        self._set(replace(generation, target=None), "target")
        self._client.drop(generation.target.physical)
        return True

    def _open(self) -> Generation:
        """Return the present generation, open to changes again where the end of a rebuild was interrupted."""
        generation = self._look()
        if generation.closed:
            name = generation.physical.removesuffix(CLOSED)
            with contextlib.suppress(Gone):  # another service was quicker
                self._client.rename(generation.physical, name)
            generation = self._look()
        return generation

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

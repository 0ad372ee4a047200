"""One collection of the Milvus engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from service.collections.milvus.client import Row
from service.collections.milvus.generation import Generation
from service.collections.milvus.moment import Moment, blocks_of
from service.collections.milvus.rebuilding import Rebuilding
from service.collections.milvus.rows import Encoded, encoded
from service.collections.milvus.writing import put


class MilvusCollection(Rebuilding):
    """A collection as `Collection` describes it, and the changes of its names, which the engine makes."""

    def rename(self, name: str, claim: Callable[[str], None]) -> None:
        """Take another name; called by `MilvusEngine.rename`, whose `claim` gives it to what holds the collection."""

        def change(moment: Moment) -> None:
            claim(moment.generation.physical)
            self._set(replace(moment.generation, name=name), "name")

        self._changing(change)
        self._look()

    def alias(self, claim: Callable[[str], None]) -> None:
        """Take an alias; called by `MilvusEngine.alias`, whose `claim` gives it to what holds the collection."""
        self._changing(lambda moment: claim(moment.generation.physical))
        self._look()

    def look(self) -> Generation:
        """Return what it is now; raises `NotFound` where it was dropped."""
        return self._look()

    def copy_to(self, physical: str) -> None:
        """Copy all documents to an empty Milvus collection, with their order; called by `MilvusEngine.copy`."""

        def copy(moment: Moment) -> None:
            for block in blocks_of(moment.every_in_order()):
                put(self._client, physical, self._copied(moment, block))

        self._changing(copy)

    def _copied(self, moment: Moment, block: list[str]) -> Iterator[tuple[Encoded, list[Row]]]:
        for kept in moment.read(block, vectors=True).values():
            assert kept.vectors is not None
            of = encoded(kept.document)
            yield of, of.rows(kept.vectors, kept.document.spans, kept.sequence, kept.revision)

"""What a collection asks of a vector index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from service.arrays import Keys, Ordinals, Vectors
from service.similarity import Similarity

EXACT: Final = "exact"
"""What an index uses that compares every vector."""

Part_co = TypeVar("Part_co", covariant=True)
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class IndexState:
    """How an index searches now.

    Args:
        uses: `exact`, or the name of what searches are approximated with.
        tail: vectors beside that, which are compared one by one until it is built anew with them.
        deleted: vectors in it that are no longer found.
        target: the recall that is asked for: the share of the true nearest that a search finds.
        recall: as measured on a sample of the vectors, when it was last measured.
        problem: why the target is not met, or why the index cannot be built.
        building: how much of a build that runs or waits its turn is done, from 0 to 1; None where there is none.
        saved: when the snapshot was written that a start would read, in ISO 8601.
    """

    uses: str = EXACT
    tail: int | None = None
    deleted: int | None = None
    target: float | None = None
    recall: float | None = None
    problem: str | None = None
    building: float | None = None
    saved: str | None = None


class IndexView(Protocol):
    """What an index held at one moment. Searches of it run beside changes of the index and each other."""

    def __len__(self) -> int:
        """Return the number of vectors."""

    @property
    def count(self) -> int:
        """The number of keys."""

    @property
    def keys(self) -> Keys:
        """The keys, ascending, each once."""

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""

    @property
    def state(self) -> IndexState:
        """How it searches."""

    def search(
        self,
        vectors: Vectors,
        k: int,
        allowed: Keys | None = None,
        *,
        distinct: bool = False,
        exact: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return scores, keys and ordinals, each (q, m), of the `m` <= `k` nearest vectors to each query (q, dim).

        The best come first, equal scores by key, then by ordinal. `allowed` are the keys that may be found, None for
        all; with `distinct`, only the best vector of each key counts. With `exact`, every vector is compared.
        """


class VectorIndex(ABC):
    """Vectors under keys, searched by a similarity; a key may have several vectors.

    It is created empty, from the dimension of its vectors, which have passed the similarity's check, and the
    similarity. Calls that change it never overlap each other; they may overlap all others.
    """

    kind: ClassVar[str]
    """The name that a collection chooses it by."""
    summary: ClassVar[str]
    """What it does, in a few words, for the API's documentation."""

    @abstractmethod
    def __init__(self, dim: int, similarity: Similarity) -> None: ...

    @abstractmethod
    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""

    @abstractmethod
    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""

    @abstractmethod
    def view(self) -> IndexView:
        """Return what the index holds now; a later change leaves it as it is."""

    def __len__(self) -> int:
        return len(self.view())

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.view().count

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return self.view().memory_bytes

    def search(
        self,
        vectors: Vectors,
        k: int,
        allowed: Keys | None = None,
        *,
        distinct: bool = False,
        exact: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search what the index holds now, as `IndexView` describes."""
        return self.view().search(vectors, k, allowed, distinct=distinct, exact=exact)


class VectorSource(Protocol):
    """Where an index reads again vectors that it does not hold, as they were added.

    While it is searched, the thread reads those that the index held when its view was taken; otherwise those that
    there are now. Raises `StoreUnavailable`.
    """

    def blocks(self, after: int, last: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield the vectors (n, dim) of keys above `after` up to `last`, and the key of each (n,), by ascending key.

        No key's vectors are in two blocks.
        """

    def at(self, places: Sequence[tuple[int, int | None]]) -> list[Vectors | None]:
        """Return the vectors (n, dim) at places, which are a key and the ordinal of one or None for all.

        None stands for a key that there is no more.
        """


class NoVectors:
    """The source of an index that is never filled."""

    def blocks(self, after: int, last: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield nothing."""
        return iter(())

    def at(self, places: Sequence[tuple[int, int | None]]) -> list[Vectors | None]:
        """Return None for each place."""
        return [None] * len(places)


class Build(Protocol[Part_co]):
    """Makes a part of an index, aside from all that happens to the index meanwhile."""

    @property
    def done(self) -> float:
        """How much of the work is done, from 0 to 1; read by any thread while it runs."""

    def run(self, stopped: Callable[[], bool]) -> Part_co | None:
        """Return the part; None where `stopped` became true before it was made. Raises `OSError`."""


NO_VECTORS: Final = NoVectors()


class BuiltIndex(VectorIndex, Generic[Part]):
    """An index of which a part is built aside, from time to time, and kept in a file, its snapshot.

    Between two builds it takes changes as any index does. `begin`, `adopt` and `abandon` never overlap a change.

    Args:
        dim: numbers of a vector.
        similarity: what vectors are compared by.
        recall: the recall that is asked for; None for the kind's own.
        folder: where snapshots are kept; None for nowhere, with files that end with the process.
        source: where the vectors are stored, for a kind that does not hold them.
    """

    default_recall: ClassVar[float]

    @abstractmethod
    def __init__(
        self,
        dim: int,
        similarity: Similarity,
        recall: float | None = None,
        folder: Path | None = None,
        source: VectorSource = NO_VECTORS,
    ) -> None: ...

    @property
    @abstractmethod
    def due(self) -> bool:
        """Whether a build is due."""

    @abstractmethod
    def begin(self) -> Build[Part]:
        """Begin to build a part from what the index holds now."""

    @abstractmethod
    def adopt(self, part: Part) -> str | None:
        """Search with the part that was built last, and apply what has changed since.

        Returns the name of the snapshot of all that is built now; None where there is none.
        """

    @abstractmethod
    def abandon(self, problem: str | None = None) -> None:
        """Give up the build that was begun, for the reason that `problem` says."""

    @abstractmethod
    def restore(self, snapshot: str, keys: Keys) -> int:
        """Fill an empty index from a snapshot with the vectors of those of `keys`, ascending, that it covers.

        Returns the highest key that it covers. Raises `DamagedSnapshot`, and `OSError` where it cannot be read.
        """


class Stopped(Exception):
    """A build was stopped."""


class DamagedSnapshot(Exception):
    """A snapshot is not what was written, or not of this index."""

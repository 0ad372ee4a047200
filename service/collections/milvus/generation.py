"""What is known of a collection, kept as a property of the Milvus collection that holds it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args

from service.collections.milvus.client import Client, Described
from service.collections.milvus.names import CLOSED, PHYSICAL, alias_of, name_of
from service.collections.milvus.schema import column_types
from service.collections.provenance import Definition
from service.errors import InvalidIndex, Place, StoreUnavailable
from service.index import EXACT
from service.similarity import Similarity

logger = logging.getLogger(__name__)

PROPERTY: Final = "millpond"
_FORMAT: Final = 1
Part = Literal["name", "definition", "target", "precisions", "replaced"]
"""What may change of it. Each part is a property of its own, so that no service puts back what another changes."""
_PARTS: Final[Sequence[Part]] = get_args(Part)
_METRICS: Final = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
_LEAST_EF, _MOST_EF = 128, 32_768


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of index in Milvus: its type there, with what it is built by and searched by."""

    type: str
    build: Mapping[str, int]
    search: Mapping[str, int]
    uses: str


_HNSW: Final = Kind("HNSW", {"M": 16, "efConstruction": 200}, {}, "hnsw")
KINDS: Final[Mapping[str, Kind]] = {
    "auto": _HNSW,
    "flat": Kind("FLAT", {}, {}, EXACT),
    "hnsw": _HNSW,
    "ivf": Kind("IVF_FLAT", {"nlist": 128}, {"nprobe": 32}, "ivf"),
}
"""The kinds of index of the embedded engine, as Milvus has them."""


@dataclass(frozen=True, slots=True)
class Target:
    """The Milvus collection that collects the vectors of a rebuild, and under what."""

    physical: str
    definition: Definition
    dim: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A collection of Millpond as one Milvus collection holds it: made by its creation, a copy, or a rebuild.

    `physical` is the name of that one, and `others` are the aliases in Milvus that stand for it. `uid` is the
    collection's own, under any name and over rebuilds. Where it is `replaced`, its target takes its place for
    certain, whoever moves its names.
    """

    physical: str
    uid: int
    created: datetime
    name: str
    definition: Definition
    dim: int
    index_kind: str
    target: Target | None = None
    precisions: Sequence[str] = ()
    replaced: bool = False
    others: Sequence[str] = field(default=(), compare=False)

    @property
    def current(self) -> bool:
        """Whether it is what its name stands for, and no rebuild or what one has replaced."""
        return alias_of(self.name) in self.others

    @property
    def closed(self) -> bool:
        """Whether a rebuild is taking its place just now, so that nothing may be written to it."""
        return self.replaced or self.physical.endswith(CLOSED)

    @property
    def read_as(self) -> str:
        """What reads call it: by an alias where it has one.

        Milvus 2.3.5 ends of a query by the name of a collection that is renamed or dropped at that very moment.
        """
        return alias_of(self.name) if self.current else self.physical

    @property
    def aliases(self) -> list[str]:
        """The aliases of Millpond that stand for it."""
        found = (name_of(alias) for alias in self.others)
        return [alias for alias in found if alias is not None and alias != self.name]

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self.definition.similarity

    def properties(self, *parts: Part) -> dict[str, str]:
        """Return what is kept of it, or only some parts of that."""
        target = self.target and {
            "physical": self.target.physical,
            "definition": self.target.definition.to_json(),
            "dim": self.target.dim,
        }
        changing = {
            "name": self.name,
            "definition": self.definition.to_json(),
            "target": target,
            "precisions": [*self.precisions],
            "replaced": self.replaced,
        }
        kept = {property_of(part): json.dumps(changing[part]) for part in parts or _PARTS}
        if parts:
            return kept
        lasting = {
            "format": _FORMAT,
            "uid": self.uid,
            "created": self.created.isoformat(),
            "dim": self.dim,
            "index": self.index_kind,
        }
        return {PROPERTY: json.dumps(lasting), **kept}

    @classmethod
    def of(cls, described: Described) -> Generation:
        """Read what Milvus says; raises `StoreUnavailable` for what is none of this version of Millpond."""
        try:
            kept = json.loads(described.properties[PROPERTY])
            if kept["format"] != _FORMAT:
                raise ValueError(f"format {kept['format']!r}")
            said = {part: described.properties.get(property_of(part)) for part in _PARTS}
            kept |= {part: json.loads(value) for part, value in said.items() if value is not None}
            target = kept["target"]
            found = cls(
                physical=described.name,
                uid=int(kept["uid"]),
                created=datetime.fromisoformat(kept["created"]),
                name=kept["name"],
                definition=Definition.from_json(kept["definition"]),
                dim=int(kept["dim"]),
                index_kind=kept["index"],
                target=target
                and Target(target["physical"], Definition.from_json(target["definition"]), int(target["dim"])),
                precisions=tuple(kept["precisions"]),
                replaced=bool(kept.get("replaced", False)),
                others=tuple(described.aliases),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreUnavailable(
                f"collection {described.name!r} in Milvus has the name of one of Millpond's, and was made by another "
                f"program or another version ({error!r}). Rename or drop it there, or choose another store.database."
            ) from None
        wanted = {column.name: column.shown for column in column_types(found.dim)}
        if described.columns != wanted:
            wrong = sorted(key for key in wanted.keys() | described.columns.keys())
            wrong = [key for key in wrong if wanted.get(key) != described.columns.get(key)]
            raise StoreUnavailable(
                f"collection {found.name!r} has other fields in Milvus ({described.name}) than Millpond stores: "
                + "; ".join(f"{key}: {described.columns.get(key)}, not {wanted.get(key)}" for key in wrong)
                + ". It was changed by another program; drop it there, and store its documents again."
            )
        return found

    def index(self) -> dict[str, Any]:
        """Return the parameters of its index."""
        kind = KINDS[self.index_kind]
        return {"index_type": kind.type, "metric_type": _METRICS[self.similarity.name], "params": {**kind.build}}

    def searched_by(self, limit: int) -> dict[str, Any]:
        """Return the parameters of a search for so many."""
        kind = KINDS[self.index_kind]
        effort = {"ef": min(max(_LEAST_EF, 2 * limit), _MOST_EF)} if kind is _HNSW else {**kind.search}
        return {"metric_type": _METRICS[self.similarity.name], "params": effort}


def property_of(part: Part) -> str:
    """Return the property that keeps a part."""
    return f"{PROPERTY}_{part}"


def physical_name(uid: int, turn: int) -> str:
    """Return the name of the Milvus collection that holds a collection; `turn` is another one for each."""
    return f"{PHYSICAL}{uid:x}_{turn:x}"


def check_kind(kind: str, recall: float | None) -> None:
    """Check that Milvus has a kind of index; raises `InvalidIndex`."""
    if kind not in KINDS:
        raise InvalidIndex(f"unknown index kind {kind!r}; known: {', '.join(sorted(KINDS))}.", where=Place("index"))
    if recall is not None:
        raise InvalidIndex(
            "the engine 'milvus' takes no recall, since Milvus does not measure it. Leave it out, or choose the "
            "index 'flat', which finds all of the nearest.",
            where=Place("recall"),
        )


def found(client: Client, name: str) -> Generation | None:
    """Return what a name or an alias of Millpond stands for; None where it does for nothing."""
    described = client.describe(alias_of(name))
    if described is None:
        return None
    generation = Generation.of(described)
    if generation.current:
        return generation
    current = client.describe(alias_of(generation.name))  # the alias stands for what a rebuild has replaced
    if current is None:
        return None
    latest = Generation.of(current)
    return latest if latest.uid == generation.uid else None


def every(client: Client) -> list[Generation]:
    """Return all generations of all collections, those of rebuilds too.

    One that is none of this version of Millpond is left out with a warning, so that the others are found.
    """
    described = (client.describe(name) for name in client.collections() if name.startswith(PHYSICAL))
    known = []
    for each in described:
        if each is not None:
            try:
                known.append(Generation.of(each))
            except StoreUnavailable as error:
                logger.warning("%s", error.detail)
    return known


def with_rebuild_done(current: Generation, target: Target) -> Generation:
    """Return what takes the place of a generation once its rebuild is complete."""
    return replace(
        current, physical=target.physical, definition=target.definition, dim=target.dim, target=None, others=()
    )

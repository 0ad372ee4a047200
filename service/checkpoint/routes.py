"""Models with a Router: a checkpoint for each route that a text may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from service.checkpoint.checkpoint import Checkpoint, UnknownModule, followed
from service.checkpoint.declarations import (
    MLM_TRANSFORMER,
    SPLADE_POOLING,
    Module,
    check_first,
    listed_modules,
    read_modules,
)
from service.checkpoint.folder import find_folder
from service.checkpoint.router import Task, has_router, routed
from service.errors import CheckpointError

T = TypeVar("T")
U = TypeVar("U")

_SPARSE: Final = {SPLADE_POOLING, MLM_TRANSFORMER, "SparseStaticEmbedding", "SparseAutoEncoder"}


@dataclass(frozen=True)
class Routes(Generic[T]):
    """What belongs to the texts of each role; where two go the same way, it is one and the same.

    Args:
        query: for queries.
        document: for documents.
        default: for texts of which it is not said what they are for; None where that has to be said.
    """

    query: T
    document: T
    default: T | None

    def of(self, role: Task) -> T:
        """Return what is for the texts of a role."""
        return self.query if role == "query" else self.document

    def named(self) -> dict[str, T]:
        """Return each once, by the first of the names `query`, `document` and `default`."""
        found: dict[str, T] = {}
        for name in ("query", "document", "default"):
            one = getattr(self, name)
            if one is not None and not any(one is other for other in found.values()):
                found[name] = one
        return found

    @property
    def default_name(self) -> str | None:
        """The name that `named` has for the default; None where there is none."""
        return next((name for name, one in self.named().items() if one is self.default), None)

    def map(self, change: Callable[[T], U]) -> Routes[U]:
        """Return what `change` makes of each; it is called once for what is one and the same."""
        made = {name: change(one) for name, one in self.named().items()}
        document = made["query"] if self.document is self.query else made["document"]
        default = None if self.default_name is None else made[self.default_name]
        return Routes(made["query"], document, default)


def read_model(name: str, revision: str | None = None) -> Checkpoint | Routes[Checkpoint]:
    """Find a model and read all that it declares, as `read_checkpoint` does, for each route where it has a Router.

    Routes that no text takes here are not read: those for other tasks than a search, or for images.

    Raises:
        UnknownModule, CheckpointError: as for `read_checkpoint`; or a Router cannot be followed.
    """
    folder = find_folder(name, revision)
    path = folder / "modules.json"
    modules = listed_modules(path)
    if not has_router(modules):
        return followed(name, folder, read_modules(path))
    query = _require(routed(folder, modules, "query"))
    document = _require(routed(folder, modules, "document"))
    default = routed(folder, modules, None)
    read: list[tuple[list[Module], Checkpoint]] = []

    def of_route(role: str, through: list[Module]) -> Checkpoint:
        known = next((checkpoint for listed, checkpoint in read if listed == through), None)
        if known is not None:
            return known
        if sparse := next((module.kind for module in through if module.kind in _SPARSE), None):
            raise CheckpointError(
                f"{folder}: is a sparse encoder with a Router ({sparse} is on the route of a {role}), and those are "
                "not followed, under `sparse` neither. List a sparse encoder without a Router there."
            )
        check_first(path, through)
        try:
            found = followed(name, folder, through)
        except UnknownModule as error:  # its place is one on the route, and not in modules.json
            raise CheckpointError(f"the route of a {role}: {error.detail}") from None
        # The encoders of the routes are told apart by their names, in metrics for example.
        if (below := through[0].path.strip("/")) not in {"", "."}:
            found = replace(found, name=f"{name}/{below}")
        read.append((through, found))
        return found

    of_query, of_document = of_route("query", query), of_route("document", document)
    of_default = None if default is None else of_route("text that is neither query nor document", default)
    if of_query is of_document is of_default:
        return of_query
    return Routes(of_query, of_document, of_default)


def _require(modules: list[Module] | None) -> list[Module]:
    assert modules is not None  # a role without a route is an error
    return modules

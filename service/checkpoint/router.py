"""Routers: which modules of a model folder a text goes through, by what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from service.checkpoint.declarations import ROUTERS, Declaration, Module, read_json, require_inside
from service.errors import CheckpointError, shortened

Task = Literal["query", "document"]
"""What sentence-transformers' `encode_query` and `encode_document` say that a text is for."""

_CONFIG: Final = "router_config.json"
_OLDER_CONFIG: Final = "config.json"
_PARAMETERS: Final = {"default_route", "allow_empty_key", "route_mappings"}
_MODALITY: Final = "text"


class RouterSettings(Declaration):
    """`router_config.json` of a Router, or `config.json` of an Asym: routes of modules, and which one is for what."""

    types: dict[str, str]
    structure: Annotated[dict[str, list[str]], Field(min_length=1)]
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _known(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(parameters.keys() - _PARAMETERS):
            raise ValueError(
                f"parameters has {unknown}, which may change the route. Known are {', '.join(sorted(_PARAMETERS))}"
            )
        route, mappings = parameters.get("default_route"), parameters.get("route_mappings") or {}
        if route is not None and not isinstance(route, str):
            raise ValueError(f"default_route must be the name of a route, not {shortened(route)}")
        if not isinstance(mappings, dict) or not all(isinstance(each, str) for each in mappings.values()):
            raise ValueError(f"route_mappings must name a route for each key, not {shortened(mappings)}")
        for key in mappings:
            _asked(key)
        return parameters

    @classmethod
    def of(cls, folder: Path) -> RouterSettings:
        """Read what the folder of a Router declares.

        Raises:
            CheckpointError: it is missing or damaged, or names a route or a module that is not there.
        """
        path = next(
            (folder / each for each in (_CONFIG, _OLDER_CONFIG) if (folder / each).exists()), folder / _CONFIG
        )
        if read_json(path) is None:
            raise CheckpointError(f"{path}: is missing, so it is not known which modules texts go through.")
        found = cls.read(path)
        default, mappings = found.parameters.get("default_route"), found.parameters.get("route_mappings") or {}
        for route in (*([default] if default is not None else []), *mappings.values()):
            if route not in found.structure:
                raise CheckpointError(f"{path}: names the route {route!r}, and has {_listed(found.structure)}.")
        for module in {module for route in found.structure.values() for module in route}:
            require_inside(path, module)
            if PurePosixPath(module) == PurePosixPath():
                raise CheckpointError(f"{path}: has a route through {module!r}, which is the Router itself.")
            if module not in found.types:
                raise CheckpointError(f"{path}: has a route through {module!r}, whose type it does not name.")
        return found

    def modules(self, below: str) -> dict[str, list[Module]]:
        """Return the modules of each route; `below` is the Router's own path in the model folder."""
        return {
            route: [Module(path=PurePosixPath(below, name).as_posix(), type=self.types[name]) for name in names]
            for route, names in self.structure.items()
        }

    def route(self, task: Task | None) -> str | None:
        """Return the route of a text, as sentence-transformers finds it; None where there is none."""
        mappings: dict[tuple[str | None, str | tuple[str, ...] | None], str] = {
            _asked(key): route for key, route in (self.parameters.get("route_mappings") or {}).items()
        }
        for key in ((task, _MODALITY), (task, None), (None, _MODALITY), (None, None)):
            if key in mappings:
                return mappings[key]
        for name in (task, _MODALITY):
            if name in self.structure:
                return name
        return self._default if task is None else None

    @property
    def _default(self) -> str | None:
        default: str | None = self.parameters.get("default_route")
        if default is None and self.parameters.get("allow_empty_key", True):
            return next(iter(self.structure))
        return default


def has_router(modules: Sequence[Module]) -> bool:
    """Whether a Router is among the modules of a folder."""
    return any(module.kind in ROUTERS for module in modules)


def routed(folder: Path, modules: Sequence[Module], task: Task | None) -> list[Module] | None:
    """Return the modules that a text goes through, those of its route in place of each Router.

    Args:
        folder: the model folder.
        modules: what its `modules.json` lists.
        task: what the text is for; None for what was not said.

    Returns:
        None where nothing was said, and a Router has no route for that.

    Raises:
        CheckpointError: a Router is damaged, or has no route for such texts.
    """
    found: list[Module] = []
    for module in modules:
        if module.kind not in ROUTERS:
            found.append(module)
            continue
        settings = RouterSettings.of(folder / module.path)
        route = settings.route(task)
        if route is None and task is None:
            return None
        if route is None:
            example = f'"route_mappings": {{"(\'{task}\', None)": "{next(iter(settings.structure))}"}}'
            raise CheckpointError(
                f"{folder / module.path / _CONFIG}: has no route for texts that are a {task}, but "
                f"{_listed(settings.structure)}. If one of them is meant for those, say so under parameters, such as "
                f"{example}, which sentence-transformers follows as well."
            )
        inside = routed(folder, settings.modules(module.path)[route], task)
        if inside is None:
            return None
        found += inside
    return found


def all_modules(folder: Path, modules: Sequence[Module]) -> Iterator[Module]:
    """Yield the modules of a folder, and behind a Router in the folder itself, those of all its routes."""
    for module in modules:
        yield module
        if module.kind in ROUTERS and PurePosixPath(module.path) == PurePosixPath():
            for inside in RouterSettings.of(folder).modules("").values():
                yield from inside


def _asked(key: str) -> tuple[str | None, str | tuple[str, ...] | None]:
    """Read the key of a route mapping: a task, and a modality or several; either may be None."""
    try:
        task, modality = ast.literal_eval(key)
        names = [task, *(modality if isinstance(modality, tuple) else [modality])]
        if all(each is None or isinstance(each, str) for each in names):
            return task, tuple(sorted(modality)) if isinstance(modality, tuple) else modality
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise ValueError(f"route_mappings has the key {shortened(key)}, and should have such as \"('query', 'text')\"")


def _listed(structure: dict[str, list[str]]) -> str:
    return f"the route{'s' if len(structure) > 1 else ''} {', '.join(map(repr, structure))}"

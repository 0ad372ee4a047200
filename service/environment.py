"""Environment variables of a deployment: what each is read as, and which was meant by one that means nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from service.errors import ConfigError

PREFIX: Final = "MILLPOND_"
_OF_COMMANDS: Final = ("MILLPOND_URL", "MILLPOND_API_KEY")
_OF_MEASUREMENTS: Final = (
    *(
        "MILLPOND_CLIENTS",
        "MILLPOND_DATA",
        "MILLPOND_INFINITY",
        "MILLPOND_MILVUS",
        "MILLPOND_STORES",
        "MILLPOND_TXTAI",
    ),
)
"""What tests and benchmarks read; a service that they start inherits it."""
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
_TEXTS: Final = {str, Path, NoneType}


def twins(variables: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the variables that set a key of a config, in order, and the keys that lead to it, in lower case."""
    kubernetes = tuple(_of_kubernetes(variables))
    split = {
        name: tuple(name.removeprefix(PREFIX).lower().split("__"))
        for name in sorted(variables)
        if name.startswith(PREFIX) and not name.startswith(kubernetes)
    }
    return {name: keys for name, keys in split.items() if len(keys) > 1 and all(keys)}


def of_runtime(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say what runs an encoder, for commands that take nothing else from a deployment."""
    return {name: value for name, value in variables.items() if name.startswith(f"{PREFIX}RUNTIME__")}


def check(variables: Mapping[str, str], schema: type[BaseModel], models: Collection[str] = ()) -> None:
    """Refuse variables that begin as Millpond's do and mean nothing: most of them are misspelt ones that do.

    Variables that Kubernetes sets for a service called `millpond` are none of the user's, and left alone.

    Args:
        variables: all of them.
        schema: what a config may say.
        models: names of the config's models.

    Raises:
        ConfigError: naming each, and the one that was meant.
    """
    known = {*twins(variables), *_OF_COMMANDS, *_OF_MEASUREMENTS}
    kubernetes = tuple(_of_kubernetes(variables))
    problems = []
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known and not name.startswith(kubernetes):
            meant = suggestion(name, schema, models) or (
                f"{PREFIX}SECTION__KEY sets a key of the config, as {PREFIX}SERVER__PORT does, and commands read "
                f"{' and '.join(_OF_COMMANDS)}. Unset it."
            )
            problems.append(f"environment variable {name}: means nothing. {meant}")
    if problems:
        raise ConfigError("\n".join(problems))


def suggestion(name: str, schema: type[BaseModel], models: Collection[str] = ()) -> str:
    """Return `Did you mean NAME?` for the variable nearest to `name`; empty if it is one itself, or none is near."""
    known = dict(_names(schema, models)) | dict.fromkeys(_OF_COMMANDS, str)
    below = tuple(f"{other}__" for other, wanted in known.items() if dict in kinds(wanted))
    if name in known or name.startswith(below):
        return ""
    asked = _flat(name)
    flat = {_flat(other): other for other in reversed(known)}
    of_key = {_flat(other.rsplit("__", 1)[-1]): other for other in reversed(known)}
    within = next((other for other in below if asked.startswith(f"{_flat(other)}_")), None)
    if asked in flat:
        meant = flat[asked]
    elif within is not None:
        meant = within + asked.removeprefix(f"{_flat(within)}_")
    elif asked in of_key:
        meant = of_key[asked]
    else:
        mapping, _, entry = name.rpartition("__")
        found = _nearest(mapping, [other.removesuffix("__") for other in below])
        meant = f"{found}__{entry}" if found else _nearest(name, known)
    return meant and f"Did you mean {meant}?"


def wanted(schema: type[BaseModel], keys: tuple[str, ...]) -> Any:
    """Return the annotation of the value at some keys; None if there is no such key."""
    annotation: Any = schema
    for key in keys:
        fields = annotation.model_fields if _is_section(annotation) else None
        if fields is not None:
            annotation = fields[key].annotation if key in fields else None
        else:
            annotation = next((get_args(part)[1] for part in _parts(annotation) if get_origin(part) is dict), None)
        if annotation is None:
            break
    return annotation


def read(text: str, annotation: Any, parse: Callable[[str], Any]) -> Any:
    """Return the value of a variable where one of this annotation is wanted.

    A text is taken character for character, whatever YAML would make of it; all else is read by `parse`, as YAML.
    Where either is taken, what is no number, mapping or list is a text. An empty variable is null where null or a
    path is wanted.
    """
    found = kinds(annotation)
    if annotation is None or (found <= _TEXTS and text):
        return text
    if found <= _TEXTS:
        return None if found - {str} else text
    if not found & _TEXTS:
        return parse(text)
    try:
        value = parse(text)
    except ConfigError:
        if found & {dict, list} and text.lstrip()[:1] in ("{", "["):
            raise
        return text
    numbers = {int} if float in found else set()
    return value if isinstance(value, tuple(found - _TEXTS | numbers)) else text


def kinds(annotation: Any) -> set[Any]:
    """Return the types that values of an annotation have: of `dict[str, str] | Literal["auto"]`, dict and str."""
    found: set[Any] = set()
    for part in _parts(annotation):
        origin = get_origin(part)
        found |= {type(value) for value in get_args(part)} if origin is Literal else {origin or part}
    return found


def _nearest(name: str, known: Collection[str]) -> str:
    """Return the name that is spelled most like another; empty if none is near.

    Where the other has sections, the keys must be near too: sections alone make long names alike.
    """
    before, _, key = name.removeprefix(PREFIX).rpartition("__")
    flat = {_flat(other): other for other in reversed([*known]) if "__" in other or not before}
    for near in get_close_matches(_flat(name), flat, n=1):
        if not before or get_close_matches(key, [flat[near].rsplit("__", 1)[-1]]):
            return flat[near]
    return ""


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _names(schema: type[BaseModel], models: Collection[str], prefix: str = PREFIX) -> Iterator[tuple[str, Any]]:
    """Yield the variable of each key and the key's annotation; `models` are the names that a config chose itself."""
    for key, field in schema.model_fields.items():
        name = f"{prefix}{key}".upper()
        members = {member.upper(): wanted(schema, (key, member)) for member in [*models, "default"]}
        annotation: Any = field.annotation
        if _is_section(annotation):
            yield from _names(annotation, models, f"{name}__")
        elif all(map(_is_section, members.values())):
            for member, section in members.items():
                yield from _names(section, models, f"{name}__{member}__")
        else:
            yield name, annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _flat(name: str) -> str:
    """Return a name without the prefix, each run of underscores as one."""
    return re.sub("_+", "_", name.removeprefix(PREFIX)).strip("_")


def _of_kubernetes(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield how the variables begin by which Kubernetes, or a link of Docker, tells of a service `millpond`."""
    for name, value in variables.items():
        key = "__" in name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and name.endswith("_PORT") and not key and _ADDRESS.match(value):
            yield from (name, name.removesuffix("PORT") + "SERVICE_")

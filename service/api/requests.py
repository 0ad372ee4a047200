"""How requests are read: strictly, and within limits."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from email.message import Message
from functools import cache, partial
from typing import Annotated, Any, Final, Protocol, get_args

import orjson
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from starlette.types import Receive, Scope

from service import exact_json
from service.deployment import Deployment
from service.errors import EmptyInput, Place, TooLarge, did_you_mean, shortened
from service.store.document import has_surrogate

MOST_NESTED: Final = 100
"""Nesting levels of a request body; code that recurses over one relies on this limit."""
_LARGE: Final = 1 << 18
"""Bytes of a body from which on it is parsed on a thread, so that other requests need not wait for it."""
_CONTAINERS: Final = frozenset({dict, list})
TOLERATED: Final = "tolerated"
"""Marks a field that clients of other servers send, and that nobody else needs to know of."""
ignoring_unknown_fields: Final = ContextVar("ignoring_unknown_fields", default=False)
"""Whether fields that a request body does not have are left out instead of refused (`server.unknown_fields`)."""


class _Field(Protocol):
    """What a route takes as its body, as FastAPI has it."""

    def validate(
        self, value: Any, values: dict[str, Any] = ..., *, loc: tuple[int | str, ...] = ...
    ) -> tuple[Any, Sequence[Any]]:
        """Return the value as it is taken, and what is wrong with it."""


async def _deployment(request: Request) -> Deployment:  # FastAPI runs plain functions in a thread pool
    deployment: Deployment = request.app.state.deployment
    return deployment


Served = Annotated[Deployment, Depends(_deployment)]


def check_count(served: Deployment, count: int, field: str) -> None:
    """Check the number of items in a request.

    Raises:
        EmptyInput: there are none.
        TooLarge: more than `server.max_texts`.
    """
    limit = served.config.server.max_texts
    if count == 0:
        raise EmptyInput(f"{field} is empty; send at least one.", where=Place(field))
    if count > limit:
        raise TooLarge(
            f"{field} holds {count} and one request takes {limit} (server.max_texts); send them in parts.",
            where=Place(field),
            limit=limit,
        )


def places(field: str, *, several: bool) -> Callable[[int], Place]:
    """Return the function from an index to the place of that item: `field[index]`, or `field` for a single item."""
    return partial(Place, field) if several else lambda _: Place(field)


class Body(BaseModel):
    """A request body; unknown fields and other types are errors, so that a mistake never goes unnoticed.

    A field that is null is as one that is absent, save where null has a meaning of its own, which its type then has.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.__pydantic_fields__
        if None in data.values():
            absent = _without_null(cls)
            data = {key: value for key, value in data.items() if value is not None or key not in absent}
        if not data.keys() <= fields.keys():
            if ignoring_unknown_fields.get():
                return {key: value for key, value in data.items() if key in fields}
            key = next(key for key in data if key not in fields)
            raise PydanticCustomError(
                "unknown_field",
                "{key} is not a field here.{hint} Fields are: {known}.",
                {
                    "key": shortened(key),
                    "field": str(key)[:100],
                    "hint": did_you_mean(str(key), fields),
                    "known": ", ".join(_told(fields)),
                },
            )
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe that fields which may be absent may be null."""
        described = handler(schema)
        resolved = handler.resolve_ref_schema(described)
        optional = _without_null(cls) - set(resolved.get("required", ()))
        for name in optional & resolved.get("properties", {}).keys():
            resolved["properties"][name] = _or_null(resolved["properties"][name])
        return described


def _told(fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the fields that an error names, required ones first."""
    told = (name for name, field in fields.items() if TOLERATED not in field.metadata)
    return sorted(told, key=lambda name: not fields[name].is_required())


@cache
def _without_null(body: type[Body]) -> frozenset[str]:
    """Return the fields whose type does not have null."""
    fields = body.__pydantic_fields__.items()
    return frozenset(
        name
        for name, field in fields
        if field.annotation not in (Any, JsonValue) and type(None) not in get_args(field.annotation)
    )


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    about = {key: value for key, value in schema.items() if key in ("title", "description", "default")}
    return {"anyOf": [{key: value for key, value in schema.items() if key not in about}, {"type": "null"}], **about}


def declared_length(scope: Scope) -> int:
    """Return how many bytes the body of a request has by its header; 0 where that does not say."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def is_json(content_type: str) -> bool:
    """Whether a body of this content type is read as JSON; FastAPI decides the same for its routes."""
    if content_type == "application/json":
        return True
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


class NotJSON(json.JSONDecodeError):
    """A body is no JSON, for a reason that `place` names where it is one string of the body."""

    place: Place | None = None


def parse(body: bytes) -> Any:
    """Parse JSON strictly: no NaN, no lone surrogates, no invalid UTF-8. A byte order mark before it is skipped.

    A number beyond floats is infinite, for the checks of what it is meant for to refuse.

    Raises:
        NotJSON: the body is no JSON, or nested too deeply.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        value = exact_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise _with_position(error, body) from None
    # Counting brackets is a hundred times faster than walking the value, and few of them rule out deep nesting.
    if body.count(b"[") + body.count(b"{") > MOST_NESTED and _is_deeper(value, MOST_NESTED):
        raise NotJSON(f"it is nested deeper than {MOST_NESTED} levels", "", 0)
    return value


async def read(body: bytes, field: _Field | None) -> Any:
    """Parse JSON; other requests go on while a large body is parsed, and validated as what a route takes.

    Returns a large body as `field` has it. One that is small or not valid comes as parsed, for whoever validates it
    then to say why. Raises `NotJSON`.
    """
    return parse(body) if len(body) < _LARGE else await asyncio.to_thread(_validated, body, field)


def _validated(body: bytes, field: _Field | None) -> Any:
    value = parse(body)
    if field is None:
        return value
    valid, problems = field.validate(value, loc=("body",))
    return value if problems else valid


class _StrictRequest(Request):
    def __init__(self, scope: Scope, receive: Receive, field: _Field | None) -> None:
        super().__init__(scope, receive)
        self._field = field

    async def json(self) -> Any:
        return await read(await self.body(), self._field)


class JSONRoute(APIRoute):
    """A route with strict parsing of the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that parses the body strictly."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive, self.body_field))

        return strict


class ReadingRoute(JSONRoute):
    """A route that changes nothing, so that a request ends when its client disconnects (`CancelOnDisconnect`)."""


def place_of(parts: Sequence[int | str]) -> Place | None:
    """Return the place named by keys and indices, such as `documents[3].id`; None for the whole body."""
    if not parts:
        return None
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    index = next((part for part in parts if isinstance(part, int)), None)
    return Place(str(parts[0]), index, name=path)


def _with_position(error: json.JSONDecodeError, body: bytes) -> NotJSON:
    """Return the error with its position, which orjson omits for invalid UTF-8, and the string that it is in."""
    try:
        body.decode()
        found = NotJSON(f"{error.msg}, at character {error.pos}", "", 0)
        if "surrogate" not in error.msg:
            return found
    except UnicodeDecodeError as undecodable:
        found = NotJSON(f"{undecodable.reason} in byte {undecodable.start}", "", 0)
    try:
        # Python's parser lets halves of surrogate pairs pass, and bytes that are no UTF-8 become such.
        lenient = json.loads(body.decode(errors="surrogateescape"))
        found.place = place_of(next(_undecodable(lenient, ()), ()))
    except (ValueError, RecursionError):
        pass
    return found


def _undecodable(value: Any, parts: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    """Yield the place of each string that is not valid Unicode; a key's is the object that it is a key of."""
    match value:
        case str():
            if has_surrogate(value):
                yield parts
        case dict():
            for key, item in value.items():
                if has_surrogate(key):
                    yield parts
                yield from _undecodable(item, (*parts, key))
        case list():
            for index, item in enumerate(value):
                yield from _undecodable(item, (*parts, index))


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        # The types of a list of numbers are looked at together, which takes a third of the time.
        every = (item.values() if type(item) is dict else item for item in level)
        level = [
            inner
            for items in every
            if not _CONTAINERS.isdisjoint(map(type, items))
            for inner in items
            if type(inner) in _CONTAINERS
        ]
        if not level:
            return False
    return True

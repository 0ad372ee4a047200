"""Documents as files have them: in Millpond's format, in that of a BEIR corpus, or as columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from service import exact_json
from service.errors import InvalidDocument, did_you_mean
from service.store import Document
from service.store.document import checked_id, checked_text, encoded_metadata

_OWN: Final = ("metadata", "spans", "vector", "vectors", "fingerprint")
_FIELDS: Final = ("id", "text", *_OWN)
_BEIR_FIELDS: Final = ("_id", "title", "text", *_OWN)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a line as a JSON object; raises `ValueError`."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid UTF-8 at byte {error.start + 1}. Save the file as UTF-8.") from None
    try:
        value = exact_json.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error}). Each line is one JSON object.") from None
    if not isinstance(value, dict):
        raise ValueError(f"is {_kind(value)}. Each line is one JSON object.")
    return value


def string_field(fields: Mapping[str, Any], field: str) -> str:
    """Return a field that must be a string; raises `ValueError`."""
    if field not in fields:
        raise ValueError(f"has no {field!r}.{did_you_mean(field, fields)}")
    if not isinstance(value := fields[field], str):
        raise ValueError(f"{field!r} is {_kind(value)}. It must be a string.")
    return value


def document_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as it is sent to a service; `null` is as if a key were left out. Raises `ValueError`."""
    beir = "_id" in fields
    known = _BEIR_FIELDS if beir else _FIELDS
    identity = string_field(fields, "_id" if beir else "id")
    own = {field: fields[field] for field in _OWN if fields.get(field) is not None}
    optional = "vector" in own or "vectors" in own
    text = "" if optional and fields.get("text") is None else string_field(fields, "text")
    metadata = own.pop("metadata", {})
    for field in fields:
        if field not in known:
            raise ValueError(
                f"{field!r} is no field of a document.{did_you_mean(field, known)} Fields are "
                f"{', '.join(known)}; put what you filter by under metadata."
            )
    if beir and fields.get("title") is not None and (title := string_field(fields, "title")):
        text = f"{title} {text}"
        metadata = {**metadata, "title": title} if isinstance(metadata, dict) else metadata
    _check_spans(own.get("spans"))
    document = Document(identity, text.strip() if beir else text, metadata)
    try:
        checked_id(identity)
        checked_text(document)
        encoded_metadata(document)
    except InvalidDocument as error:
        raise ValueError(str(error)) from None
    return document.to_json() | own


def from_columns(columns: Mapping[str, Any], value: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the fields of a document from the columns of a table.

    `metadata` may be a JSON object in a string; every other column that is no field of a document is one of its
    metadata, by `value`, which gives None where there is nothing.
    """
    fields: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name, cell in columns.items():
        if name in ("id", "_id", "text") or (name == "title" and "_id" in columns):
            fields[name] = cell
        elif name in _OWN and isinstance(cell, str):
            fields[name] = _parsed(name, cell) if cell else None
        elif name in _OWN:
            fields[name] = value(cell) if name == "metadata" else cell
        elif (found := value(cell)) is not None:
            metadata[name] = found
    given = fields.get("metadata") or {}
    if not isinstance(given, dict):
        raise ValueError(f"'metadata' is {_kind(given)}. It must be a JSON object.")
    fields["metadata"] = given | metadata
    return fields


def _parsed(name: str, cell: str) -> Any:
    if name == "fingerprint":
        return cell
    try:
        return exact_json.loads(cell.encode(errors="surrogateescape"))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{name!r} is not JSON ({error}).") from None


def _check_spans(given: Any) -> None:
    try:
        if given is None or all(type(edge) is int for start, end in given for edge in (start, end)):
            return
    except (TypeError, ValueError):
        pass
    raise ValueError("'spans' must be [[start, end], ...], in characters of the text.")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"the number {value}")

"""Files of documents: JSON lines in Millpond's format, or a BEIR corpus."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from service import exact_json
from service.cli.console import Failure
from service.errors import InvalidDocument, did_you_mean
from service.store import Document, Spans
from service.store.document import checked_id, encoded_metadata

MOST_ERRORS: Final = 10
_FIELDS: Final = ("id", "text", "metadata", "spans")
_BEIR_FIELDS: Final = ("_id", "title", "text", "metadata")


@dataclass(frozen=True, slots=True)
class Line:
    """A document and its line number in the file."""

    number: int
    document: Document

    @property
    def empty(self) -> bool:
        """Whether there is nothing to embed."""
        return not self.document.text.strip()


@dataclass(frozen=True, slots=True)
class Count:
    """The number of documents in a file, and of further ones without text."""

    documents: int
    empty: int


def corpus_file(path: Path) -> Path:
    """Return the file itself, or the corpus of a BEIR folder; raises `Failure` if it cannot be read."""
    file = path / "corpus.jsonl" if path.is_dir() else path
    try:
        with file.open("rb"):
            return file
    except OSError as error:
        what = "a file of JSON lines, or a BEIR folder, which holds a corpus.jsonl"
        raise Failure(f"{file}: {error.strerror}. Give {what}.", 2) from None


def check(file: Path) -> Count:
    """Check the whole file before anything is sent, so that no bad line is found after an hour.

    Raises:
        Failure: some lines are invalid; the message names up to ten of them.
    """
    problems: list[str] = []
    first: dict[str, int] = {}
    empty = 0
    for line in _lines(file):
        if isinstance(line, str):
            problems.append(line)
        else:
            empty += line.empty
            earlier = first.setdefault(line.document.id, line.number)
            if earlier != line.number:
                problems.append(
                    f"{file}: line {line.number}: id {line.document.id!r} is taken by line {earlier}. "
                    "Give each document an id of its own."
                )
        if len(problems) == MOST_ERRORS:
            problems.append(f"{file}: the rest was not read. Nothing was sent.")
            break
    if problems:
        raise Failure("\n".join(problems), 2)
    return Count(len(first) - empty, empty)


def read(file: Path) -> Iterator[Line]:
    """Yield the documents of a checked file that have text."""
    for line in _lines(file):
        if isinstance(line, str):
            raise Failure(f"{line} The file changed while it was read.", 2)
        if not line.empty:
            yield line


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


def string_field(fields: dict[str, Any], field: str) -> str:
    """Return a field that must be a string; raises `ValueError`."""
    if field not in fields:
        raise ValueError(f"has no {field!r}.{did_you_mean(field, fields)}")
    if not isinstance(value := fields[field], str):
        raise ValueError(f"{field!r} is {_kind(value)}. It must be a string.")
    return value


def _lines(file: Path) -> Iterator[Line | str]:
    """Yield each document, or what is wrong with its line."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.isspace():
                continue
            try:
                line: Line | str = Line(number, _document(raw))
            except ValueError as problem:
                line = f"{file}: line {number}: {problem}"
            yield line


def _document(raw: bytes) -> Document:
    fields = parse_object(raw)
    beir = "_id" in fields
    known = _BEIR_FIELDS if beir else _FIELDS
    identity = string_field(fields, "_id" if beir else "id")
    text = string_field(fields, "text")
    metadata = {} if fields.get("metadata") is None else fields["metadata"]
    for field in fields:
        if field not in known:
            raise ValueError(
                f"{field!r} is no field of a document.{did_you_mean(field, known)} Fields are "
                f"{', '.join(known)}; put what you filter by under metadata."
            )
    if beir and fields.get("title") is not None and (title := string_field(fields, "title")):
        text = f"{title} {text}".strip()
        metadata = {**metadata, "title": title} if isinstance(metadata, dict) else metadata
    document = Document(identity, text.strip() if beir else text, metadata, _spans(fields))
    try:
        checked_id(identity)
        encoded_metadata(document)
    except InvalidDocument as error:
        raise ValueError(str(error)) from None
    return document


def _spans(fields: dict[str, Any]) -> Spans | None:
    if (given := fields.get("spans")) is None:
        return None
    try:
        if all(type(edge) is int for span in given for edge in span):
            return tuple((start, end) for start, end in given)
    except (TypeError, ValueError):
        pass
    raise ValueError("'spans' must be [[start, end], ...], in characters of the text.")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"the number {value}")

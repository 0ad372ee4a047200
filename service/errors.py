"""Errors for users: each says what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

_BRIEF: Final = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80
_MOST_NAMED: Final = 100
"""Errors that one answer lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a request or a data set.

    Args:
        field: the field at fault, such as `inputs`.
        index: which of its items; None for the whole field.
        span: which span of that item, where a single span is at fault.
        name: its spelling in messages; `field[index][span]` by default.
    """

    field: str
    index: int | None = None
    span: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        if self.name is not None:
            return self.name
        return self.field + "".join(f"[{number}]" for number in (self.index, self.span) if number is not None)

    def at_span(self, span: int) -> Place:
        """Return the place of one span of this item."""
        return replace(self, span=span, name=f"{self}, span {span}")

    def to_json(self) -> dict[str, Any]:
        """Return what a client needs to find the place: `field`, and `index` and `span` where they apply."""
        parts = {"field": self.field, "index": self.index, "span": self.span}
        return {key: part for key, part in parts.items() if part is not None}


class ServiceError(Exception):
    """Base class of every error with a remedy.

    `code` identifies the kind of error for clients: it is a public name, so it never follows a renamed class.
    `retry_after` is the number of seconds after which the same request may succeed, None where it will not.

    Args:
        detail: what was wrong and what would be right, in one or two sentences.
        where: the part of the input at fault.
        extra: further members of the error response, JSON-serializable.
    """

    code: ClassVar[str] = "bad_request"
    retry_after: int | None = None

    def __init__(self, detail: str, *, where: Place | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = where
        self.extra = extra


class ConfigError(ServiceError):
    """A config file, an environment variable or a flag has an impossible value."""

    code = "invalid_configuration"


class CheckpointError(ServiceError):
    """A model folder is missing or damaged, or what it declares cannot be followed exactly."""

    code = "unusable_checkpoint"


class BrokenModel(ServiceError):
    """A model produced a vector that is not finite, or failed on a text.

    Args:
        model: its name.
        where: the text.
        failure: how it failed; by default with a vector that is not finite.
    """

    code = "broken_model"

    def __init__(self, model: str, *, where: Place | None = None, failure: str | None = None) -> None:
        text = f" for {where}" if where else ""
        what = f"failed{text} ({failure})" if failure else f"gave a vector that is not finite{text}"
        super().__init__(
            f"model {model!r} {what}. Its weights are damaged or it does not bear this precision; try "
            "runtime.precision: fp32.",
            where=where,
        )


class InvalidInput(ServiceError):
    """A request has the right shape but a value that cannot be served."""

    code = "invalid_input"


class EmptyInput(InvalidInput):
    """There is nothing to embed: no text, or one without a token."""


class InvalidTokenIds(InvalidInput):
    """Token ids were sent that are not taken, or that no text has."""


class TooLong(ServiceError):
    """A text has more tokens than the model takes."""

    code = "context_length_exceeded"


class TooLarge(ServiceError):
    """A request exceeds a limit of this deployment."""

    code = "request_too_large"


class UnsupportedTask(ServiceError):
    """The models served here are not of the kind that a route is for."""

    code = "unsupported_task"


class UnknownModel(ServiceError):
    """No model of this name is served."""

    code = "model_not_found"


class FingerprintMismatch(ServiceError):
    """A collection was built with another embedder than the one that is served."""

    code = "fingerprint_mismatch"


class ReindexRunning(ServiceError):
    """Another reindex of the collection is under way."""

    code = "reindex_running"


class NoKey(ServiceError):
    """A request shows no API key where one is needed."""

    code = "missing_api_key"


class InvalidKey(ServiceError):
    """The API key of a request is none, or has expired."""

    code = "invalid_api_key"


class WrongScope(ServiceError):
    """An API key is not for what is asked with it; `scope` is what it lacks."""

    code = "insufficient_scope"


class RateExceeded(ServiceError):
    """An API key has sent more requests than it may."""

    code = "rate_limit_exceeded"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after: int = retry_after


class QuotaExceeded(RateExceeded):
    """An API key has sent more tokens than it may."""

    code = "token_quota_exceeded"


class Unavailable(ServiceError):
    """The service cannot take the request now."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after: int = retry_after


class DeadlineExceeded(ServiceError):
    """The request was not done within the time that it had."""

    code = "deadline_exceeded"


class StoreUnavailable(ServiceError):
    """The store's folder or file cannot be opened, read or written."""

    code = "store_unavailable"
    retry_after = 5


class StoreDamaged(StoreUnavailable):
    """Something stored is not as it was written; what does not read it goes on."""


class NoSpace(ServiceError):
    """The disk has no room for what is asked, which was not begun."""

    code = "no_space"


class BadBackup(ServiceError):
    """A folder cannot be backed up, cannot take a copy, or holds none that is whole."""

    code = "bad_backup"


class NotFound(ServiceError):
    """No collection, alias, document or reindex has the requested name or id."""

    code = "not_found"


class Conflict(ServiceError):
    """A collection of this name exists under another definition."""

    code = "conflict"

    def __init__(self, name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        differences = [
            f"{key}: stored {_to_text(stored, key)}, asked {_to_text(asked, key)}"
            for key in sorted(stored.keys() | asked.keys())
            if _to_text(stored, key) != _to_text(asked, key)
        ]
        self.differences = "; ".join(differences)
        super().__init__(
            f"collection {name!r} exists under another definition ({self.differences}). "
            "Ask for the stored definition, choose another name, drop the collection first, or, to change its model, "
            "pooling, layers, chunking or similarity, reindex it.",
            stored=dict(stored),
            asked=dict(asked),
        )


class NameConflict(ServiceError):
    """A name stands for something else than the request needs, such as another collection or an alias."""

    code = "name_conflict"


class StaleDefinition(ServiceError):
    """Vectors were computed for a definition that the collection no longer has or is no longer rebuilt for."""

    code = "superseded"


class InvalidName(ServiceError):
    """A collection cannot have this name."""

    code = "invalid_name"


class InvalidIndex(ServiceError):
    """No vector index of this kind is known."""

    code = "invalid_index"


class InvalidFilter(ServiceError):
    """A filter does not follow the filter language."""

    code = "invalid_filter"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, where=Place("filter"))


class KeywordsUnavailable(ServiceError):
    """The texts of a collection cannot be searched by words."""

    code = "keywords_unavailable"


class InvalidCursor(ServiceError):
    """A cursor was not given out for this collection, or is damaged."""

    code = "invalid_cursor"


class InvalidDocument(ServiceError):
    """An id, a text or the metadata of a document cannot be stored."""

    code = "invalid_document"


class InvalidVector(ServiceError):
    """Vectors have the wrong shape or type, or values that cannot be compared."""

    code = "invalid_vector"


def together(errors: Sequence[ServiceError]) -> ServiceError:
    """Return the first of several errors, which names all of them as `errors`, or the first hundred."""
    first, *others = errors
    first.extra["errors"] = [
        {"where": str(error.where or ""), "code": error.code, "detail": error.detail}
        for error in errors[:_MOST_NAMED]
    ]
    if others:
        more = f"{len(others)} others are refused" if len(others) > 1 else "another one is refused"
        first.detail += f" And {more}: {', '.join(str(other.where) for other in others[:5])}"
        first.detail += ", ..., as 'errors' lists." if len(others) > 5 else "."
        first.args = (first.detail,)
    return first


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known word nearest to ``word``, in whichever case, or an empty string."""
    folded = {each.casefold(): each for each in known if each != word}
    near = difflib.get_close_matches(word[:100].casefold(), list(folded), n=1, cutoff=0.6)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""


def shortened(value: object) -> str:
    """Return a value's representation, short enough for a message however large or deep the value is."""
    return _BRIEF.repr(value)


def brief(error: Exception, most: int) -> str:
    """Return a foreign error's class and what it says, in one line, which is cut after so many characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def _to_text(definition: Mapping[str, Any], key: str) -> str:
    return json.dumps(definition[key], sort_keys=True) if key in definition else "nothing"

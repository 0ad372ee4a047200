"""Errors that a user meets: each says what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, ClassVar, Final

_BRIEF: Final = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


class ServiceError(Exception):
    """An error with a remedy.

    Args:
        detail: what was wrong and what would be right, in one or two sentences.
        where: the part of the input at fault, such as ``inputs[3]``.
        extra: further members of the problem document (RFC 9457), JSON-able.
    """

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Bad request"
    code: ClassVar[str] = "bad_request"

    def __init__(self, detail: str, *, where: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = where
        self.extra = extra


class ConfigError(ServiceError):
    """A config file, an environment variable or a flag says something that cannot be."""

    status = 422
    title = "Invalid configuration"
    code = "invalid_configuration"


class CheckpointError(ServiceError):
    """A model folder is missing, damaged, or declares what cannot be followed exactly."""

    status = 422
    title = "Unusable checkpoint"
    code = "unusable_checkpoint"


class InvalidInput(ServiceError):
    """A request has the right shape but a value that cannot be served."""

    status = 422
    title = "Invalid input"
    code = "invalid_input"


class TooLong(ServiceError):
    """A text has more tokens than the model takes."""

    status = 413
    title = "Text too long"
    code = "context_length_exceeded"


class TooLarge(ServiceError):
    """A request is larger than a limit of this deployment."""

    status = 413
    title = "Request too large"
    code = "request_too_large"


class UnknownModel(ServiceError):
    """No model of this name is served."""

    status = 404
    title = "Unknown model"
    code = "model_not_found"


class FingerprintMismatch(ServiceError):
    """A collection was built by another embedder than the one that would answer."""

    status = 409
    title = "Fingerprint mismatch"
    code = "fingerprint_mismatch"


class ReindexRunning(ServiceError):
    """A collection is being embedded anew towards something else."""

    status = 409
    title = "Reindex under way"
    code = "reindex_running"


class Unavailable(ServiceError):
    """The service cannot take the request now; ``retry_after`` is in seconds."""

    status = 503
    title = "Not available"
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known word nearest to ``word``, or an empty string."""
    near = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def shortened(value: object) -> str:
    """Return a value's representation, short enough for a message however large or deep the value is."""
    return _BRIEF.repr(value)

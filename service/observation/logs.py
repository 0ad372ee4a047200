"""Log lines, for a console or as JSON. One formatter serves every logger of the process."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from service.observation.request import observed

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

_OWN: Final = ("millpond", "pooling", "service")
"""Loggers that follow the level down to `debug`; at that level, those of libraries may tell headers and bodies."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""All but the tab: what could end a line, or steer a terminal."""


def configure(form: Format, level: Level) -> None:
    """Write the log lines of the whole process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[form]())
    logging.basicConfig(handlers=[handler], force=True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line tells them
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it logs which build of itself it loads
    set_level(level)


def set_level(level: Level) -> None:
    """Log what is at least this important, from now on; of libraries, nothing below `info`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(number, logging.INFO))
    for name in _OWN:
        logging.getLogger(name).setLevel(number)


class _Console(logging.Formatter):
    """`INFO service.deployment: ...`, and the id of the request in which it was said."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname} {record.name}: {record.getMessage()}"
        if not line.isprintable():
            line = _CONTROLS.sub(_escaped, line)
        if (request_id := _request_id(record)) is not None:
            line += f" [{request_id}]"
        return "\n".join(filter(None, (line, self._trace(record))))

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class _Json(_Console):
    """One JSON object a line: time, level, logger, message, and where they apply request_id, exception and more."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": _request_id(record),
            **fields,
            "exception": self._trace(record) or None,
        }
        return _ENCODER.encode({key: value for key, value in entry.items() if value is not None})


_ENCODER: Final = json.JSONEncoder(default=str)
_FORMATTERS: Final[Mapping[Format, type[logging.Formatter]]] = {"console": _Console, "json": _Json}


def _request_id(record: logging.LogRecord) -> str | None:
    given: str | None = getattr(record, "request_id", None)
    if given is None and (request := observed()) is not None:
        return request.id
    return given


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()

"""What Schemathesis does beside generating: requests are made ones that mean something, and responses are counted.

A schema cannot say which model is served, how long its vectors are, or that a search has one query; requests that
ignore this are answered with an error, which leaves most of the service untried. Those that are meant to break the
schema stay as they are.
"""

from __future__ import annotations

import atexit
from collections import Counter
from itertools import count
from typing import Any, Final

import schemathesis

_TIMEOUT: Final = "X-Request-Timeout"
DIM: Final = 12
"""Numbers of a vector of the tiny model."""
_ONE_OF: Final = (
    ("query", "queries", "vector"),
    ("ids", "filter", "all"),
    ("merge", "replace"),
    ("vector", "vectors"),
    ("data", "pairs", "classification"),
)
"""Fields of which a request has one."""
_KNOWN: Final = {
    **{"model": ("default", "cls"), "prompt_name": ("query", "document"), "task": ("query",)},
    **{"input_type": ("query", "document"), "dimensions": (1, DIM), "truncate_prompt_tokens": (-1,)},
    **{"fingerprint": (None,), "cursor": (None,), "weights": (None,), "mode": ("dense", "keyword")},
    **{"data": (None,)},  # an evaluation takes seconds; tests of its own try it
    **{"pooling": ("mean", "cls", "gem(p=3)", "mean + max", ["mean"])},
}
"""Values of fields that a deployment of the tiny model takes."""

_turn = count()
_answered: Counter[str] = Counter()
_statuses: Counter[int] = Counter()


@schemathesis.hook
def before_load_schema(context: Any, schema: dict[str, Any]) -> None:
    """Leave deadlines out: tests of their own try them, and what has hardly any time is answered with 504."""
    timeout = {"$ref": f"#/components/parameters/{_TIMEOUT}"}
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [each for each in operation.get("parameters", ()) if each != timeout]


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Make most of the requests that are meant to be valid so."""
    if case.meta is not None and case.meta.generation.mode.is_positive and next(_turn) % 8:
        fitting = _fitting(case.body)
        if fitting != case.body:
            case.body = fitting
    return case


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count a response."""
    _answered[case.meta.phase.name.value if case.meta is not None else "other"] += 1
    _statuses[response.status_code] += 1


def _fitting(body: Any) -> Any:
    if isinstance(body, list):
        return [_fitting(item) for item in body]
    if not isinstance(body, dict):
        return body
    fitting = {key: value if key in ("metadata", "filter") else _fitting(value) for key, value in body.items()}
    for fields in _ONE_OF:
        given = [field for field in fields if fitting.get(field) is not None]
        if len(given) > 1:
            kept = given[next(_turn) % len(given)]
            fitting = {key: value for key, value in fitting.items() if key not in fields or key == kept}
    for field, values in _KNOWN.items():
        if fitting.get(field) is not None:
            fitting[field] = values[next(_turn) % len(values)]
    if isinstance(fitting.get("vector"), list):
        fitting["vector"] = ([*fitting["vector"], *[1.0] * DIM])[:DIM]
    return fitting


@atexit.register
def _report() -> None:
    if _answered:
        phases = ", ".join(f"{number} {phase}" for phase, number in sorted(_answered.items()))
        statuses = ", ".join(f"{number} x {status}" for status, number in sorted(_statuses.items()))
        print(f"Answered: {_answered.total()} ({phases})\nStatuses: {statuses}")

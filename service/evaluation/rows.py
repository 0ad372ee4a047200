"""Data sets that come as rows of a request, or with the package, by the rules of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pooling.tasks import DataError, Task, of_rows, read
from pooling.tasks.task import LEAST_ITEMS
from service.encoder.reading import MOST_CHARACTERS, too_large
from service.errors import InvalidInput, Place, TooLarge

MOST_ROWS: Final = 2_000
"""Rows of one request: what some hundred tell is told by these."""
_EXAMPLES: Final = Path(__file__).with_name("examples.csv")

Row = Mapping[str, Any]


def examples() -> Task:
    """Return the packaged data: a hundred scored pairs, which are the dev and test splits of `examples/pairs`."""
    return read(_EXAMPLES)


def task_of(layout: str, rows: Sequence[Row]) -> Task:
    """Return the task of a request's rows.

    Args:
        layout: `pairs` or `classification`, which is also the field that they were sent in.
        rows: fields by name.

    Raises:
        TooLarge: there are more than `MOST_ROWS`, or a text has more than `MOST_CHARACTERS`.
        InvalidInput: a row has other fields or values than it needs, or poolings cannot be told apart on them.
    """
    if not rows:
        raise InvalidInput(
            f"{layout} is empty; send at least {LEAST_ITEMS}, and a few hundred if there are.", where=Place(layout)
        )
    if len(rows) > MOST_ROWS:
        raise TooLarge(
            f"{layout} has {len(rows)} rows, and one request takes {MOST_ROWS}. Send fewer, or have `millpond "
            "evaluate` read the whole file.",
            where=Place(layout),
            limit=MOST_ROWS,
        )
    for row, fields in enumerate(rows):
        for name, value in fields.items():
            if isinstance(value, str) and len(value) > MOST_CHARACTERS:
                raise too_large(value, Place(layout, row, name=f"{layout}[{row}].{name}"))
    try:
        task = of_rows(rows, lambda row: f"{layout}[{row}]")
    except DataError as error:
        raise InvalidInput(str(error).replace("\n", " "), where=Place(layout, error.row)) from None
    if task.layout != layout:
        raise InvalidInput(
            f"{layout} holds {task.data}, which are sent as {task.layout}. Send them there.", where=Place(layout)
        )
    try:
        task.check()
    except DataError as error:
        raise InvalidInput(f"{layout}: {error}", where=Place(layout)) from None
    return task


def place_of(layout: str, rows: Sequence[Row]) -> Callable[[str], Place]:
    """Return the function from a text to the field of the first row that holds it."""

    def place(text: str) -> Place:
        fields = ((row, field) for row, fields in enumerate(rows) for field, value in fields.items() if value == text)
        row, field = next(fields, (None, None))
        return Place(layout) if row is None else Place(layout, row, name=f"{layout}[{row}].{field}")

    return place

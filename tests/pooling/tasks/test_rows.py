"""Rows that no file holds are read by the rules of files."""

from __future__ import annotations

from typing import Any

import pytest

from pooling.tasks import Classification, DataError, PositivePairs, Similarity, of_rows


def name(row: int) -> str:
    return f"rows[{row}]"


def test_the_kind_is_that_of_the_columns() -> None:
    pair = {"sentence1": "a", "sentence2": "b", "score": "0.5", "more": None}
    task = of_rows([pair, pair | {"score": 1}], name)
    assert isinstance(task, Similarity) and task.scores.tolist() == [0.5, 1.0]
    assert isinstance(of_rows([{"anchor": "a", "positive": "b"}], name), PositivePairs)
    task = of_rows([{"text": "a", "label": 1}, {"text": "b", "label": "x"}], name)
    assert isinstance(task, Classification) and list(task.labels) == ["1", "x"]


@pytest.mark.parametrize(
    ("rows", "row", "words"),
    [
        ([{}], 0, r"rows\[0\]: has the fields \(none\)"),
        ([{"x" * 200: 1}], 0, r"has the fields x{80}\.\.\.\. It needs"),
        ([{f"column{place:03}": 1 for place in range(50)}], 0, r"column019, \.\.\.\. It needs"),
        (
            [{"text": "a", "label": "b"}, {"text": "a"}, {"label": "b"}],
            1,
            r"^rows\[1\]: label is empty\.\nrows\[2\]: text",
        ),
        ([{"sentence1": "a", "sentence2": "b", "score": 10**400}], 0, "no finite number"),
        ([{"sentence1": "a", "sentence2": "b", "score": "x" * 10**5}], 0, "^.{,200}$"),
    ],
)
def test_what_is_wrong_names_the_row(rows: list[dict[str, Any]], row: int, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        of_rows(rows, name)
    assert error.value.row == row

"""Reads data sets from files of the usual layouts.

| task | file |
|---|---|
| similarity | CSV, TSV or JSON lines with `sentence1`, `sentence2`, `score` |
| retrieval of positives | the same with `anchor`, `positive` |
| classification | the same with `text`, `label` |
| retrieval | a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` |

A data set with splits is a folder with `train`, `dev` and `test` files of one of the first three.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pooling.tasks.classification import Classification
from pooling.tasks.columns import Parser, is_visible, number, shown, text
from pooling.tasks.retrieval import PositivePairs, Retrieval
from pooling.tasks.similarity import Similarity
from pooling.tasks.task import DataError, Task

KINDS: Final[tuple[type[Task], ...]] = (Similarity, PositivePairs, Classification)
"""The kinds of task that are read from a table, which is of the first kind whose columns it has."""

_DELIMITERS: Final = {".csv": ",", ".tsv": "\t", ".jsonl": None}
_MAX_PROBLEMS: Final = 10
_MAX_FIELDS: Final = 20
"""Fields that a message names."""


def read(path: str | Path, split: str = "test") -> Task:
    """Read a file, or the given split of a folder.

    Documents without a text, or with one of invisible characters alone, are left out of retrieval, and so are the
    judgements of them.

    Raises:
        DataError: the layout is unknown, a field is missing, a text is empty, or a number is not finite. The message
            names the file and the line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: No such file or directory.")
    if not path.is_dir():
        return _read_table(path)
    if _is_beir(path):
        return _read_beir(path, split)
    if (file := find_split(path, split)) is None:
        raise DataError(
            f"{path}: holds neither a corpus.jsonl (BEIR's layout) nor a {split}.csv, {split}.tsv or {split}.jsonl."
        )
    return _read_table(file)


def of_rows(rows: Sequence[Mapping[str, Any]], name: Callable[[int], str]) -> Task:
    """Return the task of rows that no file holds, by the rules of files.

    Args:
        rows: fields by name; at least one row.
        name: what a row is called in messages.

    Raises:
        DataError: as for `read`; it names rows, and `row` is the first one at fault.
    """
    return _task(_Rows(enumerate(rows), name), name)


def find_split(folder: Path, split: str) -> Path | None:
    """Return the path to `read` for a split of a folder: a file, or the folder itself in BEIR's layout."""
    if _is_beir(folder):
        return folder if _qrels(folder, split).exists() else None
    files = (folder / f"{split}{suffix}" for suffix in _DELIMITERS)
    return next((file for file in files if file.exists()), None)


def _is_beir(folder: Path) -> bool:
    return (folder / "corpus.jsonl").exists()


def _qrels(folder: Path, split: str) -> Path:
    return folder / "qrels" / f"{split}.tsv"


def _read_table(path: Path) -> Task:
    return _task(_Table(path), lambda _: str(path))


def _task(rows: _Rows, first: Callable[[int], str]) -> Task:
    """Return the task of the first kind whose columns rows have; `first` names that whose fields are at fault."""
    kind = next((kind for kind in KINDS if rows.columns.issuperset(dict(kind.columns))), None)
    if kind is None:
        found = sorted(rows.columns)
        fields = ", ".join([*map(shown, found[:_MAX_FIELDS]), *(["..."] if found[_MAX_FIELDS:] else [])])
        raise DataError(
            f"{first(0)}: has the fields {fields or '(none)'}. It needs "
            f"{'; or '.join(_listed(dict(kind.columns)) for kind in KINDS)}.",
            row=0,
        )
    values = [[rows.value(row, *column) for column in kind.columns] for row in rows]
    rows.raise_problems()
    return kind(*zip(*values, strict=True))


def _listed(words: Mapping[str, Any]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}"


def _read_beir(folder: Path, split: str) -> Retrieval:
    corpus, asked = _Table(folder / "corpus.jsonl"), _Table(folder / "queries.jsonl")
    documents = {}
    for row in corpus:
        content = f"{row.get('title') or ''} {row.get('text') or ''}".strip()
        if is_visible(content):
            documents[corpus.value(row, "_id", text)] = content
    queries = {asked.value(row, "_id", text): asked.value(row, "text", text) for row in asked}
    qrels = _Table(_qrels(folder, split))
    relevance: dict[str, dict[str, int]] = {}
    for row in qrels:
        query, document = qrels.value(row, "query-id", text), qrels.value(row, "corpus-id", text)
        grade = int(qrels.value(row, "score", number) or 0)
        if query not in queries:
            qrels.add_problem(f"query-id {query!r} is not in queries.jsonl")
        elif grade > 0 and document in documents:
            relevance.setdefault(query, {})[document] = grade
    for table in (corpus, asked, qrels):
        table.raise_problems()
    if not relevance:
        raise DataError(f"{folder}: no query has a relevant document in qrels/{split}.tsv.")
    return Retrieval(documents, queries, relevance)


class _Rows:
    """Rows by number. Problems are collected, so that one run reports several of them."""

    def __init__(self, rows: Iterable[tuple[int, Mapping[str, Any]]], name: Callable[[int], str]) -> None:
        self._rows = list(rows)
        self._name = name
        self._number = 0
        self._problems: list[str] = []
        self._first: int | None = None

    @property
    def columns(self) -> set[str]:
        """The fields of the first row."""
        return {column for column in self._rows[0][1] if column}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for place, row in self._rows:
            self._number = place
            yield row

    def value(self, row: Mapping[str, Any], column: str, parse: Parser) -> Any:
        """Parse a field of the current row; empty where it has a problem."""
        try:
            return parse(row.get(column))
        except ValueError as problem:
            self.add_problem(f"{column} {problem}")
            return ""

    def add_problem(self, problem: str) -> None:
        """Note a problem of the current row."""
        if self._first is None:
            self._first = self._number
        self._problems.append(f"{self._name(self._number)}: {problem}.")
        if len(self._problems) == _MAX_PROBLEMS:
            self.raise_problems()

    def raise_problems(self) -> None:
        """Raise `DataError` if there were problems."""
        if self._problems:
            raise DataError("\n".join(self._problems), row=self._first)


class _Table(_Rows):
    """The rows of a file, by line."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in _DELIMITERS:
            raise DataError(f"{path}: data files end in {', '.join(_DELIMITERS)}.")
        try:
            rows = _json_lines(path) if path.suffix == ".jsonl" else _delimited(path)
            super().__init__(rows, lambda line: f"{path}: line {line}")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not valid UTF-8 at byte {error.start + 1}.") from None
        except csv.Error as error:
            raise DataError(f"{path}: {error}.") from None
        if not self._rows:
            raise DataError(f"{path}: holds no data.")


def _delimited(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=_DELIMITERS[path.suffix] or ",")
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}: line {line_number}: is not JSON ({error.msg}).") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {line_number}: each line is one JSON object.")
            yield line_number, row

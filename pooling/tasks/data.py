"""The data that poolings are measured and fitted on, read from files of the usual layouts.

| what | file |
|---|---|
| scored pairs | CSV, TSV or JSON lines with `sentence1`, `sentence2`, `score` |
| positive pairs | the same with `anchor`, `positive` |
| labelled texts | the same with `text`, `label` |
| retrieval | a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` |

A folder with `train`, `dev` and `test` files of pairs or labels is a data set with splits.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FORMATS: Final = {".csv": ",", ".tsv": "\t", ".jsonl": None}
_PAIRS: Final = ("sentence1", "sentence2", "score")
_POSITIVES: Final = ("anchor", "positive")
_LABELLED: Final = ("text", "label")
_MOST_PROBLEMS: Final = 10


class DataError(ValueError):
    """A file cannot be used as data; the message names the file, the line, and what would be right."""


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of texts, and how alike each is: any scale, higher is more alike."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def texts(self) -> list[str]:
        """Every text once, in the order of the pairs."""
        return list(dict.fromkeys([*self.first, *self.second]))


@dataclass(frozen=True)
class PositivePairs:
    """Pairs of texts that belong together."""

    anchors: tuple[str, ...]
    positives: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Every text once."""
        return list(dict.fromkeys([*self.anchors, *self.positives]))

    @property
    def retrieval(self) -> Retrieval:
        """The same as a search for each anchor's positives among all of them, each text once."""
        documents = {text: str(place) for place, text in enumerate(dict.fromkeys(self.positives))}
        relevance: dict[str, dict[str, int]] = {}
        for anchor, positive in zip(self.anchors, self.positives, strict=True):
            relevance.setdefault(anchor, {})[documents[positive]] = 1
        queries = {str(place): anchor for place, anchor in enumerate(relevance)}
        grades = {str(place): found for place, found in enumerate(relevance.values())}
        return Retrieval({place: text for text, place in documents.items()}, queries, grades)


@dataclass(frozen=True)
class Labelled:
    """Texts, each of a class."""

    items: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Every text once."""
        return list(dict.fromkeys(self.items))


@dataclass(frozen=True)
class Retrieval:
    """Documents and queries by id, and for each query the grades of its relevant documents, above 0."""

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevance: Mapping[str, Mapping[str, int]]

    @property
    def texts(self) -> list[str]:
        """Every text once."""
        return list(dict.fromkeys([*self.documents.values(), *self.queries.values()]))


Data = ScoredPairs | PositivePairs | Labelled | Retrieval


def read(path: str | Path, split: str = "test") -> Data:
    """Read a file, or of a folder the given split.

    Documents without a text are left out of retrieval data, and with them what is judged of them.

    Raises:
        DataError: nothing of the layouts above, a field is missing, a text is empty, or a number is not finite.

    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    if (path / "corpus.jsonl").exists():
        return _read_beir(path, split)
    return _read_file(split_file(path, split))


def split_file(folder: Path, split: str) -> Path:
    """The file of a split in a folder; raises `DataError` where there is none."""
    for ending in _FORMATS:
        if (file := folder / f"{split}{ending}").exists():
            return file
    raise DataError(
        f"{folder}: holds neither a corpus.jsonl (BEIR's layout) nor a {split}.csv, {split}.tsv or {split}.jsonl."
    )


def _read_file(path: Path) -> ScoredPairs | PositivePairs | Labelled:
    rows = _Rows(path)
    for fields in (_PAIRS, _POSITIVES, _LABELLED):
        if rows.columns.issuperset(fields):
            break
    else:
        raise DataError(
            f"{path}: has the fields {', '.join(sorted(rows.columns)) or '(none)'}. It needs sentence1, sentence2 "
            "and score; or anchor and positive; or text and label."
        )
    if fields == _PAIRS:
        found = [(rows.text(row, "sentence1"), rows.text(row, "sentence2"), rows.score(row)) for row in rows]
    elif fields == _POSITIVES:
        found = [(rows.text(row, "anchor"), rows.text(row, "positive"), 0.0) for row in rows]
    else:
        found = [(rows.text(row, "text"), rows.text(row, "label"), 0.0) for row in rows]
    rows.finish()
    first, second, scores = zip(*found, strict=True)
    if fields == _PAIRS:
        return ScoredPairs(first, second, scores)
    return PositivePairs(first, second) if fields == _POSITIVES else Labelled(first, second)


def _read_beir(folder: Path, split: str) -> Retrieval:
    corpus, asked = _Rows(folder / "corpus.jsonl"), _Rows(folder / "queries.jsonl")
    documents = {}
    for row in corpus:
        text = f"{row.get('title') or ''} {row.get('text') or ''}".strip()
        if text:
            documents[corpus.text(row, "_id")] = text
    queries = {asked.text(row, "_id"): asked.text(row, "text") for row in asked}
    judged = _Rows(folder / "qrels" / f"{split}.tsv")
    relevance: dict[str, dict[str, int]] = {}
    for row in judged:
        query, document = judged.text(row, "query-id"), judged.text(row, "corpus-id")
        score = judged.score(row)
        grade = int(score) if math.isfinite(score) else 0
        if query not in queries:
            judged.problem(f"query-id {query!r} is not in queries.jsonl")
        elif grade > 0 and document in documents:
            relevance.setdefault(query, {})[document] = grade
    for rows in (corpus, asked, judged):
        rows.finish()
    if not relevance:
        raise DataError(f"{folder}: no query has a relevant document in qrels/{split}.tsv.")
    return Retrieval(documents, queries, relevance)


class _Rows:
    """The rows of a file. Problems are gathered, so that one run names several."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.suffix not in _FORMATS:
            raise DataError(f"{path}: data files end in {', '.join(_FORMATS)}.")
        try:
            self._rows = list(_json_lines(path) if path.suffix == ".jsonl" else _table(path))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not valid UTF-8 at byte {error.start + 1}.") from None
        except csv.Error as error:
            raise DataError(f"{path}: {error}.") from None
        if not self._rows:
            raise DataError(f"{path}: holds no data.")
        self.columns = {field for field in self._rows[0][1] if field}
        self._line = 0
        self._problems: list[str] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line, row in self._rows:
            self._line = line
            yield row

    def text(self, row: Mapping[str, Any], field: str) -> str:
        """A field of the row at hand that must hold a text."""
        value = row.get(field)
        if isinstance(value, str) and value.strip():
            return value
        if field == "label" and isinstance(value, int):
            return str(value)
        self.problem(f"{field} is {'empty' if value in (None, '') or isinstance(value, str) else 'no text'}")
        return ""

    def score(self, row: Mapping[str, Any]) -> float:
        """The score of the row at hand."""
        value = row.get("score")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            self.problem(f"score is {value!r}, which is no finite number")
        return number

    def problem(self, what: str) -> None:
        """Note what is wrong with the row at hand."""
        self._problems.append(f"{self._path}: line {self._line}: {what}.")
        if len(self._problems) == _MOST_PROBLEMS:
            self.finish()

    def finish(self) -> None:
        """Raise `DataError` where there were problems."""
        if self._problems:
            raise DataError("\n".join(self._problems))


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=_FORMATS[path.suffix] or ",")
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}: line {number}: is not JSON ({error.msg}).") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number}: each line is one JSON object.")
            yield number, row

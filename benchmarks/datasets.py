"""STS-B and Cranfield, read where they are."""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


class MissingData(SystemExit):
    """The data sets are not there; as the end of a script it is its message."""


def folder() -> Path:
    """The folder with `stsb-en/` and `cranfield/`: `MILLPOND_DATA`, or `shared/data` beside the project.

    Raises:
        MissingData: it is not there.

    """
    found = Path(os.environ.get("MILLPOND_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (found / "stsb-en" / "test.csv").exists():
        raise MissingData(f"no data in {found}; set MILLPOND_DATA to a folder with stsb-en/ and cranfield/")
    return found


def sts_pairs(split: str = "test") -> list[tuple[str, str, float]]:
    """Sentence pairs of STS-B with their similarity, 0 to 5."""
    with (folder() / "stsb-en" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        return [(row["sentence1"], row["sentence2"], float(row["score"])) for row in csv.DictReader(file)]


def sts_sentences() -> list[str]:
    """The sentences of STS-B's test split, in the order of the pairs."""
    return [sentence for first, second, _ in sts_pairs() for sentence in (first, second)]


@dataclass(frozen=True)
class Retrieval:
    """A retrieval data set: documents, queries, and how relevant which document is to which query."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevance: dict[str, dict[str, int]]


def cranfield() -> Retrieval:
    """Cranfield in BEIR's layout; a document is `title + " " + text`."""
    root = folder() / "cranfield"
    documents = {item["_id"]: f"{item['title']} {item['text']}".strip() for item in _lines(root / "corpus.jsonl")}
    queries = {item["_id"]: item["text"] for item in _lines(root / "queries.jsonl")}
    relevance: defaultdict[str, dict[str, int]] = defaultdict(dict)
    with (root / "qrels" / "test.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            relevance[row["query-id"]][row["corpus-id"]] = int(row["score"])
    return Retrieval(documents, queries, dict(relevance))


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

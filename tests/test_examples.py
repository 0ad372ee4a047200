"""The example data: it can be read, its parts fit together, and no split leaks into another."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from pooling.tasks import Classification, Retrieval, Similarity, Task, read
from service.cli.sources import Row, open_source

EXAMPLES = Path(__file__).parents[1] / "examples"
PAIR_SPLITS = {"train": 120, "dev": 40, "test": 60}
LABEL_SPLITS = {"train": 56, "test": 48}


def pairs(split: str) -> Similarity:
    data = read(EXAMPLES / "pairs", split)
    assert isinstance(data, Similarity)
    return data


def labelled(split: str) -> Classification:
    data = read(EXAMPLES / "labels", split)
    assert isinstance(data, Classification)
    return data


def texts(task: Task) -> set[str]:
    return {text for part in task.parts for text in part.texts}


def retrieval() -> Retrieval:
    data = read(EXAMPLES / "search")
    assert isinstance(data, Retrieval)
    return data


@pytest.mark.parametrize(("split", "size"), PAIR_SPLITS.items())
def test_scores_cover_the_whole_scale(split: str, size: int) -> None:
    scores = pairs(split).scores
    assert len(scores) == size
    assert set(scores) == {half / 2 for half in range(11)}


def test_no_sentence_occurs_twice() -> None:
    texts = [text for split in PAIR_SPLITS for text in (*pairs(split).first, *pairs(split).second)]
    assert _repeated(texts) == []


def test_labels_are_balanced_and_the_same_in_both_splits() -> None:
    train, test = (Counter(labelled(split).labels) for split in LABEL_SPLITS)
    assert train.keys() == test.keys()
    assert set(train.values()) == {LABEL_SPLITS["train"] // len(train)}
    assert set(test.values()) == {LABEL_SPLITS["test"] // len(test)}


def test_no_labelled_text_occurs_twice() -> None:
    assert _repeated([text for split in LABEL_SPLITS for text in labelled(split).texts]) == []


def test_documents_can_be_indexed_and_filtered() -> None:
    rows = list(open_source(EXAMPLES / "search"))
    found = [row.document for row in rows if isinstance(row, Row)]
    assert len(rows) == len(found) == 80
    assert _repeated([document["id"] for document in found]) == []
    assert _repeated([document["text"] for document in found]) == []
    for document in found:
        metadata = document["metadata"]
        assert document["text"] and metadata.keys() == {"topic", "year", "title"}
        assert document["id"].startswith(f"{metadata['topic']}-")
        assert 2015 <= metadata["year"] <= 2025
    assert {document["metadata"]["topic"] for document in found} == set(labelled("test").labels)


def test_judgements_name_existing_queries_and_documents() -> None:
    data, folder = retrieval(), EXAMPLES / "search"
    lines = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    judged = [tuple(line.split("\t")) for line in lines]
    assert len(data.queries) == len((folder / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    assert _repeated([(query, document) for query, document, _ in judged]) == []
    assert {query for query, _, _ in judged} == set(data.queries)
    assert {document for _, document, _ in judged} <= set(data.documents)
    assert {grade for _, _, grade in judged} == {"1", "2"}


def test_every_query_has_an_answer_and_many_have_several() -> None:
    relevance = retrieval().relevance
    assert all(2 in grades.values() for grades in relevance.values())
    assert sum(len(grades) > 1 for grades in relevance.values()) > len(relevance) / 2
    assert _repeated(list(retrieval().queries.values())) == []


def test_the_sets_share_no_text() -> None:
    sets = [
        {text for split in PAIR_SPLITS for text in texts(pairs(split))},
        {text for split in LABEL_SPLITS for text in texts(labelled(split))},
        texts(retrieval()),
    ]
    assert [one & other for one, other in combinations(sets, 2)] == [set()] * 3


def test_texts_are_plain_sentences() -> None:
    """One alphabet and one kind of quotation mark, each text ending as a sentence does."""
    sentences = [text for split in PAIR_SPLITS for text in texts(pairs(split))]
    sentences += [text for split in LABEL_SPLITS for text in labelled(split).texts]
    sentences += retrieval().documents.values()
    assert [text for text in sentences if not text.isascii() or text[-1] not in ".?" or "  " in text] == []


def _repeated(values: list) -> list:
    return [value for value, count in Counter(values).items() if count > 1]

"""Data files: what is read, and what is said of a bad one."""

from __future__ import annotations

import json

import pytest

from pooling.tasks import Classification, DataError, PositivePairs, Retrieval, Similarity, read


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def texts(labelled):
    assert isinstance(labelled, Classification)
    return dict(zip(labelled.texts, labelled.labels, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'sentence1,sentence2,score\n"One, two",Uno,4.5\nThree,Tres,0\n'),
        ("a.tsv", "score\tsentence1\tsentence2\n4.5\tOne, two\tUno\n0\tThree\tTres\n"),
        (
            "a.jsonl",
            '{"sentence1": "One, two", "sentence2": "Uno", "score": 4.5}\n\n'
            '{"sentence1": "Three", "sentence2": "Tres", "score": 0, "more": 1}\n',
        ),
    ],
)
def test_scored_pairs(tmp_path, name, text):
    pairs = read(write(tmp_path / name, text))
    assert isinstance(pairs, Similarity)
    assert (pairs.first, pairs.second, pairs.scores.tolist()) == (("One, two", "Three"), ("Uno", "Tres"), [4.5, 0.0])


def test_a_byte_order_mark_is_no_part_of_a_field(tmp_path):
    assert texts(read(write(tmp_path / "a.csv", "\ufefftext,label\nHello,x\n"))) == {"Hello": "x"}


def test_positive_pairs_and_labels(tmp_path):
    pairs = read(write(tmp_path / "a.csv", "anchor,positive\na,b\na,c\n"))
    assert isinstance(pairs, PositivePairs)
    assert (pairs.anchors, pairs.positives) == (("a", "a"), ("b", "c"))
    labels = read(write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n'))
    assert texts(labels) == {"a": "1", "b": "x"}


def test_a_folder_has_splits(tmp_path):
    write(tmp_path / "train.csv", "text,label\na,x\n")
    write(tmp_path / "test.jsonl", '{"text": "b", "label": "y"}\n')
    assert texts(read(tmp_path, "train")) == {"a": "x"}
    assert texts(read(tmp_path)) == {"b": "y"}
    with pytest.raises(DataError, match=r"nor a dev\.csv, dev\.tsv or dev\.jsonl"):
        read(tmp_path, "dev")


def beir(folder, qrels="query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq1\td3\t1\n"):
    documents = [
        {"_id": "d1", "title": "Title", "text": "text"},
        {"_id": "d2", "text": "two"},
        {"_id": "d3", "title": "", "text": " "},
    ]
    write(folder / "corpus.jsonl", "".join(json.dumps(each) + "\n" for each in documents))
    write(folder / "queries.jsonl", '{"_id": "q1", "text": "one?"}\n{"_id": "q2", "text": "two?"}\n')
    write(folder / "qrels" / "test.tsv", qrels)
    return folder


def test_beir_leaves_out_documents_without_text_and_grades_of_zero(tmp_path):
    data = read(beir(tmp_path))
    assert isinstance(data, Retrieval)
    assert data.documents == {"d1": "Title text", "d2": "two"}
    assert data.queries == {"q1": "one?", "q2": "two?"}
    assert data.relevance == {"q1": {"d1": 2}}


def test_beir_without_judgements_is_no_data(tmp_path):
    with pytest.raises(DataError, match="no query has a relevant document"):
        read(beir(tmp_path, "query-id\tcorpus-id\tscore\nq1\td2\t0\n"))
    with pytest.raises(DataError, match=r"test\.tsv: line 2: query-id 'q9' is not in queries\.jsonl"):
        read(beir(tmp_path, "query-id\tcorpus-id\tscore\nq9\td1\t1\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "sentence1,sentence2,score\na,b,nan\n",
            r"a\.csv: line 2: score is 'nan', which is no finite number",
        ),
        ("a.csv", "sentence1,sentence2,score\na,b,\n", "line 2: score is '', which is no finite number"),
        ("a.csv", "sentence1,sentence2,score\na,b,1\n ,b,2\n", "line 3: sentence1 is empty"),
        ("a.csv", "sentence1,sentence2,score\na,b\n", "line 2: score is None"),
        ("a.csv", "one,two\na,b\n", "has the fields one, two. It needs sentence1, sentence2 and score"),
        ("a.csv", "", "holds no data"),
        ("a.csv", "text,label\n", "holds no data"),
        ("a.txt", "text", r"data files end in \.csv, \.tsv, \.jsonl"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": 5, "label": "x"}\n', "line 2: text is no text"),
        (
            "a.jsonl",
            '{"text": "a", "label": "x"}\n{"text": "\\u200b", "label": "x"}\n',
            "line 2: text holds nothing but",
        ),
        ("a.tsv", "text\tlabel\n\x01\u2060\tx\n", "line 2: text holds nothing but"),
        (
            "a.jsonl",
            '{"text": "a \\ud800", "label": "x"}\n',
            "line 1: text holds half of a surrogate pair at character 2",
        ),
        ("a.jsonl", "[1]\n", "line 1: each line is one JSON object"),
        ("a.jsonl", "{\n", "line 1: is not JSON"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, text))


def test_several_problems_are_named_at_once_up_to_ten(tmp_path):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.csv", "text,label\n" + " ,x\n" * 30))
    assert str(caught.value).count("text is empty") == 10


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff,x\n")
    with pytest.raises(DataError, match="not valid UTF-8 at byte 12"):
        read(tmp_path / "a.csv")
    for missing in ("b.csv", "b", "b.txt"):
        with pytest.raises(DataError, match=f"{missing}: No such file or directory"):
            read(tmp_path / missing)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_byte_order_mark_before_a_table_is_skipped(tmp_path, name):
    rows = [{"text": f"text {n}", "label": str(n % 2)} for n in range(3)]
    tabular = "".join(f"{cells}\n" for cells in ["text,label", *(",".join(row.values()) for row in rows)])
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    content = lines if name.endswith("jsonl") else tabular.replace(",", "\t" if name.endswith("tsv") else ",")
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert read(tmp_path / name).parts[0].texts == [row["text"] for row in rows]

"""The formats that `millpond index` reads, and what is wrong in them."""

from __future__ import annotations

import gzip
import json
import os
import sys

import numpy as np
import pytest

from service.cli.console import Failure
from service.cli.sinks import open_sink
from service.cli.sources import Problem, Row, open_source
from service.cli.sources.seen import Seen
from tests.support.tiers import first_fast

A = {"id": "a", "text": "A harp.", "metadata": {"year": 2012, "lang": "en"}}
B = {"id": "b", "text": "A cat.", "metadata": {}}


def documents(path):
    source = open_source(path)
    found = list(source)
    assert all(isinstance(row, Row) for row in found), found
    assert source.read == pytest.approx(1) or path.is_dir()
    return [row.document for row in found]


def problems(path):
    return [(row.place, row.reason) for row in open_source(path) if isinstance(row, Problem)]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_json_lines_compressed_or_not(tmp_path):
    for name, content in (("d.jsonl", lines(A, B)), ("d.jsonl.gz", gzip.compress(lines(A, B)))):
        (tmp_path / name).write_bytes(content)
        assert documents(tmp_path / name) == [A, B]
    (tmp_path / "two.gz").write_bytes(gzip.compress(lines(A)) + gzip.compress(lines(B)))
    assert documents(tmp_path / "two.gz") == [A, B]


@pytest.mark.parametrize(
    ("name", "package", "module"),
    [("d.jsonl.zst", "zstandard", "zstandard"), ("d.parquet", "pyarrow", "pyarrow.parquet")],
)
def test_a_package_that_is_not_there(tmp_path, monkeypatch, name, package, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(Failure, match=rf"takes the package {package}. Install it: `pip install {package}`"):
        list(open_source(tmp_path / name))


def test_zstandard(tmp_path):
    path = tmp_path / "d.jsonl.zst"
    zstandard = pytest.importorskip("zstandard", reason="the extra 'bulk' is not installed")
    path.write_bytes(zstandard.compress(lines(A)) + zstandard.compress(lines(B)))
    assert documents(path) == [A, B]
    path.write_bytes(zstandard.compress(lines(A, B))[:-5])
    with pytest.raises(Failure, match="damaged"):
        list(open_source(path))


@pytest.mark.parametrize(
    "content", [gzip.compress(lines(A) * 5000)[:-20], b"no gzip at all", b"\x1f\x8b\x08\x00half"]
)
def test_a_damaged_archive(tmp_path, content):
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"d.jsonl.gz is damaged, and cannot be read further"):
        list(open_source(path))


@pytest.mark.parametrize(("name", "separator"), [("d.csv", ","), ("d.tsv", "\t"), ("d.csv.gz", ",")])
def test_tables(tmp_path, name, separator):
    rows = [
        ["id", "text", "year", "lang", "post code"],
        ["a", "A harp.", "2012", "en", ""],
        ["b", '"A\ncat."', "", "", "01099"],
    ]
    content = "\ufeff" + "".join(separator.join(row) + "\r\n" for row in rows)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    assert documents(path) == [A, {"id": "b", "text": "A\ncat.", "metadata": {"post code": "01099"}}]


def test_columns_that_are_fields(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('_id,title,text,metadata,price\n1,Harps,Strings.,"{""a"": [1]}",-2.50\n2,,Alone,,1e3\n')
    assert documents(path) == [
        {"id": "1", "text": "Harps Strings.", "metadata": {"a": [1], "price": -2.5, "title": "Harps"}},
        {"id": "2", "text": "Alone", "metadata": {"price": "1e3"}},
    ]


def test_bad_rows_of_a_table(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(b'id,text,metadata\na,fine,\nb\nc,\xff,\nd,x,[1]\ne,x,{\n,x,\nf,"x"y,\ng,fine,\n')
    assert problems(path) == [
        ("line 3", "has 1 cells, and the first line names 3 columns."),
        ("line 4", "'text' is not valid UTF-8. Save the file as UTF-8."),
        ("line 5", "'metadata' is an array. It must be a JSON object."),
        ("line 6", "'metadata' is not JSON (unexpected end of data: line 1 column 2 (char 1))."),
        ("line 7", "document id '': an id has 1 to 512 characters, none of them NUL or half of a surrogate pair."),
        ("line 8", "is no CSV (',' expected after '\"')."),
    ]
    assert [row.id for row in open_source(path) if isinstance(row, Row)] == ["a", "g"]


@pytest.mark.parametrize(
    ("header", "message"),
    [("ident,text", "no column 'id'"), ("id,txt", "no column 'text'. Did you mean 'txt'"), ("id,text,text", "twice")],
)
def test_headers_of_a_table(tmp_path, header, message):
    (tmp_path / "d.csv").write_text(f"{header}\na,b,c\n")
    with pytest.raises(Failure, match=message):
        list(open_source(tmp_path / "d.csv"))


def test_a_folder_of_texts(tmp_path):
    for name, content in {
        "b.md": b"# A cat",
        "a/harp.txt": b"\xef\xbb\xbfA harp.",
        "a/bad.TXT": b"\xff",
        ".git/x.txt": b"hidden",
        "image.png": b"no text",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path)
    assert [row.document for row in source if isinstance(row, Row)] == [
        {"id": "a/harp.txt", "text": "A harp.", "metadata": {}},
        {"id": "b.md", "text": "# A cat", "metadata": {}},
    ]
    assert problems(tmp_path) == [("file a/bad.TXT", "is not valid UTF-8 at byte 1. Save it as UTF-8.")]
    assert source.read == 1
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(lines({"_id": "1", "text": "of BEIR"})))
    assert [row.id for row in open_source(tmp_path) if isinstance(row, Row)] == ["1"]


def test_a_folder_is_read_in_the_order_of_its_paths_whatever_that_of_the_disk_is(tmp_path):
    names = ["B.md", "a-b.md", "a.md", "a/b.md", "a/c/d.txt", "ab/a.md", "é.md", "\U0001d11e.md"]
    for number in range(8):
        folder = tmp_path / str(number)
        for name in np.random.default_rng(number).permutation(names).tolist():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("A harp.")
        assert [row.id for row in open_source(folder) if isinstance(row, Row)] == names


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.md")
    (tmp_path / "b.md").write_text("A cat.")
    assert problems(tmp_path) == [("file a.md", "is a pipe or a device, and no file.")]
    assert [row.id for row in open_source(tmp_path) if isinstance(row, Row)] == ["b.md"]


def test_a_line_that_is_too_long_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("service.cli.sources.lines.MOST_BYTES", 1 << 20)
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines(A) + b"[" + b"1," * (2 << 20) + b"1]\n" + lines(B))
    assert problems(path) == [("line 2", "has more than 1 MiB. Each line is one document.")]
    assert [row.number for row in open_source(path) if isinstance(row, Row)] == [1, 3]


def test_vectors_and_their_fingerprint_are_sent(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines({"id": "a", "vector": [1.0], "fingerprint": "foreign"}))
    assert documents(path) == [{"id": "a", "text": "", "metadata": {}, "vector": [1.0], "fingerprint": "foreign"}]


def test_a_text_that_is_null_beside_a_vector_is_none(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines({"id": "a", "text": None, "vector": [1.0]}, {"id": "b", "text": None}))
    assert [row.document for row in open_source(path) if isinstance(row, Row)] == [
        {"id": "a", "text": "", "metadata": {}, "vector": [1.0]}
    ]
    assert problems(path) == [("line 2", "'text' is null. It must be a string.")]


def test_parquet(tmp_path):
    path = tmp_path / "d.parquet"
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'bulk' is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {
        "id": ["a", "b"],
        "text": ["A harp.", "A cat."],
        "year": [2012, None],
        "tags": [["x"], []],
        "metadata": ['{"n": 1}', None],
        "vector": [[1.0, 0.5], [0.0, 2.0]],
    }
    parquet.write_table(pyarrow.table(table), path)
    assert documents(path) == [
        {"id": "a", "text": "A harp.", "metadata": {"n": 1, "year": 2012, "tags": ["x"]}, "vector": [1.0, 0.5]},
        {"id": "b", "text": "A cat.", "metadata": {"tags": []}, "vector": [0.0, 2.0]},
    ]


@pytest.mark.parametrize("count", first_fast([1000, 600_000]))
def test_ids_are_remembered(count):
    seen = Seen()
    assert all(seen.add(f"id {number}") for number in range(count))
    assert not any(seen.add(f"id {number}") for number in range(0, count, 997))
    assert seen.add("another")


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.parquet"])
def test_what_an_export_writes_is_read_as_it_was(tmp_path, name):
    pytest.importorskip({"zst": "zstandard", "parquet": "pyarrow"}.get(name.rpartition(".")[2], "json"))
    whole = [
        {"id": "a", "text": "A\u2028harp.", "metadata": {"n": [1, None]}, "vector": [0.5, 2.0], "fingerprint": "f"}
    ]
    cut = [{"id": "a", "text": "A harp.", "metadata": {}, "spans": [[0, 1], [2, 7]], "vectors": [[0.5], [2.0]]}]
    for number, rows in enumerate((whole, cut, [A, B], [])):
        path = tmp_path / f"{number}.{name}"
        with open_sink(path, path) as sink:
            for row in rows:
                sink.write(json.dumps(row).encode())
        assert [row.document for row in open_source(path)] == rows

"""`millpond embed-dataset`: files in, files of vectors out, begun, stopped and gone on with."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.console import Failure
from service.cli.sources import open_source
from service.embedding.embedder import Embedder
from service.errors import ServiceError
from tests.support import checkpoints
from tests.support.checkpoints import TEXTS

from .conftest import COMMAND, ROOT

arrow = pytest.importorskip("pyarrow", reason="the extra 'bulk' is not installed: pip install 'millpond[bulk]'")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small BERT, whose tokenizer leaves out a character that is not seen, as those of most models do."""
    folder = checkpoints.plain_bert(tmp_path_factory.mktemp("model") / "bert")
    invisible = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    checkpoints.edit(folder / "tokenizer.json", normalizer=invisible)
    return folder


@pytest.fixture(scope="module")
def embedder(model):
    with Embedder.load(str(model), pooling="mean", runtime={"backend": "torch", "precision": "fp32"}) as loaded:
        yield loaded


@pytest.fixture
def embed(model, tmp_path, monkeypatch):
    """Embeds an input in this process; gives the exit status and what is told."""
    monkeypatch.setenv("MILLPOND_RUNTIME__BACKEND", "torch")
    monkeypatch.setenv("MILLPOND_RUNTIME__PRECISION", "fp32")

    def run(source, *options, out=tmp_path / "out", rows=4):
        named = ["--model", str(model), "--block-rows", str(rows)]
        result = CliRunner().invoke(app, ["embed-dataset", str(source), str(out), *named, *options])
        if isinstance(result.exception, Failure | ServiceError):
            return getattr(result.exception, "exit_status", 2), str(result.exception)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, " ".join(result.output.split())  # unfolded

    return run


def rows_of(count, **more):
    return [{"id": f"d{n}", "text": f"{TEXTS[n % len(TEXTS)]} {n}", "year": 2000 + n, **more} for n in range(count)]


def table(folder):
    """What the files hold together, in the order of their names."""
    return arrow.concat_tables(parquet.read_table(file) for file in sorted(folder.glob("block-*.parquet")))


def vectors(found):
    return np.array(found["vector"].to_pylist(), np.float32)


def equal(left, right):
    """Whether tables are the same but for rounding, which is a matter of what shares a pass."""
    rest = [each.drop_columns(["vector"]) for each in (left, right)]
    return rest[0].equals(rest[1]) and np.allclose(vectors(left), vectors(right), atol=1e-5)


def times(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("block-*")}


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_come_out_in_order_with_the_vectors_of_their_texts(embed, embedder, jsonl, tmp_path):
    rows = rows_of(10)
    status, said = embed(jsonl(*rows))
    assert status == 0 and f"10 rows in 3 blocks of {tmp_path / 'out'}, 10 of them now" in said
    found = table(tmp_path / "out")
    assert found.drop_columns(["vector"]).to_pylist() == rows
    assert found.schema.field("vector").type == arrow.list_(arrow.float32(), embedder.dim)
    expected = embedder.encode_document([row["text"] for row in rows])
    np.testing.assert_allclose(vectors(found), expected, atol=1e-5)
    sizes = [parquet.read_metadata(file).num_rows for file in sorted((tmp_path / "out").glob("block-*"))]
    assert sizes == [4, 4, 2]
    about = json.loads(parquet.read_metadata(tmp_path / "out" / "block-000001.parquet").metadata[b"millpond"])
    assert about["fingerprint"] == embedder.fingerprint
    assert about["pooling"] == "mean" and about["block"] == 1 and about["model"].endswith("bert")


def test_what_is_written_is_not_made_again(embed, jsonl, tmp_path):
    source, out = jsonl(*rows_of(10)), tmp_path / "out"
    assert embed(source)[0] == 0
    whole, before = table(out), times(out)
    (out / "block-000001.parquet").unlink()
    (out / ".block-000001.parquet.0123abcd.partial").write_bytes(b"half of it")
    status, said = embed(source)
    assert status == 0 and "10 rows in 3 blocks" in said and "4 of them now" in said
    assert equal(table(out), whole)
    after = times(out)
    kept = sorted(name for name in before if after[name] == before[name])
    assert kept == ["block-000000.parquet", "block-000002.parquet"]
    assert not list(out.glob("*.partial"))
    status, said = embed(source)
    assert status == 0 and "of them now" not in said and times(out) == after


@pytest.mark.slow
def test_every_format_gives_the_same(embed, jsonl, tmp_path):
    rows = rows_of(10, tags=["a", 1], score=0.5, good=True, none=None)
    source = jsonl(*rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    kinds = {"tags": arrow.string(), "none": arrow.string()}
    found = [{**row, "tags": '["a", 1]'} for row in rows]
    columns = {name: arrow.array([row[name] for row in found], kinds.get(name)) for name in found[0]}
    parquet.write_table(arrow.table(columns), tmp_path / "table.parquet", row_group_size=3)
    outputs = []
    for name in ("documents.jsonl", "packed.jsonl.gz", "table.parquet"):
        out = tmp_path / f"out-{name}"
        assert embed(tmp_path / name, out=out)[0] == 0
        (out / "block-000001.parquet").unlink()  # read again from the middle of the file
        assert embed(tmp_path / name, out=out)[0] == 0
        outputs.append(table(out))
    assert outputs[0].drop_columns(["vector"]).to_pylist() == found
    assert equal(outputs[1], outputs[0])
    assert equal(outputs[2], outputs[0])


def test_files_of_a_folder_in_the_order_of_their_names(embed, jsonl, tmp_path):
    rows = rows_of(11)
    jsonl(*rows[:5], file="in/b/1.jsonl")
    jsonl(*rows[5:10], file="in/b/2.jsonl")
    jsonl(file="in/c.jsonl")
    jsonl({**rows[10], "extra": "more"}, file="in/d.ndjson")
    assert embed(tmp_path / "in", "--columns", "id, extra")[0] == 0
    found = table(tmp_path / "out")
    assert found.column_names == ["id", "extra", "vector"]
    assert found["id"].to_pylist() == [row["id"] for row in rows]
    assert found["extra"].to_pylist() == [None] * 10 + ["more"]


def test_a_member_of_several_types_is_json(embed, jsonl, tmp_path):
    rows = rows_of(5)
    for row, value in zip(rows, (1, 2.5, "three", None, 2**70), strict=True):
        row["any"] = value
        row["number"] = 2**62 if value == 1 else 1
        row["mixed"] = 0.5 if value == 1 else 1
    assert embed(jsonl(*rows))[0] == 0
    found = table(tmp_path / "out")
    assert found["any"].to_pylist() == ["1", "2.5", '"three"', None, str(2**70)]
    assert found["number"].to_pylist() == [2**62, 1, 1, 1, 1]
    assert found["mixed"].to_pylist() == [0.5, 1.0, 1.0, 1.0, 1.0]


BAD = [
    ('{"id": "1", "text": null}', "'text' is null. It must be a string."),
    ('{"id": "2", "text": ""}', "has no text."),
    ('{"id": "3", "text": 7}', "'text' is the number 7. It must be a string."),
    ('{"id": "4", "txt": "A mill."}', "has no 'text'. Did you mean 'txt'?"),
    ('{"id": "5", "text": ', "is not JSON"),
    ('{"id": "6", "text": "\u200b"}', "has no token that the model knows."),
    (
        json.dumps({"id": "7", "text": "wheel " * 70}),
        "the text has 72 tokens and the model takes 64. Give --truncate",
    ),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_row_that_cannot_be_embedded_ends_it_unless_it_is_left_out(embed, tmp_path, line, reason):
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    good = [json.dumps(row) for row in rows_of(7)]
    source.write_text("\n".join([*good[:5], line, *good[5:], ""]))
    status, said = embed(source)
    assert status == 1 and f"in.jsonl: line 6: {reason}" in said and "--on-error skip" in said
    assert f"1 of 2 blocks are written to {out}. Run the same command again" in said
    status, said = embed(source, "--on-error", "skip")
    assert status == 1 and "1 rows are left out" in said
    assert table(out)["id"].to_pylist() == [row["id"] for row in rows_of(7)]
    (left_out,) = lines(out / "block-000001.rejects.jsonl")
    assert left_out["file"] == "in.jsonl" and left_out["line"] == 6 and left_out["content"] == line
    assert left_out["reason"].startswith(reason)
    status, said = embed(source, "--on-error", "skip")
    assert status == 1 and "1 rows are left out" in said


def test_rows_left_out_between_others_leave_those_their_vectors(embed, embedder, tmp_path):
    source = tmp_path / "in.jsonl"
    good = rows_of(len(BAD) + 1)
    mixed = [line for row, (bad, _) in zip(good, BAD, strict=False) for line in (json.dumps(row), bad)]
    source.write_text("\n".join([*mixed, json.dumps(good[-1])]))
    status, said = embed(source, "--on-error", "skip", rows=100)
    assert status == 1 and f"{len(BAD)} rows are left out" in said
    found = table(tmp_path / "out")
    assert found["id"].to_pylist() == [row["id"] for row in good]
    np.testing.assert_allclose(vectors(found), embedder.encode_document(found["text"].to_pylist()), atol=1e-5)
    left_out = lines(tmp_path / "out" / "block-000000.rejects.jsonl")
    assert [entry["line"] for entry in left_out] == [2, 4, 6, 8, 10, 12, 14]


def test_a_text_that_is_too_long_is_cut_where_asked(embed, embedder, jsonl, tmp_path):
    row = {"id": "a", "text": "wheel " * 70}
    assert embed(jsonl(row), "--truncate")[0] == 0
    np.testing.assert_allclose(vectors(table(tmp_path / "out")), embedder.encode_document([row["text"]]), atol=1e-5)


def test_rows_of_parquet_at_fault(embed, tmp_path):
    found = arrow.table({"body": arrow.array(["A mill.", None, "", "A pond."]), "n": [1, 2, 3, 4]})
    parquet.write_table(found, tmp_path / "in.parquet")
    status, said = embed(tmp_path / "in.parquet", "--text-column", "body")
    assert status == 1 and "in.parquet: row 2: 'body' is null. It must be a string." in said
    assert embed(tmp_path / "in.parquet", "--text-column", "body", "--on-error", "skip")[0] == 1
    assert table(tmp_path / "out")["n"].to_pylist() == [1, 4]
    first, second = lines(tmp_path / "out" / "block-000000.rejects.jsonl")
    assert json.loads(first["content"]) == {"body": None, "n": 2} and second["reason"] == "has no text."


@pytest.mark.slow
def test_inputs_that_are_refused(embed, jsonl, tmp_path):
    row = rows_of(1)[0]
    numbers = arrow.table({"text": [1], "id": ["a"]})
    parquet.write_table(numbers, tmp_path / "numbers.parquet")
    jsonl({**row, "vector": [1.0]}, file="vectors.jsonl")
    jsonl(row, file="both/a.jsonl")
    parquet.write_table(numbers, tmp_path / "both" / "b.parquet")
    (tmp_path / "types").mkdir()
    for name, value in (("a", [1]), ("b", ["1"])):
        parquet.write_table(arrow.table({"text": ["A mill."], "id": value}), tmp_path / "types" / f"{name}.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    twice = arrow.Table.from_arrays([arrow.array(["A mill."])] * 3, names=["text", "id", "id"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "table.csv").write_text("id,text\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.jsonl").write_text('{"text": "A mill."}\n', encoding="utf-16")
    (tmp_path / "texts.jsonl").write_text("\nA mill.\n")
    for name, options, reason in (
        ("gone.jsonl", [], "gone.jsonl: No such file or directory. Give a file of JSON lines"),
        ("table.csv", [], "has another ending. Give a file of JSON lines"),
        ("empty", [], "holds no such file"),
        ("both", [], r"holds both Parquet \(b.parquet\) and JSON lines \(a.jsonl\)"),
        ("other.jsonl", [], r"other.jsonl: no line is an object with a text, .* Line 1: .*"),
        ("texts.jsonl", [], r"texts.jsonl: no line is an object with a text, .* Line 2: "),
        ("types", [], r"column 'id' is int64 in a.parquet and string in b.parquet"),
        ("broken.parquet", [], "cannot be read as Parquet"),
        ("twice.parquet", [], "has several columns 'id'"),
        ("numbers.parquet", [], "column 'text' of numbers.parquet holds int64, and no strings"),
        (
            "numbers.parquet",
            ["--text-column", "txt"],
            r"no column 'txt' \(--text-column\). Did you mean 'text'\? It has",
        ),
        (
            "numbers.parquet",
            ["--text-column", "id", "--columns", "ix"],
            r"no column 'ix' \(--columns\).* It has text, id",
        ),
        ("vectors.jsonl", [], "has a column 'vector' already.*--columns"),
        (jsonl(file="none.jsonl"), [], "holds no rows"),
        ("", [], "is a part of"),
    ):
        status, said = embed(tmp_path / name, *options)
        assert status == 2 and re.search(reason, said), said
        assert not list((tmp_path / "out").glob("*"))


@pytest.mark.slow
def test_folders_that_are_refused(embed, model, jsonl, tmp_path):
    source, out = jsonl(*rows_of(9)), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    status, said = embed(source)
    assert status == 2 and "holds other things (notes.txt)" in said and "new or an empty folder" in said
    (out / "notes.txt").unlink()
    status, said = embed(source, out=source)
    assert status == 2
    assert embed(source)[0] == 0
    before = times(out)
    for options, reason in (
        (["--pooling", "max"], r"with pooling mean, fingerprint \w+; .* with pooling max has fingerprint \w+"),
        (["--columns", "id"], "was begun with --columns id,text,year, which is id now"),
        (["--text-column", "id"], "was begun with --text-column 'text', which is 'id' now"),
    ):
        status, said = embed(source, *options)
        assert status == 2 and re.search(reason, said), said
    status, said = embed(source, rows=5)
    assert status == 2 and "was begun with --block-rows 4, which is 5 now" in said
    jsonl(*rows_of(9)[::-1])
    status, said = embed(source)
    assert status == 2 and "documents.jsonl of the input has changed since" in said
    jsonl(*rows_of(9))
    os.utime(source, (1, 1))  # the same bytes, copied
    assert embed(source)[0] == 0
    jsonl(*rows_of(1), file="in/documents.jsonl")
    jsonl(*rows_of(1), file="in/more.jsonl")
    assert "has changed since" in embed(tmp_path / "in")[1]
    assert times(out) == before
    other = tmp_path / "other"
    assert embed(source, "--columns", "id", out=other)[0] == 0
    (other / "block-000001.parquet").rename(out / "block-000001.parquet")
    status, said = embed(source)
    assert status == 2 and "block-000001.parquet is not what" in said
    (out / "block-000001.parquet").write_bytes(b"half")
    status, said = embed(source)
    assert status == 2 and "block-000001.parquet is damaged" in said
    (out / "millpond-dataset.json").write_text("{}")
    status, said = embed(source)
    assert status == 2 and "is no manifest" in said


def test_a_model_has_to_be_named(jsonl, tmp_path):
    result = CliRunner().invoke(app, ["embed-dataset", str(jsonl(*rows_of(1))), str(tmp_path / "out")])
    assert "no model is named" in str(result.exception)


def test_without_ray_the_command_that_installs_it(embed, jsonl, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    source = jsonl(*rows_of(1))
    for options in (["--ray"], ["--ray", "127.0.0.1:1"], ["--ray=auto"]):
        status, said = embed(source, *options)
        assert status == 2 and "Install it: `pip install 'millpond[ray]'`" in said
    first = CliRunner().invoke(app, ["embed-dataset", "--ray", str(source), "out", "--model", "x"])
    assert "Install it: `pip install 'millpond[ray]'`" in str(first.exception)


def test_a_full_disk(embed, jsonl, disk):
    full = disk(1 << 20)
    source = jsonl(*({**row, "more": random.Random(row["id"]).randbytes(5000).hex()} for row in rows_of(40)))
    full.fill(leave=18_000)
    status, said = embed(source, out=full.folder / "out")
    assert status == 1 and "No space left on device. Free some space" in said
    written = len(list((full.folder / "out").glob("block-*.parquet")))
    assert f"{written} of 10 blocks are written" in said and written < 10
    assert not list((full.folder / "out").glob("*.partial"))
    full.empty()
    assert embed(source, out=full.folder / "out")[0] == 0


def test_one_process_writes_to_a_folder(embed, jsonl, tmp_path):
    source = jsonl(*rows_of(3))
    assert embed(source)[0] == 0
    with (tmp_path / "out" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = embed(source)
    assert status == 1 and "another process writes to" in said


@pytest.mark.slow
def test_a_collection_takes_the_vectors_as_they_are(here, tmp_path, jsonl, monkeypatch):
    monkeypatch.setenv("MILLPOND_STORE__PATH", str(tmp_path / "store"))
    rows = [{"id": f"d{n}", "body": f"{TEXTS[n % 6]} {n}", "metadata": {"year": n}, "lang": "en"} for n in range(10)]
    out = tmp_path / "dataset"
    options = ["--config", str(tmp_path / "tiny.yaml"), "--text-column", "body", "--block-rows", "4"]
    done = CliRunner().invoke(app, ["embed-dataset", str(jsonl(*rows)), str(out), *options])
    assert done.exit_code == 0, done.output
    stored = here("index", str(out), "--collection", "c")
    assert stored.exit_code == 0 and "10 stored (0 unchanged)" in stored.output, stored.output
    assert here("export", "c", str(tmp_path / "c.jsonl"), "--vectors").exit_code == 0
    exported = {entry["id"]: entry for entry in lines(tmp_path / "c.jsonl")}
    found = table(out)
    for row, vector in zip(rows, vectors(found), strict=True):
        entry = exported[row["id"]]
        np.testing.assert_array_equal(np.array(entry["vector"], np.float32), vector)
        assert entry["text"] == row["body"] and entry["metadata"] == {**row["metadata"], "lang": "en"}
    # They are those that the collection would have made: indexed again by their text alone, nothing changes.
    again = here("index", str(out), "--collection", "c", "--embed-again")
    assert "10 stored (10 unchanged)" in again.output
    # A title is no part of what was embedded.
    titled = jsonl({"_id": "a", "title": "Mills", "text": "A mill."}, file="titled.jsonl")
    options = ["--config", str(tmp_path / "tiny.yaml")]
    assert CliRunner().invoke(app, ["embed-dataset", str(titled), str(tmp_path / "titled"), *options]).exit_code == 0
    (row,) = open_source(tmp_path / "titled")
    assert (row.id, row.document["text"], row.document["metadata"]) == ("a", "A mill.", {"title": "Mills"})
    (out / "block-000001.parquet").unlink()
    with pytest.raises(Failure, match=r"is not complete: 1 of 3 blocks are missing, block-000001.parquet the first"):
        open_source(out)


def test_vectors_of_another_model_are_refused(embed, here, jsonl, tmp_path, monkeypatch):
    monkeypatch.setenv("MILLPOND_STORE__PATH", str(tmp_path / "store"))
    assert embed(jsonl(*rows_of(3)))[0] == 0
    refused = here("index", str(tmp_path / "out"), "--collection", "c")
    assert refused.exit_code == 1 and "was made under fingerprint" in refused.output
    foreign = here("index", str(tmp_path / "out"), "--collection", "f", "--dimension", "24")
    assert foreign.exit_code == 0 and "3 stored" in foreign.output


@pytest.mark.slow
def test_interrupted_or_killed_it_goes_on(environment, model, jsonl, tmp_path):
    source, out = jsonl(*rows_of(8_000)), tmp_path / "out"
    command = [*COMMAND, "embed-dataset", str(source), str(out), "--model", str(model), "--block-rows", "100"]
    env = environment | {"MILLPOND_RUNTIME__BACKEND": "torch", "MILLPOND_RUNTIME__PRECISION": "fp32"}

    def begin(after):
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while len(times(out)) < after and process.poll() is None:
            time.sleep(0.01)
        return process

    first = begin(3)
    first.kill()
    first.communicate()
    killed = times(out)
    interrupted = begin(len(killed) + 3)
    interrupted.send_signal(signal.SIGINT)
    _, message = interrupted.communicate(timeout=60)
    assert interrupted.returncode in (130, -signal.SIGINT), message
    before = times(out)
    assert f"Interrupted: {len(before)} of 80 blocks are written to {out}. Run the same command again" in message
    assert len(before) < 80 and killed.items() <= before.items()
    last = begin(81)
    said, message = last.communicate(timeout=100)
    assert last.returncode == 0 and said.startswith("8000 rows in 80 blocks"), message
    assert before.items() <= times(out).items()
    assert table(out)["id"].to_pylist() == [row["id"] for row in rows_of(8_000)]


@pytest.mark.peers
def test_memory_is_flat_over_a_hundred_thousand_rows(environment, model, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    more = random.Random(0)
    with source.open("w") as file:
        for row in rows_of(100_000):
            file.write(json.dumps({**row, "more": more.randbytes(1500).hex()}) + "\n")  # 300 MB together
    command = [*COMMAND, "embed-dataset", str(source), str(out), "--model", str(model), "--block-rows", "1000"]
    env = environment | {"MILLPOND_RUNTIME__BACKEND": "torch", "MILLPOND_RUNTIME__PRECISION": "fp32"}
    process = psutil.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    resident = {}
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            resident[len(times(out))] = process.memory_info().rss
        time.sleep(0.1)
    assert process.returncode == 0 and process.stdout.read().startswith("100000 rows in 100 blocks")
    early = max(found for blocks, found in resident.items() if 5 <= blocks <= 20)
    late = max(found for blocks, found in resident.items() if blocks >= 80)
    print({blocks: found >> 20 for blocks, found in resident.items() if blocks % 10 == 0})
    assert late - early < 50 * 2**20

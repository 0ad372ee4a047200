"""`millpond index` and `millpond search`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time

import pytest

from tests.support.servers import ROOT, Server

from .conftest import COMMAND

SUMMARY = re.compile(r"(\d+) stored \((\d+) unchanged\), (\d+) empty skipped, [\d.]+ s, [\d.]+ documents/s\n")


def summary(result):
    assert result.returncode == 0, result.stderr
    found = SUMMARY.fullmatch(result.stdout)
    assert found, result.stdout
    return tuple(map(int, found.groups()))


def ids(result):
    assert result.returncode == 0, result.stderr
    return [hit["id"] for hit in json.loads(result.stdout)["hits"]]


def test_documents_are_stored_and_found(asking, few, name):
    stored = asking("index", few, "--collection", name)
    assert summary(stored) == (3, 0, 0)
    assert stored.stderr == ""  # no progress bar where no terminal is
    assert ids(asking("search", "music", "--collection", name, "--json"))[0] == "harp"
    assert ids(asking("search", "music", "--collection", name, "-k", 1, "--json")) == ["harp"]
    rerank = asking("search", "music", "--collection", name, "--rerank", "maxsim,depth=3", "-k", 2, "--json")
    assert [hit["parts"].keys() for hit in json.loads(rerank.stdout)["hits"]] == [{"dense"}] * 2
    refused = asking("search", "music", "--collection", name, "--rerank", "maxsim,deep=3")
    assert refused.returncode == 2 and "write it as maxsim, model=NAME, or maxsim,depth=50" in refused.stderr
    refused = asking("search", "music", "--collection", name, "--rerank", "words")
    assert "--rerank" in refused.stderr and "'maxsim'" in refused.stderr
    newer = asking("search", "music", "--collection", name, "--filter", '{"year": {"$gte": 2015}}', "--json")
    assert ids(newer) == ["cat"]


@pytest.mark.slow
def test_search_shows_a_table(asking, few, name):
    asking("index", few, "--collection", name)
    shown = asking("search", "a sleeping animal", "--collection", name)
    assert shown.returncode == 0
    header, first, *rest = shown.stdout.splitlines()
    assert header.split() == ["rank", "score", "id", "text"]
    assert re.fullmatch(r" *1 +0\.\d{4} +cat +A cat sleeps \[red\] in the sun\. *", first)
    assert len(rest) == 2


@pytest.mark.slow
def test_search_without_a_match_says_so(asking, few, name):
    asking("index", few, "--collection", name)
    shown = asking("search", "music", "--collection", name, "--filter", '{"year": 1066}')
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "No document" in shown.stderr and "warning" not in shown.stderr


@pytest.mark.slow
def test_search_says_what_of_a_filter_can_match_nothing(asking, few, name):
    asking("index", few, "--collection", name)
    shown = asking("search", "music", "--collection", name, "--filter", '{"yaer": {"$ne": 1}}', "-k", 1)
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 2)
    assert "warning: --filter: no document has the field 'yaer'. Did you mean 'year'?" in shown.stderr


@pytest.mark.slow
def test_search_with_a_number_that_no_metadata_holds(asking, few, name):
    asking("index", few, "--collection", name)
    for number, word in (("123456789012345678901234567890", "beyond 64 bits"), ("1e999", "finite")):
        shown = asking("search", "music", "--collection", name, "--filter", f'{{"year": {number}}}')
        assert (shown.returncode, shown.stdout) == (1, "")
        assert "--filter" in shown.stderr and word in shown.stderr


@pytest.mark.slow
def test_an_integer_that_would_become_another_number(asking, tmp_path, name):
    file = tmp_path / "long.jsonl"
    file.write_text('{"id": "1", "text": "a", "metadata": {"n": 123456789012345678901234567890}}\n')
    shown = asking("index", file, "--collection", name)
    assert shown.returncode == 1 and shown.stdout.startswith("0 stored")
    assert "metadata.n is an integer beyond 64 bits" in shown.stderr


@pytest.mark.slow
def test_what_is_stored_is_not_embedded_again(asking, jsonl, few, name, side_by_side):
    assert summary(asking("index", few, "--collection", name)) == (3, 0, 0)
    assert summary(asking("index", few, "--collection", name)) == (3, 3, 0)
    changed = jsonl(
        {"id": "cat", "text": "A trumpet sounds."}, {"id": "dough", "text": "A woman kneads dough for bread."}
    )
    assert summary(asking("index", changed, "--collection", name)) == (2, 1, 0)
    assert ids(asking("search", "a brass instrument", "--collection", name, "--json"))[0] == "cat"
    assert side_by_side.http.get(f"/collections/{name}").json()["count"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["folder", "file"])
def test_beir(asking, jsonl, name, side_by_side, shape):
    corpus = jsonl(
        {"_id": "1", "title": "The harp", "text": "An instrument with strings.", "metadata": {"year": 2012}},
        {"_id": "2", "title": "", "text": "A cat sleeps."},
        {"_id": "3", "title": "A title alone", "text": ""},
        {"_id": "4", "title": "", "text": ""},
        file="beir/corpus.jsonl",
    )
    assert summary(asking("index", corpus.parent if shape == "folder" else corpus, "--collection", name)) == (3, 0, 1)

    def stored(key):
        return side_by_side.http.get(f"/collections/{name}/documents/{key}").json()

    assert stored("1") == {
        "id": "1",
        "text": "The harp An instrument with strings.",
        "metadata": {"year": 2012, "title": "The harp"},
    }
    assert stored("2") == {"id": "2", "text": "A cat sleeps.", "metadata": {}}
    assert stored("3")["text"] == "A title alone"


def test_empty_texts_blank_lines_and_a_byte_order_mark(asking, tmp_path, name):
    path = tmp_path / "documents.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "text": "word"}\r\n\n{"id": "b", "text": ""}\n{"id": "c", "text": " \\n\\u00a0"}'
    )
    assert summary(asking("index", path, "--collection", name)) == (1, 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "\u200b"])
def test_a_file_without_texts_leaves_no_collection(asking, jsonl, name, text, side_by_side):
    path = jsonl({"id": "a", "text": text})
    result = asking("index", path, "--collection", name)
    assert summary(result) == (0, 0, 1)
    assert f"collection '{name}' is not kept" in result.stderr
    assert side_by_side.http.get(f"/collections/{name}").status_code == 404
    side_by_side.http.put(f"/collections/{name}", json={}).raise_for_status()
    result = asking("index", path, "--collection", name)
    assert summary(result) == (0, 0, 1) and "is not kept" not in result.stderr
    assert side_by_side.http.get(f"/collections/{name}").json()["count"] == 0


@pytest.mark.slow
def test_a_long_document_needs_truncate(asking, jsonl, name):
    path = jsonl({"id": "short", "text": "word"}, {"id": "a/long one", "text": "harp " * 300})
    refused = asking("index", path, "--collection", name)
    assert refused.returncode == 1
    assert f"{path}: line 2: document 'a/long one' has 302 tokens and the model takes 256" in refused.stderr
    assert "--truncate" in refused.stderr and '"truncate"' not in refused.stderr
    assert refused.stdout.startswith("1 stored (0 unchanged), 0 empty skipped, 1 rejected, ")
    assert summary(asking("index", path, "--collection", name, "--truncate")) == (2, 1, 0)
    assert "--truncate" in asking("search", "harp " * 300, "--collection", name).stderr
    assert len(ids(asking("search", "harp " * 300, "--collection", name, "--truncate", "--json"))) == 2


@pytest.mark.slow
def test_strict_stops_at_the_first_that_cannot_be_stored(asking, jsonl, name):
    path = jsonl(*({"id": str(n), "text": "word"} for n in range(4)), {"id": "long", "text": "harp " * 300})
    refused = asking("index", path, "--collection", name, "--batch-size", 2, "--strict")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        f"error: {path}: line 5: document 'long' has 302 tokens and the model takes 256. Give --truncate to embed "
        "the beginning of such texts alone, or split the text.",
        "error: 4 documents are stored. Run the same command again to go on.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("line", ['{"id": 7}', '{"id": "b", "text": ""}', '{"id": "b", "text": "\\u200b"}', "x"])
def test_strict_stops_at_whatever_would_be_left_out(asking, tmp_path, name, side_by_side, line):
    path = tmp_path / "documents.jsonl"
    path.write_text(f'{line}\n{{"id": "a", "text": "fine"}}\n')
    refused = asking("index", path, "--collection", name, "--strict")
    assert refused.returncode == 1 and refused.stderr.startswith(f"error: {path}: line 1: ")
    assert side_by_side.http.get(f"/collections/{name}").status_code == 404


@pytest.mark.slow
def test_every_bad_line_is_left_out_told_and_written_to_a_file(asking, tmp_path, name, side_by_side):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b"\n".join(
            [
                b'{"id": "a", "text": "fine"}',
                b"{'id': 'b'}",
                b'["b", "text"]',
                b'{"text": "no id"}',
                b'{"id": 7, "text": "ill-typed id"}',
                b'{"id": "b", "txt": "no text"}',
                b'{"_id": "b", "title": "t", "text": null}',
                b'{"id": "a", "text": "again"}',
                b'{"id": "b", "text": "\xff"}',
                b'{"id": "b", "text": "x", "metadata": []}',
                b'{"id": "c", "text": "x", "year": 2012}',
                b'{"id": ""}',
            ]
        )
    )
    rejects = tmp_path / "rejects.jsonl"
    result = asking("index", path, "--collection", name, "--rejects", rejects)
    assert result.returncode == 1
    assert result.stdout.startswith("1 stored (0 unchanged), 0 empty skipped, 11 rejected, ")
    lines = result.stderr.splitlines()
    expected = [
        (2, "is not JSON"),
        (3, "is an array"),
        (4, "has no 'id'"),
        (5, "'id' is the number 7. It must be a string"),
        (6, "has no 'text'. Did you mean 'txt'?"),
        (7, "'text' is null"),
        (8, "id 'a' is taken by an earlier one"),
        (9, "not valid UTF-8 at byte 22"),
        (10, "metadata must be a JSON object"),
        (11, "'year' is no field"),
    ]
    for (number, message), line in zip(expected, lines, strict=False):
        assert line.startswith(f"warning: {path}: line {number}: ") and message in line, line
    assert lines[10:] == ["warning: 1 others are left out too."]
    written = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [entry["line"] for entry in written] == list(range(2, 13))
    for (_, message), entry in zip(expected, written, strict=False):
        assert message in entry["reason"]
    assert written[2]["content"] == '{"text": "no id"}'
    assert [
        hit["id"] for hit in side_by_side.http.post(f"/collections/{name}/search", json={"query": "a"}).json()["hits"]
    ] == ["a"]


def test_a_vector_that_does_not_fit_is_told_where_it_has_no_text(asking, tmp_path, name):
    path = tmp_path / "vectors.jsonl"
    vectors = {"a": [1, 0], "b": [1], "c": [0, 0]}
    path.write_text("".join(f'{{"id": "{id_}", "vector": {vector}}}\n' for id_, vector in vectors.items()))
    result = asking("index", path, "--collection", name, "--dimension", "2")
    assert result.returncode == 1
    assert result.stdout.startswith("1 stored (0 unchanged), 0 empty skipped, 2 rejected, ")
    assert "line 2: the vector of document 'b' has 1 numbers" in result.stderr
    assert "line 3: the vector of document 'c' is all zeros" in result.stderr


@pytest.mark.slow
def test_a_rejects_file_that_cannot_be(asking, few, tmp_path, name):
    for rejects, message in ((few, "is the file that is read"), (tmp_path / "no" / "r.jsonl", "No such file")):
        refused = asking("index", few, "--collection", name, "--rejects", rejects)
        assert (refused.returncode, refused.stdout) == (2, "") and message in refused.stderr
    assert few.read_text()


@pytest.mark.slow
def test_a_file_that_is_not_there(asking, tmp_path, name):
    missing = asking("index", tmp_path / "nothing.jsonl", "--collection", name)
    folder = asking("index", tmp_path, "--collection", name)
    assert missing.returncode == folder.returncode == 2
    assert "nothing.jsonl: No such file" in missing.stderr
    assert "corpus.jsonl: No such file" in folder.stderr and "BEIR" in folder.stderr


@pytest.mark.slow
def test_a_collection_keeps_its_pooling(asking, few, name, side_by_side):
    assert summary(asking("index", few, "--collection", name, "--model", "cls", "--pooling", "max"))[0] == 3
    assert side_by_side.http.get(f"/collections/{name}").json()["pooling"] == "max"
    assert summary(asking("index", few, "--collection", name)) == (3, 3, 0)
    other = asking("index", few, "--collection", name, "--pooling", "mean")
    assert other.returncode == 1
    assert "exists under another definition" in other.stderr


@pytest.mark.slow
def test_refusals_are_one_line(asking, few, name):
    for arguments, status, message in (
        (("index", few, "--collection", name, "--model", "maen"), 1, "Did you mean 'mean'?"),
        (("index", few, "--collection", "a/b"), 2, "begins with a letter or a digit"),
        (("search", "x", "--collection", name), 1, "there is no collection"),
        (("search", "x", "--collection", name, "--filter", "{year: 1}"), 2, "is not a JSON object"),
        (("search", "x", "--collection", name, "--filter", "[1]"), 2, "is not a JSON object"),
    ):
        result = asking(*arguments)
        assert (result.returncode, result.stdout) == (status, ""), arguments
        assert message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.slow
def test_a_filter_that_the_service_refuses(asking, few, name):
    asking("index", few, "--collection", name)
    result = asking("search", "x", "--collection", name, "--filter", '{"year": {"$gta": 1}}')
    assert result.returncode == 1
    assert "$gta" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_no_service(millpond, few):
    for command in (("index", few, "--collection", "c"), ("search", "x", "--collection", "c"), ("embed", "x")):
        result = millpond(*command, "--url", "http://127.0.0.1:9")
        assert (result.returncode, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        assert all(part in result.stderr for part in ("http://127.0.0.1:9", "millpond serve", "--url", "--config"))


@pytest.mark.slow
def test_interrupted_and_run_again(asking, environment, jsonl, name, side_by_side):
    total = 1000
    path = jsonl(*({"id": str(n), "text": f"Document number {n} of many."} for n in range(total)))
    command = [*COMMAND, "index", str(path), "--collection", name, "--batch-size", "16", "--url", side_by_side.url]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def count():
        return side_by_side.http.get(f"/collections/{name}").json().get("count", 0)

    deadline = time.monotonic() + 60
    while count() < 32 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    said = re.fullmatch(
        r"Interrupted: at least (\d+) documents are stored. Run the same command again to go on.\n", err
    )
    assert said, err
    documents, unchanged, updated = summary(asking("index", path, "--collection", name))
    assert (documents, updated) == (total, 0)
    assert 0 < int(said[1]) <= unchanged < total  # what was under way when the client left may be stored too
    found = ids(asking("search", "number", "--collection", name, "-k", total, "--json"))
    assert sorted(found, key=int) == [str(n) for n in range(total)]


@pytest.mark.slow
def test_the_service_is_stopped_midway(environment, jsonl, tmp_path, name):
    path = jsonl(*({"id": str(n), "text": f"Document number {n} of many."} for n in range(3000)))
    with Server(ROOT / "configs" / "mean.yaml", tmp_path / "store") as server:
        command = [*COMMAND, "index", str(path), "--collection", name, "--batch-size", "16", "--url", server.url]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while server.http.get(f"/collections/{name}").json().get("count", 0) < 32:
            assert process.poll() is None
        server.process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    assert re.search(r"\d+ documents are stored. Run the same command again to go on.", err)


@pytest.mark.slow
def test_progress_on_a_terminal(environment, few, name, side_by_side):
    ours, theirs = pty.openpty()
    command = [*COMMAND, "index", str(few), "--collection", name, "--url", side_by_side.url]
    seen = b""

    def read():
        nonlocal seen
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed
                return
            seen += part

    reader = threading.Thread(target=read)
    reader.start()
    try:
        env = environment | {"TERM": "xterm", "COLUMNS": "100"}
        result = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    finally:
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    assert result.returncode == 0
    assert b"100%" in seen and b"3 documents" in seen


@pytest.mark.slow
def test_a_deployment_in_the_process(millpond, jsonl, tmp_path):
    """Whatever ends a command, its deployment is closed: threads that outlive it abort the process."""
    path = jsonl(
        {"id": "harp", "text": "A man is playing a harp."},
        {"id": "cat", "text": "A cat sleeps."},
        {"id": "long", "text": "harp " * 300},
    )
    options = {"env": {"MILLPOND_STORE__PATH": str(tmp_path / "store")}}
    here = ("--collection", "c", "--config", ROOT / "configs" / "mean.yaml")
    refused = millpond("index", path, "--batch-size", 2, "--strict", *here, **options)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"error: {path}: line 3: document 'long' has 302 tokens and the model takes 256. Give --truncate to embed "
        "the beginning of such texts alone, or split the text.",
        "error: 2 documents are stored. Run the same command again to go on.",
    ]
    assert ids(millpond("search", "music", *here, "--json", **options)) == ["harp", "cat"]


@pytest.mark.slow
def test_a_collection_by_another_similarity(asking, few, name, side_by_side):
    assert summary(asking("index", few, "--collection", name, "--similarity", "euclidean")) == (3, 0, 0)
    assert side_by_side.http.get(f"/collections/{name}").json()["similarity"] == "euclidean"
    hits = json.loads(asking("search", "music", "--collection", name, "--json").stdout)["hits"]
    assert hits[0]["id"] == "harp" and all(hit["score"] < 0 for hit in hits)
    assert summary(asking("index", few, "--collection", name)) == (3, 3, 0)
    other = asking("index", few, "--collection", name, "--similarity", "dot")
    assert other.returncode == 1 and 'similarity: stored "euclidean", asked "dot"' in other.stderr
    changed = asking("reindex", name, "--similarity", "dot")
    assert changed.returncode == 0 and "re-embedded" in changed.stdout
    assert changed.stdout.rstrip().endswith("similarity euclidean -> dot")
    assert "Nothing to do" in asking("reindex", name).stdout
    for command in (("index", few, "--collection", f"{name}-m"), ("reindex", name)):
        unknown = asking(*command, "--similarity", "manhattan")
        assert unknown.returncode != 0 and "similarity" in unknown.stderr and "'manhattan'" in unknown.stderr
    assert side_by_side.http.get(f"/collections/{name}-m").status_code == 404

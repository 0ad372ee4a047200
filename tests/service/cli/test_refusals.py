"""What a service refuses is told in terms of the command that asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.client import Refused


@pytest.fixture
def refusal(side_by_side, name):
    """Asks for something that is refused; gives what a command would say."""
    http = side_by_side.http

    def ask(created, route, body):
        if created is not None:
            http.put(f"/collections/{name}", json=created).raise_for_status()
        answer = http.post(f"/collections/{name}{route}", json=body)
        assert not answer.is_success
        return str(Refused(side_by_side.url, answer))

    yield ask
    http.delete(f"/collections/{name}")


LONG = "word " * 300
WORDS = " ".join(f"w{n}" for n in range(1100))


@pytest.mark.parametrize(
    ("created", "route", "body", "words", "none"),
    [
        ({}, "/search", {"query": LONG}, "Give --truncate to embed the beginning", '"truncate"'),
        (
            {},
            "/search",
            {"query": WORDS, "mode": "keyword"},
            "or give --truncate to use the first ones",
            "set truncate",
        ),
        ({"keyword": None}, "/search", {"query": "a", "mode": "keyword"}, "--tokenizer unicode61", '"keyword"'),
        ({"dimension": 3}, "/search", {"query": "a"}, "with --dimension and the --model", "'vector'"),
        ({}, "/documents/delete", {"filter": {}}, "say --all in its place", "(true)"),
        ({}, "/documents/metadata", {"all": True, "merge": {"n": 2**64}}, "--merge.n is an integer", " merge"),
        ({}, "/search", {"query": "a", "k": 10_001}, "-k: Input should be less", "k: k"),
        ({}, "/search", {"query": "a", "score_threshold": "x"}, "--score-threshold: Input", "score_threshold"),
        (None, "/search", {"query": "a"}, "; `millpond index` creates it.", "create it first"),
    ],
)
def test_remedies_are_options(refusal, created, route, body, words, none):
    said = refusal(created, route, body)
    assert words in said and none not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"vector": [1.0] * 384}, "Give --embed-again to leave such vectors aside, add the 'fingerprint'"),
        ({"vector": [1.0] * 384, "fingerprint": "other"}, "Give --embed-again, and the texts are embedded here."),
    ],
)
def test_vectors_that_a_collection_does_not_take(asking, jsonl, name, document, words):
    refused = asking("index", jsonl({"id": "a", "text": "a"} | document), "--collection", name)
    assert refused.returncode == 1 and words in refused.stderr
    assert "Leave the vector out" not in refused.stderr


@pytest.mark.slow
def test_a_tokenizer_is_chosen(asking, few, name, side_by_side):
    http = side_by_side.http

    def tokenizer(collection):
        return http.get(f"/collections/{collection}").json().get("keyword")

    for each in ("porter", "trigram"):
        assert asking("index", few, "--collection", f"{name}-{each}", "--tokenizer", each).returncode == 0
        assert tokenizer(f"{name}-{each}") == {"tokenizer": each}
    assert asking("index", few, "--collection", f"{name}-none", "--tokenizer", "none").returncode == 0
    assert tokenizer(f"{name}-none") is None
    assert asking("index", few, "--collection", name).returncode == 0
    assert tokenizer(name) == {"tokenizer": "unicode61"}
    other = asking("index", few, "--collection", name, "--tokenizer", "porter")
    assert other.returncode == 1 and "exists under another definition" in other.stderr
    assert asking("index", few, "--collection", name, "--tokenizer", "words").returncode == 2
    found = asking("search", "sleeping", "--collection", f"{name}-porter", "--mode", "keyword", "--json")
    assert [hit["id"] for hit in json.loads(found.stdout)["hits"]] == ["cat"]


@pytest.mark.slow
def test_a_disk_that_fills(asking, jsonl, name, disk, tmp_path):
    """Of an export nothing is left, and what is printed ends with an error."""
    documents = [{"id": str(n), "text": f"text {n} " * 200} for n in range(200)]
    assert asking("index", jsonl(*documents), "--collection", name, "--truncate").returncode == 0
    small = disk(1 << 16)
    for file in ("notes.jsonl", "notes.jsonl.gz"):
        small.fill(leave=4096)
        refused = asking("export", name, small.folder / file, "--vectors")
        assert refused.returncode == 1 and "No space left on device. Nothing is written." in refused.stderr
        assert [path.name for path in small.folder.iterdir()] == ["filler"]
    rejects = jsonl(*({"id": str(n), "text": " "} for n in range(1000)), file="empty.jsonl")
    refused = asking("index", rejects, "--collection", name, "--rejects", small.folder / "rejects.jsonl")
    assert refused.returncode == 1 and "rejects.jsonl: No space left on device." in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("documents", "list", "--json", "--collection"), ("export",)])
def test_output_that_cannot_be_written(environment, side_by_side, asking, few, name, arguments):
    asking("index", few, "--collection", name)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments, name],
            env=environment | {"MILLPOND_URL": side_by_side.url},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output: No space left on device. Free some space and run it again.\n"

"""`millpond index`, `search` and `reindex` with documents that are cut into spans."""

from __future__ import annotations

import json

import pytest

from service.cli.chunks import parse_chunking
from service.cli.console import Failure

from .test_index import ids, summary

STORY = "A man is playing a harp by the pond. It rains, and nobody listens. Then the bread is baked."


@pytest.fixture
def stories(jsonl):
    return jsonl({"id": "story", "text": STORY}, {"id": "cat", "text": "A cat sleeps in the sun. It dreams."})


@pytest.mark.slow
def test_index_search_and_reindex(asking, stories, name, side_by_side):
    def described():
        return side_by_side.http.get(f"/collections/{name}").json()

    assert summary(asking("index", stories, "--collection", name, "--chunking", "tokens=9,overlap=2")) == (2, 0, 0)
    assert described()["chunking"] == {"by": "tokens", "tokens": 9, "overlap": 2, "mode": "late"}
    # It stays as it is unless another is asked for.
    assert summary(asking("index", stories, "--collection", name)) == (2, 2, 0)
    refused = asking("index", stories, "--collection", name, "--chunking", "sentence")
    assert refused.returncode == 1 and "chunking: stored" in refused.stderr and "reindex" in refused.stderr

    changed = asking("reindex", name, "--chunking", "sentence,mode=early")
    assert changed.returncode == 0, changed.stderr
    assert "chunking by=tokens,tokens=9,overlap=2,mode=late -> by=sentence,mode=early" in changed.stdout
    assert (described()["count"], described()["chunks"]) == (2, 5)
    assert "Nothing to do" in asking("reindex", name).stdout

    found = asking("search", "baking a loaf", "--collection", name)
    assert found.stdout.splitlines()[1].rstrip().split(maxsplit=3)[2:] == ["story", "Then the bread is baked."]
    assert len(ids(asking("search", "music", "--collection", name, "--json"))) == 5
    assert ids(asking("search", "music", "--collection", name, "--by-document", "--json")) == ["story", "cat"]

    whole = asking("reindex", name, "--chunking", "none")
    assert "chunking by=sentence,mode=early -> none" in whole.stdout
    assert "chunking" not in described()
    assert STORY in asking("search", "music", "--collection", name).stdout


@pytest.mark.slow
def test_given_spans(asking, jsonl, name, side_by_side):
    spans = [[0, 36], [37, 66]]
    path = jsonl({"id": "story", "text": STORY, "spans": spans})
    assert summary(asking("index", path, "--collection", name, "--chunking", "given")) == (1, 0, 0)
    assert summary(asking("index", path, "--collection", name)) == (1, 1, 0)
    assert side_by_side.http.get(f"/collections/{name}/documents/story").json()["spans"] == spans
    hits = json.loads(asking("search", "rain", "--collection", name, "--json").stdout)["hits"]
    assert hits[0]["span"] == {"start": 37, "end": 66, "text": "It rains, and nobody listens."}
    for document, words in (
        ({"text": STORY}, "line 1: document 'bad' has no 'spans'"),
        ({"text": STORY, "spans": [[5, 5]]}, "line 1: document 'bad', span 0 is [5, 5], which is empty"),
        ({"text": STORY, "spans": [[5]]}, "line 1: 'spans' must be [[start, end], ...]"),
        ({"text": STORY, "spans": [[5, "9"]]}, "line 1: 'spans' must be [[start, end], ...]"),
        ({"text": STORY, "spans": 7}, "line 1: 'spans' must be [[start, end], ...]"),
    ):
        refused = asking("index", jsonl({"id": "bad", **document}), "--collection", name)
        assert refused.returncode in (1, 2) and words in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("tokens=64,overlap=16", {"tokens": 64, "overlap": 16}),
        (" tokens = 64 , mode=early", {"tokens": 64, "mode": "early"}),
        ("sentence", {"by": "sentence"}),
        ("by=given,mode=late", {"by": "given", "mode": "late"}),
        ("4", {"by": 4}),
        ("tokens=-4", {"tokens": "-4"}),
        ("tokens=" + "9" * 5000, {"tokens": "9" * 5000}),
        ("none", None),
    ],
)
def test_how_a_chunking_is_written(written, asked):
    assert parse_chunking(written) == asked


@pytest.mark.parametrize("written", ["", "tokens=", "tokens=4,tokens=5", "sentence,given", ",", "=4" + "x" * 5000])
def test_how_it_is_not(written):
    with pytest.raises(Failure, match="write it as tokens=64,overlap=16") as raised:
        parse_chunking(written)
    assert len(str(raised.value)) < 300 and raised.value.exit_status == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("token=4", "Did you mean 'tokens'?"),
        ("tokens=" + "9" * 5000, "chunking.tokens"),
        ("words", "'tokens', 'sentence' or 'given'"),
    ],
)
def test_what_the_service_does_not_know(asking, stories, name, written, words):
    refused = asking("index", stories, "--collection", name, "--chunking", written)
    assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr and len(refused.stderr) < 2000

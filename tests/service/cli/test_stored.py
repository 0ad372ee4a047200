"""`millpond documents` and `millpond collections`."""

from __future__ import annotations

import json

import pytest


def lines(result):
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def said(result):
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


@pytest.fixture
def stored(side_by_side, name, few):
    """A collection with three documents."""
    http = side_by_side.http
    assert http.put(f"/collections/{name}").status_code == 201
    documents = [json.loads(line) for line in few.read_text(encoding="utf-8").splitlines()]
    assert http.post(f"/collections/{name}/documents", json={"documents": documents}).status_code == 200
    yield name
    http.delete(f"/collections/{name}")


@pytest.mark.slow
def test_list_pipes_into_index(asking, stored, tmp_path, few):
    listed = asking("documents", "list", "--collection", stored, "--json")
    assert [document["id"] for document in lines(listed)] == ["harp", "cat", "dough"]
    (tmp_path / "listed.jsonl").write_text(listed.stdout)
    again = asking("index", tmp_path / "listed.jsonl", "--collection", stored)
    assert said(again).startswith("3 stored (3 unchanged)")


@pytest.mark.slow
def test_list_shows_a_table(asking, stored):
    shown = asking("documents", "list", "--collection", stored, "--limit", 2)
    header, first, second = shown.stdout.splitlines()
    assert header.split() == ["id", "text", "metadata"]
    assert first.split() == ["harp", *["A", "man", "is", "playing", "a", "harp."], '{"year":2012}']
    assert second.startswith("cat ") and "[red]" in second
    assert "first 2" in shown.stderr
    none = asking("documents", "list", "--collection", stored, "--filter", '{"year": 1}')
    assert (none.returncode, none.stdout) == (0, "") and "No document" in none.stderr
    (cat,) = lines(
        asking("documents", "list", "--collection", stored, "--json", "--filter", '{"year": 2020}', "--vectors")
    )
    assert cat["id"] == "cat" and len(cat["vector"]) == 384
    assert len(lines(asking("documents", "list", "--collection", stored, "--json", "--limit", 2))) == 2


@pytest.mark.slow
def test_count_get_update_delete(asking, stored):
    of = ("--collection", stored)
    assert said(asking("documents", "count", *of)) == "3\n"
    assert said(asking("documents", "count", *of, "--filter", '{"year": {"$gt": 2015}}')) == "1\n"
    assert said(asking("documents", "update", "harp", "dough", *of, "--merge", '{"lang": "en"}')) == "2 updated\n"
    assert (
        said(asking("documents", "update", *of, "--filter", '{"lang": "en"}', "--replace", '{"n": 1}'))
        == "2 updated\n"
    )
    assert said(asking("documents", "update", *of, "--all", "--merge", '{"year": null}')) == "3 updated\n"
    harp = {"id": "harp", "text": "A man is playing a harp.", "metadata": {"n": 1}}
    assert json.loads(said(asking("documents", "get", "harp", *of))) == harp
    got = asking("documents", "get", "harp", "nowhere", "cat", *of, "--json")
    assert got.returncode == 1 and "no document 'nowhere'" in got.stderr
    assert [json.loads(line)["id"] for line in got.stdout.splitlines()] == ["harp", "cat"]
    deleted = asking("documents", "delete", "harp", "nowhere", *of)
    assert (deleted.returncode, deleted.stdout) == (0, "1 deleted\n") and "'nowhere'" in deleted.stderr
    assert said(asking("documents", "delete", *of, "--filter", '{"n": 1}')) == "1 deleted\n"
    assert said(asking("documents", "delete", *of, "--all")) == "1 deleted\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["delete"], 2, "by their ids, by --filter, or --all"),
        (["delete", "harp", "--all"], 2, "one of the three"),
        (["delete", "--filter", "{}"], 1, "--filter has no condition"),
        (["delete", "--filter", '{"year": {"$nin": []}}'], 1, "--filter has no condition"),
        (["delete", "--filter", "year"], 2, "--filter 'year': is not a JSON object"),
        (["update", "harp"], 2, "one of --merge and --replace"),
        (["update", "harp", "--merge", "[1]"], 2, "--merge '[1]': is not a JSON object"),
        (["update", "--merge", "{}"], 2, "by their ids"),
        (["list", "--filter", '{"a": {"$x": 1}}'], 1, "unknown operator '$x'"),
    ],
)
def test_what_is_refused(asking, stored, arguments, status, words):
    refused = asking("documents", *arguments, "--collection", stored)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert words in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert lines(asking("documents", "list", "--collection", stored, "--json"))[0]["metadata"] == {"year": 2012}


@pytest.mark.slow
def test_collections(asking, stored, side_by_side):
    alias, copy = f"{stored}.live", f"{stored}.2"
    assert said(asking("collections", "alias", alias, stored)) == f"'{alias}' stands for '{stored}' now.\n"
    about = json.loads(said(asking("collections", "stats", alias)))
    assert about == side_by_side.http.get(f"/collections/{stored}").json()
    assert (about["name"], about["aliases"], about["count"]) == (stored, [alias], 3)
    assert about in lines(asking("collections", "list", "--json"))
    rows = [line.split() for line in said(asking("collections", "list")).splitlines()]
    assert rows[0] == ["name", "aliases", "model", "pooling", "index", "documents", "stored"]
    assert [stored, alias, "mean", "mean", "auto", "3", "4.7", "kB"] in rows
    assert said(asking("collections", "copy", stored, copy)) == f"3 documents of '{stored}' copied to '{copy}'\n"
    assert said(asking("collections", "alias", alias, copy)) == f"'{alias}' stands for '{copy}' now.\n"
    refused = asking("collections", "drop", alias)
    assert refused.returncode == 1 and f"is an alias of collection '{copy}'" in refused.stderr
    refused = asking("collections", "rename", copy, stored)
    assert refused.returncode == 1 and "choose another name" in refused.stderr
    assert said(asking("collections", "alias", alias, "--delete")) == f"'{alias}' is no alias any more.\n"
    assert said(asking("collections", "rename", copy, f"{stored}.3")) == f"'{copy}' is '{stored}.3' now.\n"
    dropped = f"'{stored}.3' is dropped, and its 3 documents with it.\n"
    assert said(asking("collections", "drop", f"{stored}.3")) == dropped
    usage = asking("collections", "alias", alias)
    assert usage.returncode == 2 and "or --delete" in usage.stderr

"""Texts as people send them: with byte order marks, invisible characters, unknown words, and dashes at the front."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.support.checkpoints import plain_roberta, sentence_transformer
from tests.support.servers import ROOT
from tests.support.tiers import first_fast

from .conftest import COMMAND

BOM = b"\xef\xbb\xbf"
MEAN = ROOT / "configs" / "mean.yaml"
INVISIBLE = ["\u200b", "\u200d\u2060", "\u0001\u0002", "\ufeff\ufeff", "\u0301"]


def vectors(result):
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# Byte order marks


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A config of a model whose tokenizer reads a byte order mark as text."""
    folder = tmp_path_factory.mktemp("keeping")
    model = sentence_transformer(plain_roberta(folder / "roberta"), folder / "model", "mean")
    config = folder / "config.yaml"
    runtime = "runtime: {threads: 1, backend: torch, precision: fp32}\n"
    config.write_bytes(BOM + f"models: {{default: {{encoder: {model}}}}}\n{runtime}".encode())
    return config


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["txt", "jsonl", "stdin"])
def test_a_byte_order_mark_before_texts_is_no_part_of_them(millpond, keeping, tmp_path, kind):
    line = b'{"text": "the wheel"}\n' if kind == "jsonl" else b"the wheel\n"
    path = tmp_path / f"texts.{kind}"
    path.write_bytes(BOM + line + line)
    if kind == "stdin":
        result = millpond("embed", "--config", keeping, input=path.read_bytes(), text=False)
    else:
        result = millpond("embed", "--config", keeping, "--input", path)
    first, second = vectors(result)
    assert first == second


# Invisible characters


@pytest.mark.slow
def test_documents_without_tokens_are_skipped_and_counted(asking, jsonl, name, side_by_side):
    lines = [{"id": str(n), "text": text} for n, text in enumerate(["fine", *INVISIBLE, "fine too", ""])]
    result = asking("index", jsonl(*lines), "--collection", name, "--batch-size", 3)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"2 stored (0 unchanged), {len(INVISIBLE) + 1} empty skipped, ")
    warning = f"warning: {len(INVISIBLE)} documents are skipped, as the model knows no token of their text"
    assert result.stderr.startswith(warning) and "line 2: '1'" in result.stderr
    assert side_by_side.http.get(f"/collections/{name}").json()["count"] == 2


@pytest.mark.slow
def test_documents_cut_into_spans_are_skipped_likewise(asking, jsonl, name):
    path = jsonl({"id": "a", "text": "\u200b"}, {"id": "b", "text": "One. Two."})
    result = asking("index", path, "--collection", name, "--chunking", "sentence")
    assert (result.returncode, result.stdout[:38]) == (0, "1 stored (0 unchanged), 1 empty skipped"[:38])


@pytest.mark.slow
def test_texts_without_tokens_have_no_vector(asking):
    texts = ["fine", *INVISIBLE, "fine too"]
    result = asking("embed", input="\n".join(texts))
    assert len(vectors(result)) == 2
    assert result.stderr.startswith(f"warning: {len(INVISIBLE)} of {len(texts)} texts have no vector")
    assert "standard input: line 2, " in result.stderr
    assert len(vectors(asking("embed", "a", "\u200b", "b"))) == 2
    alone = asking("embed", "\u200b")
    assert alone.returncode == 1 and "has no token that this model knows" in alone.stderr


# Null where a key may be left out


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        {"_id": "1", "title": None, "text": "first"},
        {"_id": "1", "title": None, "text": "first", "metadata": None},
        {"id": "1", "text": "first", "metadata": None},
        {"id": "1", "text": "first", "spans": None},
    ],
)
def test_null_is_as_if_absent(asking, jsonl, name, side_by_side, line):
    result = asking("index", jsonl(line), "--collection", name)
    assert result.returncode == 0, result.stderr
    stored = side_by_side.http.get(f"/collections/{name}/documents/1").json()
    assert stored == {"id": "1", "text": "first", "metadata": {}}


# Words that the model does not know

UNKNOWN = ["x" * 101, "\u0e01" * 120, "wheel \U0001f9ff"]


@pytest.mark.slow
def test_unknown_words_are_counted_and_warned_of(asking, jsonl, name, side_by_side):
    def told():
        return side_by_side.http.get("/info").json()["models"]["mean"]["unknown_tokens"]

    before = told()
    embedded = asking("embed", *UNKNOWN, "a mill", "--model", "mean")
    assert len(vectors(embedded)) == 4
    assert embedded.stderr.startswith("warning: 3 words or characters are unknown to the model")
    assert told() == before + 3
    path = jsonl(*({"id": str(n), "text": text} for n, text in enumerate(UNKNOWN)))
    stored = asking("index", path, "--collection", name, "--model", "mean")
    assert stored.stderr.startswith("warning: 3 words or characters are unknown")
    assert asking("embed", "x" * 100, "--model", "mean").stderr == ""


def test_unknown_words_of_a_pooling_asked_for_count_for_its_model(asking, side_by_side):
    before = side_by_side.http.get("/info").json()["models"]["mean"]["unknown_tokens"]
    side_by_side.http.post("/embed", json={"inputs": UNKNOWN, "model": "mean", "pooling": "gem(p=5)"})
    assert side_by_side.http.get("/info").json()["models"]["mean"]["unknown_tokens"] == before + 3


# Texts that begin with a dash


@pytest.mark.slow
@pytest.mark.parametrize("text", first_fast(["-5 degrees", "-5", "--not an option\nbut a text"]))
def test_a_text_may_begin_with_a_dash(asking, few, name, text):
    asking("index", few, "--collection", name)
    dashed = asking("search", text, "--collection", name, "--json")
    assert dashed.returncode == 0, dashed.stderr
    assert dashed.stdout == asking("search", "--collection", name, "--json", "--", text).stdout
    assert len(vectors(asking("embed", text, "a mill"))) == 2
    explained = json.loads(asking("explain", text, text, "--json").stdout)
    assert abs(explained["explanations"][0]["similarity"] - 1) < 1e-6


@pytest.mark.parametrize("arguments", [("search", "-foo"), ("embed", "--dimension=3"), ("explain", "-x", "a")])
def test_a_word_with_a_dash_is_an_option_that_there_is_not(asking, arguments):
    refused = asking(*arguments)
    assert refused.returncode == 2
    assert "No such option" in refused.stderr and "Put -- before a text" in refused.stderr


@pytest.mark.slow
def test_values_of_options_are_no_texts(asking, few, name):
    asking("index", few, "--collection", name)
    assert "greater than or equal to 1" in asking("search", "x", "--collection", name, "-k", "-5").stderr
    prompt = asking("embed", "x", "--prompt-name", "- a b")
    assert "has no prompt '- a b'" in prompt.stderr


@pytest.mark.slow
def test_an_argument_that_is_not_utf8_is_named(asking):
    for arguments, words in (
        (("embed", "fine", "\udcff"), "text 2 is not valid UTF-8"),
        (("search", "a\udcff", "--collection", "x"), "the query is not valid UTF-8 at character 2"),
        (("explain", "fine", "\udcff"), "the other text is not valid UTF-8"),
    ):
        refused = asking(*arguments)
        assert refused.returncode == 2 and words in refused.stderr


# Refusals that leave nothing behind, and what they call things


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ({"id": "a", "text": "harp " * 300}, ()),
        ({"id": "a", "text": "No spans."}, ("--chunking", "given")),
        ({"id": "a", "text": "harp " * 300}, ("--chunking", "tokens=290,mode=early")),
        ({"id": "a", "text": "x", "metadata": {"n": 2**63}}, ()),
    ],
)
def test_a_refused_index_leaves_no_collection(asking, jsonl, name, side_by_side, line, options):
    assert asking("index", jsonl(line), "--collection", name, *options).returncode != 0
    assert side_by_side.http.get(f"/collections/{name}").status_code == 404


def test_a_refused_index_leaves_a_collection_that_was_there(asking, jsonl, name, side_by_side):
    side_by_side.http.put(f"/collections/{name}", json={})
    assert asking("index", jsonl({"id": "a", "text": "harp " * 300}), "--collection", name).returncode == 1
    assert side_by_side.http.get(f"/collections/{name}").status_code == 200


@pytest.mark.slow
def test_flags_are_called_as_they_are_given(asking, millpond, name, few, tmp_path):
    asking("index", few, "--collection", name)
    for result, words in (
        (millpond("serve", "--port", 70000), "error: --port: input should be less than or equal to 65535"),
        (asking("embed", "x", "--dimensions", 385), "error: --dimensions must be from 1 to 384"),
        (asking("embed", "x", "--prompt-name", "q"), "error: --prompt-name: model "),
        (asking("search", "x", "--collection", name, "-k", 10**6), "error: -k: "),
        (asking("search", "x", "--collection", name, "--filter", '{"a": {"$x": 1}}'), "error: --filter.a: "),
        (
            millpond("train", "--model", "any/model", "--train", "nowhere", "--output", tmp_path / "o"),
            "error: --train nowhere: No such file or directory",
        ),
        (
            millpond("evaluate", "bundled/all-MiniLM-L6-v2", "--pairs", "no.csv"),
            "error: --pairs no.csv: No such file or directory",
        ),
        (
            millpond(
                *("evaluate", "bundled/all-MiniLM-L6-v2", "--retrieval", "examples/search", "--max-tokens", 10**5)
            ),
            "error: --max-tokens: 100000 is more than the 512 positions",
        ),
    ):
        assert result.returncode != 0
        assert result.stderr.startswith(words), result.stderr


# The environment


def test_the_version(millpond):
    assert re.fullmatch(r"millpond \d+\.\d+\.\d+\n", millpond("--version").stdout)


@pytest.mark.slow
@pytest.mark.parametrize("value", first_fast(["query: ", "search this ", "#7", "{not yaml"]))
def test_a_prompt_from_the_environment_is_taken_as_it_is(millpond, tmp_path, value):
    config = tmp_path / "c.yaml"
    config.write_text("models: {default: {encoder: bundled/all-MiniLM-L6-v2}}\n")
    shown = millpond("config", "check", config, env={"MILLPOND_MODELS__DEFAULT__PROMPTS__QUERY": value})
    assert shown.returncode == 0, shown.stderr
    assert f"query: {value!r}" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "meant"),
    [
        (("config", "check", MEAN), "MILLPOND_RUNTIME_PRECISION", "MILLPOND_RUNTIME__PRECISION"),
        (("embed", "x"), "MILLPOND_ULR", "MILLPOND_URL"),
        (("serve",), "MILLPOND_SEVER__PORT", "MILLPOND_SERVER__PORT"),
        (("poolings",), "MILLPOND_STORE_PATH", "MILLPOND_STORE__PATH"),
    ],
)
def test_a_variable_that_means_nothing_is_an_error_of_any_command(millpond, command, name, meant):
    refused = millpond(*command, env={name: "int8"})
    assert refused.returncode == 2
    assert name in refused.stderr and f"Did you mean {meant}?" in refused.stderr
    assert millpond(command[0], "--help", env={name: "int8"}).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="a user of no name needs unshare")
def test_no_home_and_no_user_is_a_warning(environment):
    """Users of no name, as containers have them."""
    unknown = ["unshare", "--user", "--map-user=54321", "--map-group=0"]
    if subprocess.run([*unknown, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a user namespace")
    env = {key: value for key, value in environment.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    command = [*unknown, *COMMAND, "config", "check", str(MEAN)]
    checked = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert checked.returncode == 0, checked.stderr
    assert "there is no home folder" in checked.stderr and "Set runtime.cache" in checked.stderr
    told = {**env, "MILLPOND_RUNTIME__CACHE": os.devnull}
    assert "no home folder" not in subprocess.run(command, env=told, cwd=ROOT, capture_output=True, text=True).stderr

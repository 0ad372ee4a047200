"""`millpond evaluate`: tables, files, advice, and what is said of bad input."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from service.cli import app, evaluation
from service.cli.console import Failure
from service.errors import ServiceError
from tests.support import checkpoints

from .conftest import COMMAND, ROOT

WORDS = " ".join(checkpoints.TEXTS).split()


def text(*seed):
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, rng.integers(3, 12)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return checkpoints.sentence_transformer(checkpoints.plain_bert(folder / "plain"), folder / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Declares no pooling."""
    return checkpoints.plain_llama(tmp_path_factory.mktemp("checkpoint") / "llama")


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file."""

    def write(header, rows, file="data.csv"):
        path = tmp_path / file
        with path.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([header.split(","), *rows])
        return path

    return write


@pytest.fixture
def pairs(table):
    rows = [(f"{text(0, place)} {place}", text(1, place), place % 6) for place in range(60)]
    return table("sentence1,sentence2,score", rows, "pairs.csv")


@pytest.fixture
def labels(table):
    return table("text,label", [(f"{text(place)} {place}", "ab"[place % 2]) for place in range(40)], "labels.csv")


@pytest.fixture
def beir(jsonl, tmp_path):
    jsonl(*({"_id": f"d{place}", "text": f"{text(place)} {place}"} for place in range(50)), file="beir/corpus.jsonl")
    jsonl(*({"_id": f"q{place}", "text": f"{text(place)}"} for place in range(25)), file="beir/queries.jsonl")
    (tmp_path / "beir" / "qrels").mkdir()
    judged = "".join(f"q{place}\td{place}\t1\n" for place in range(25))
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return tmp_path / "beir"


@pytest.mark.slow
def test_all_kinds_of_data_in_one_run(millpond, bert, pairs, labels, beir, tmp_path):
    files = ("--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    given = ("--pairs", pairs, "--retrieval", beir, "--classification", labels)
    result = millpond("evaluate", bert, *given, *files, "--pooling", "max", "--pooling", "cls")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["model"], found["declared"]) == (str(bert), "mean")
    assert [data["name"] for data in found["data"]] == [str(pairs), str(beir), str(labels)]
    assert [data["kind"] for data in found["data"]] == ["similarity", "retrieval", "classification"]
    for data in found["data"]:
        assert [row["strategy"] for row in data["rows"]] == ["max", "cls", "mean"]
        best = max(data["rows"], key=lambda row: row["scores"][data["metrics"][0]]["value"])
        score = best["scores"][data["metrics"][0]]
        shown = f"{100 * score['value']:.2f} ({100 * score['low']:.2f} to {100 * score['high']:.2f})"
        assert re.search(rf"^{best['strategy']} +24 +{re.escape(shown)}", result.stdout, re.M)
    assert result.stdout.endswith(f"\n{found['advice']}\n    {found['yaml']}\n")
    assert yaml.safe_load(found["yaml"]) == {"pooling": found["choice"]}
    page = (tmp_path / "found.html").read_text()
    assert page.startswith("<!doctype html>") and page.count("<svg") > 10 and found["advice"] in page
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"beir", "found.html", "found.json", "labels.csv", "pairs.csv"}


@pytest.mark.slow
def test_a_deployment_without_a_declaration_is_told_to_fit(millpond, llama, pairs, tmp_path):
    models = {
        "other": {"encoder": "nowhere"},
        "mine": {"encoder": str(llama), "pooling": "last", "max_tokens": 6},
    }
    config = tmp_path / "deployment.yaml"
    config.write_text(yaml.safe_dump({"models": models, "runtime": {"backend": "torch"}}))
    options = ("--model", "mine", "--pairs", pairs, "--pooling", "last", "--pooling", "mean", "--limit", "30")
    result = millpond("evaluate", config, *options)
    assert result.returncode == 0, result.stderr
    assert f"{llama} declares no pooling" in result.stdout
    assert f"{pairs}: similarity, 30 pairs" in result.stdout
    assert re.search(r"warning: .*texts are longer than 6 tokens; what is beyond was not read", result.stderr)
    assert "is likely to be better.\n    pooling: " in result.stdout
    assert f"millpond train --model {llama} --train TRAINING_DATA --output NEW_FOLDER" in result.stdout


def problem(*arguments):
    """What the command line says, in this process."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert isinstance(result.exception, Failure | ServiceError), result.exception or result.output
    assert result.stdout == ""
    return str(result.exception)


@pytest.mark.parametrize(
    ("option", "header", "rows", "message"),
    [
        ("pairs", "sentence1,sentence2,score", [("a", "b", "nan")], r"line 2: score is 'nan', which is no finite"),
        ("pairs", "sentence1,sentence2,score", [("a", "b", 1), ("", "b", 2)], r"line 3: sentence1 is empty"),
        ("pairs", "sentence1,sentence2,score", [("a", "b", 1)] * 3, r"has 3 pairs, and differences .* below 20"),
        ("pairs", "sentence1,sentence2,score", [("a", "b", 1)] * 30, r"every pair has the score 1"),
        ("classification", "text,label", [("a", "x")] * 30, r"every text has the label 'x'"),
        ("pairs", "text,label", [("a", "x")] * 30, r"holds data for --classification"),
        ("retrieval", "sentence1,sentence2,score", [("a", "b", 1)] * 30, r"holds data for --pairs"),
        ("pairs", "one,two", [("a", "x")], r"has the fields one, two. It needs sentence1"),
    ],
)
def test_bad_data(table, option, header, rows, message):
    path = table(header, rows)
    said = problem("nowhere", f"--{option}", path)
    assert str(path) in said
    assert re.search(message, said)


@pytest.mark.slow
def test_what_is_missing(tmp_path, beir, pairs, bert):
    assert "there is no data: give --pairs FILE, --retrieval FOLDER or" in problem(bert)
    assert problem(bert, "--pairs", tmp_path / "none.csv").endswith("none.csv: No such file or directory.")
    assert "holds neither a corpus.jsonl" in problem(bert, "--retrieval", tmp_path)
    (beir / "qrels" / "test.tsv").unlink()
    assert problem(bert, "--retrieval", beir).endswith("qrels/test.tsv: No such file or directory.")
    assert "qrels/dev.tsv" in problem(bert, "--retrieval", beir, "--split", "dev")
    for option in ("--json", "--html"):
        assert f"{option} {tmp_path}: is a folder" in problem(bert, "--pairs", pairs, option, tmp_path)
        assert "there is no folder" in problem(bert, "--pairs", pairs, option, tmp_path / "none" / "file")
    assert "--pooler" in problem(bert, "--pairs", pairs, "--pooler", tmp_path / "none")
    assert "goes with a deployment's YAML file" in problem(bert, "--pairs", pairs, "--model", "mine")
    config = tmp_path / "deployment.yaml"
    config.write_text(yaml.safe_dump({"models": {"mine": {"encoder": str(bert)}}}))
    assert "the config names mine. Did you mean 'mine'?" in problem(config, "--pairs", pairs, "--model", "mien")
    assert "there is no such file" in problem(tmp_path / "none.yaml", "--pairs", pairs)


@pytest.mark.slow
def test_documents_in_spans(millpond, bert, beir, tmp_path):
    files = ("--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    result = millpond("evaluate", bert, "--retrieval", beir, "--chunking", "tokens=4,overlap=1", *files)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["name"] for each in found["strategies"]] == ["mean", "mean, late", "mean, early"]
    [data] = found["data"]
    page = (tmp_path / "found.html").read_text()
    for row in [*data["rows"], *data["by_spans"]]:
        score = row["scores"]["ndcg@10"]
        shown = f"{100 * score['value']:.2f} ({100 * score['low']:.2f} to {100 * score['high']:.2f})"
        assert re.search(rf"^{row['strategy']} +24 +{re.escape(shown)}", result.stdout, re.M)
        assert f"<td>{row['strategy']}</td><td>{100 * score['value']:.2f} " in page
    applied = yaml.safe_load(found["yaml"])
    assert applied.pop("pooling") == "mean" and found["choice"].startswith("mean")
    if found["choice"] != "mean":
        mode = found["choice"].removeprefix("mean, ")
        assert applied == {"chunking": {"by": "tokens", "tokens": 4, "overlap": 1, "mode": mode}}
    lines = "".join(f"    {line}\n" for line in found["yaml"].split("\n"))
    assert result.stdout.endswith(f"\n{found['advice']}\n{lines}")


@pytest.mark.slow
def test_a_curve_by_layer(millpond, bert, pairs, tmp_path):
    result = millpond("evaluate", bert, "--pairs", pairs, "--pooling", "mean", "--layers", "--limit", "30")
    assert result.returncode == 0, result.stderr
    _, curve = result.stdout.split("spearman of mean by layer, where 0 are the embeddings\n\n")
    assert re.findall(r"^(\d) +-?\d+\.\d+ \(", curve, re.M) == ["0", "1", "2"]
    assert "mean, mean of layers 1, 2" in result.stdout
    assert "goes without --chunking" in problem(bert, "--retrieval", tmp_path, "--layers", "--chunking", "sentence")


@pytest.mark.slow
def test_a_curve_by_dimensions(bert, pairs):
    """Of those that the checkpoint declares, or that are asked for."""

    def curve(*options):
        arguments = ["evaluate", bert, "--pairs", pairs, "--pooling", "mean", "--limit", "20", *options]
        found = CliRunner().invoke(app, list(map(str, arguments))).stdout
        _, *after = found.split("spearman of mean by leading dimensions, normalised anew\n\n")
        return re.findall(r"^(\d+) +-?\d+\.\d+ \(", after[0], re.M) if after else None

    assert curve("--dimensions", "4,12") == ["4", "12", "24"]
    assert curve() is None
    checkpoints.edit(bert / "config.json", matryoshka_dims=[24, 6])
    try:
        assert curve() == ["6", "24"]
    finally:
        checkpoints.edit(bert / "config.json", matryoshka_dims=None)


def test_what_are_no_dimensions(bert, pairs, beir):
    asked = ["--dimensions", "4", "--rerank", "maxsim"]
    assert "--dimensions: goes without --rerank" in problem(bert, "--retrieval", beir, *asked)
    assert "mean has 24; give numbers from 1 to 24" in problem(bert, "--pairs", pairs, "--dimensions", "25,6")
    for written in ("declared", "4,", "-4", "4.5", ""):
        said = problem(bert, "--pairs", pairs, "--dimensions", written)
        assert said == f"--dimensions {written!r}: write it as numbers with commas, 256,128,64."


def test_texts_without_the_token_that_is_pooled(bert, pairs):
    said = problem(bert, "--pairs", pairs, "--pooling", "mean", "--pooling", 'token("[MASK]")')
    assert said.startswith(f"{pairs}: the text ") and "has no token [MASK], and pooling token('[MASK]')" in said


@pytest.mark.slow
def test_in_spans_without_a_declaration(llama, beir, tmp_path):
    arguments = ["evaluate", llama, "--retrieval", beir, "--chunking", "sentence", "--json", tmp_path / "found.json"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["name"] for each in found["strategies"]] == ["mean", "mean, late", "mean, early"]
    assert (found["declared"], found["fit"]) == (None, False)
    assert found["data"][0]["reference"] == found["choice"]


def test_what_cannot_be_cut_so(bert, beir, pairs, labels):
    for others in (["--pairs", pairs], ["--retrieval", beir, "--classification", labels], []):
        said = problem(bert, *others, "--chunking", "sentence")
        assert said.startswith("--chunking: documents are cut where they are searched. Give --retrieval FOLDER")
    for written, words in (
        ("given", "Input should be 'tokens' or 'sentence'"),
        ("none", "Write it as tokens=64,overlap=16 or sentence"),
        ("sentence,mode=late", "'mode' is not a field here"),
        ("tokens=4,overlap=4", "'overlap' must be less than 'tokens'"),
        ("tokens=-4", "tokens: Input should be a valid integer"),
        ("tokens=0", "tokens: Input should be greater than"),
        ("token=4", "Did you mean 'tokens'?"),
        ("tokens=4,tokens=5", "write it as tokens=64,overlap=16"),
    ):
        said = problem(bert, "--retrieval", beir, "--chunking", written)
        assert said.startswith(f"--chunking '{written}': ") and words in said


@pytest.mark.slow
def test_re_ranked(bert, beir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.out, "width", 10_000)  # each row is one line, whatever runs the test
    arguments = [
        "evaluate",
        bert,
        "--retrieval",
        beir,
        "--rerank",
        "maxsim,depth=5",
        "--json",
        tmp_path / "found.json",
    ]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    [row] = found["data"][0]["reranked"]
    assert (row["strategy"], found["choice"]) == ("mean, maxsim", "mean")
    score = row["scores"]["ndcg@10"]
    shown = f"{100 * score['value']:.2f} ({100 * score['low']:.2f} to {100 * score['high']:.2f})"
    assert re.search(rf"^mean, maxsim +{re.escape(shown)}", result.stdout, re.M)
    assert '"rerank": {"by": "maxsim", "depth": 5}' in found["advice"]


def test_what_cannot_be_re_ranked(bert, beir, pairs):
    for others in (["--pairs", pairs], ["--retrieval", beir, "--chunking", "sentence"], []):
        assert "--rerank: documents that are found whole" in problem(bert, *others, "--rerank", "maxsim")
    for written in ("words", "maxsim,depth=0", "maxsim,depth=101", "maxsim,depth=", "maxsim,deep=3", ""):
        said = problem(bert, "--retrieval", beir, "--rerank", written)
        assert said.startswith(f"--rerank '{written}': write it as maxsim, or maxsim,depth=50")


@pytest.mark.slow
def test_interrupted_it_writes_nothing(environment, bert, table, tmp_path):
    rows = [(f"{text(0, place)} {place}", f"{text(1, place)} {place}", place % 6) for place in range(10_000)]
    path = table("sentence1,sentence2,score", rows, "pairs.csv")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = ["evaluate", str(bert), "--pairs", str(path), "--json", str(tmp_path / "found.json")]
    terminal, stderr = pty.openpty()  # progress is for terminals
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment | {"TMPDIR": str(scratch), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    os.close(stderr)
    with process:
        deadline, shown = time.monotonic() + 120, ""
        while not re.search(r"embedding .*[1-9]\d*/20000", shown):
            assert time.monotonic() < deadline, shown
            shown += os.read(terminal, 4096).decode(errors="replace")
        assert list(scratch.glob("millpond-evaluate-*"))
        process.send_signal(signal.SIGINT)
        shown = ""
        try:
            while part := os.read(terminal, 4096):
                shown += part.decode(errors="replace")
        except OSError:  # the other end is closed
            pass
    os.close(terminal)
    assert process.returncode == 130
    assert "Interrupted: nothing is written. Run the same command again" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "found.json").exists()
    assert not list(scratch.glob("millpond-evaluate-*"))

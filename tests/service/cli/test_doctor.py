"""`millpond doctor`: a folder or a server examined, and an exit status to rely on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess

import pytest

from tests.support import checkpoints

from .conftest import COMMAND, ROOT

pytestmark = pytest.mark.slow

TORCH = {"MILLPOND_RUNTIME__BACKEND": "torch"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("plain") / "bert")


@pytest.fixture(scope="module")
def cls(bert, tmp_path_factory):
    return checkpoints.sentence_transformer(bert, tmp_path_factory.mktemp("cls") / "model", "cls")


def test_help_tells_the_exit_status(millpond):
    said = " ".join(millpond("doctor", "--help").stdout.replace("│", " ").split())
    assert "Exit status: 0 where nothing is wrong, though there may be warnings; 1 where a fault is found" in said


def test_a_sound_model(millpond):
    result = millpond("doctor", "bundled/all-MiniLM-L6-v2", env=TORCH)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1] == "bundled/all-MiniLM-L6-v2 is sound: mean, normalised, and all 12 checks passed."
    assert max(map(len, lines)) <= 100
    assert any(line.split() == ["pooling", "mean", "mean"] for line in lines)
    rows = [line for line in lines if line.startswith("agreement")]
    assert len(rows) == 1 and rows[0].split()[1] == "ok"


def test_several_faults(millpond, minilm, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    changed = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    checkpoints.edit(folder / "1_Pooling" / "config.json", **changed)
    path = folder / "modules.json"
    modules = [module for module in json.loads(path.read_text()) if "Normalize" not in module["type"]]
    modules.append({"idx": 2, "name": "2", "path": "2_Whitening", "type": "my_package.Whitening"})
    path.write_text(json.dumps(modules))
    unwanted = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # by whoever runs this, and nothing to warn of
    result = millpond("doctor", folder, "--json", env=TORCH | unwanted)
    assert (result.returncode, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    assert report["faults"] == ["unknown module", "pooling", "normalisation"]
    assert report["verdict"].startswith(f"{folder} is not sound: 3 faults (unknown module, pooling, normalisation)")
    found = {each["name"]: each for each in report["findings"]}
    assert "my_package.Whitening" in found["unknown module"]["seen"]
    assert all(found[name]["remedy"] for name in report["faults"])
    assert (report["declared"]["pooling"], report["served"]["normalize"]) == ("cls", False)
    strategies = {row["pooling"]: row for row in report["strategies"]}
    assert strategies["mean"]["cosine"] == pytest.approx(1) and strategies["cls"]["cosine"] < 0.6


def test_texts_that_are_too_long(millpond, cls, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\ufeffThe wheel turns.\n\nthe mill [red]\r\n" + "the wheel turns " * 50 + "\n", encoding="utf-8"
    )
    result = millpond("doctor", cls, "--texts", texts, env=TORCH)
    assert result.returncode == 1, result.stderr
    said = " ".join(result.stdout.split())
    assert "truncation fault 33.3% of 3 texts (1) are longer than 64 tokens" in said
    assert "1 fault (truncation)" in result.stdout.splitlines()[-1]


def test_texts_with_words_that_the_tokenizer_does_not_know(millpond, cls, tmp_path):
    known, unknown = tmp_path / "known.txt", tmp_path / "unknown.txt"
    known.write_text("the wheel turns\nthe mill\n")
    unknown.write_text(f"the wheel turns\nthe mill {'x' * 101}\n\u0e01\u0e02 \U0001f9ff\n", encoding="utf-8")
    assert "unknown words" not in millpond("doctor", cls, "--texts", known, env=TORCH).stdout
    said = " ".join(millpond("doctor", cls, "--texts", unknown, env=TORCH).stdout.split())
    assert "unknown words warning" in said and "in 2 of the 3 texts are unknown to the tokenizer" in said


def test_a_folder_that_cannot_be_served(millpond, cls, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(cls, folder)
    (folder / "1_Pooling" / "config.json").write_text("{")
    result = millpond("doctor", folder)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines()[-1].startswith(f"{folder} cannot be served: {folder}/1_Pooling/config.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder", "--url", "localhost:1"], "--url"),
        (["x", "--model-name", "y"], "name the server with --url"),
        (["x", "--url", "http://localhost:1", "--texts", "y"], "Leave one out"),
        (["x", "--texts", "missing.txt"], "--texts missing.txt: No such file or directory"),
        (["x", "--texts", "/dev/null"], "--texts /dev/null: holds no text"),
    ],
)
def test_usage(arguments, message, millpond):
    result = millpond("doctor", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and message in result.stderr


def test_texts_that_are_not_utf8(millpond, tmp_path):
    (tmp_path / "texts").write_bytes(b"ab\xff")
    result = millpond("doctor", "x", "--texts", tmp_path / "texts")
    assert result.returncode == 2 and "is not valid UTF-8 at byte 3" in result.stderr


def test_no_such_model(millpond):
    result = millpond("doctor", "no/such/model/here")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no/such/model/here" in result.stderr


@pytest.mark.parametrize(("pooling", "status"), [("cls", 1), ("mean", 0)])
def test_a_server(pooling, status, millpond, side_by_side):
    url = f"{side_by_side.url}/v1/embeddings"
    arguments = ["doctor", "bundled/all-MiniLM-L6-v2", "--url", url, "--model-name", pooling]
    result = millpond(*arguments, env=TORCH)
    assert (result.returncode, result.stderr) == (status, "")
    verdict = result.stdout.splitlines()[-1]
    if pooling == "cls":
        assert verdict.startswith("This server applies cls, not mean (the declared): cosine 1.0000 to cls, 0.")
        assert "set the server's pooling to mean" in result.stdout
    else:
        assert verdict == "This server applies mean, as it should: cosine 1.0000."


def test_a_server_of_another_model(millpond, side_by_side, cls):
    result = millpond("doctor", cls, "--url", side_by_side.url, env=TORCH)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{side_by_side.url}/embed gives vectors of 384 dimensions, and {cls} gives 24" in result.stderr


def test_something_that_is_no_such_server(millpond, side_by_side, cls):
    result = millpond("doctor", cls, "--url", f"{side_by_side.url}/health")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"no vectors are to be had at {side_by_side.url}/health" in result.stderr
    assert "Give the URL of a route" in result.stderr


def test_a_server_that_is_down(millpond, cls):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = millpond("doctor", cls, "--url", url, "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no server answers at {url}") and "Start it" in result.stderr


def test_interrupted(environment, cls):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*COMMAND, "doctor", str(cls), "--url", url]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(60)
            connection, _ = silent.accept()  # now it waits for an answer
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == 130
    assert message == "Interrupted; nothing was changed. Run the same command again.\n"

"""A service that cannot serve ends at once: status 2, what is wrong, and what would be right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT, Server


def fails(config: Path, store: Path, *words: str, **env: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--config", config, "--store", store, "--port", "0"],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    *log, message = ended.stderr.strip().splitlines()
    assert message.startswith("error: ") and not any("rror" in line for line in log)
    for word in words:
        assert word in message


def config(tmp_path: Path, model: str) -> Path:
    path = tmp_path / "deployment.yaml"
    path.write_text(f"models:\n  default:\n    {model}\n")
    return path


MEAN = ROOT / "configs" / "mean.yaml"


@pytest.mark.slow
def test_a_store_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    fails(MEAN, tmp_path / "file" / "store", "Not a directory", "Choose a folder that this user can create")


def test_a_store_that_another_service_has_open(tmp_path: Path, side_by_side: Server) -> None:
    fails(MEAN, side_by_side.store, "another process has this store open", "Stop it, or choose another folder")
    assert side_by_side.http.get("/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"this is no database " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "millpond.sqlite3"
    database.write_bytes(content)
    fails(MEAN, tmp_path, "millpond.sqlite3", "Restore the file from a backup")
    assert database.read_bytes() == content


@pytest.mark.slow
def test_a_model_folder_that_is_not_there(tmp_path: Path) -> None:
    fails(config(tmp_path, f"encoder: {tmp_path}/none"), tmp_path / "store", f"{tmp_path}/none")


@pytest.mark.slow
def test_damaged_weights(tmp_path: Path, minilm: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for entry in minilm.iterdir():
        if entry.name != "model.safetensors":
            (folder / entry.name).symlink_to(entry)
    weights = (minilm / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    fails(config(tmp_path, f"encoder: {folder}"), tmp_path / "store", str(folder), "weights")


@pytest.mark.slow
def test_a_key_that_is_misspelled(tmp_path: Path) -> None:
    spelled = config(tmp_path, "encoder: bundled/all-MiniLM-L6-v2\n    poolng: cls")
    fails(spelled, tmp_path / "store", str(spelled), "models.default.poolng", "Did you mean 'pooling'?", "Known keys")


@pytest.mark.slow
def test_an_environment_variable_that_is_no_number(tmp_path: Path) -> None:
    fails(MEAN, tmp_path / "store", "MILLPOND_SERVER__MAX_TEXTS", "integer", MILLPOND_SERVER__MAX_TEXTS="few")


@pytest.mark.slow
def test_an_address_that_others_reach_without_keys(tmp_path: Path) -> None:
    fails(
        *(MEAN, tmp_path / "store", "at 0.0.0.0 (server.host)", "it has no keys", "`millpond keys new NAME"),
        *("access.keys_file", "access.open_to_all: true"),
        MILLPOND_SERVER__HOST="0.0.0.0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("host", ["::", "localhost6.invalid"])
def test_other_addresses(tmp_path: Path, host: str) -> None:
    words = ["no keys"] if host == "::" else ["cannot serve at localhost6.invalid"]
    fails(MEAN, tmp_path / "store", *words, MILLPOND_SERVER__HOST=host)


@pytest.mark.slow
def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    for content, words in (
        (None, "there is no such file"),
        ("", "holds no key"),
        ("{a: {scopes: []}}", "a.hash: is required"),
    ):
        if content is not None:
            (tmp_path / "keys.yaml").write_text(content)
        fails(MEAN, tmp_path / "store", words, MILLPOND_ACCESS__KEYS_FILE=str(tmp_path / "keys.yaml"))

"""`millpond export`, `backup`, `restore` and `compact`, beside a running service and without one."""

from __future__ import annotations

import gzip
import json

import pytest

from service.collections.embedded import EmbeddedEngine


def stored(server, name):
    return server.http.get(f"/collections/{name}").json()


@pytest.mark.slow
def test_an_export_is_stored_again_without_embedding(asking, few, name, side_by_side, tmp_path):
    asking("index", few, "--collection", name)
    plain = asking("export", name)
    assert plain.returncode == 0, plain.stderr
    assert [json.loads(line)["id"] for line in plain.stdout.splitlines()] == ["harp", "cat", "dough"]
    file = tmp_path / "notes.jsonl.gz"
    written = asking("export", name, file, "--vectors")
    assert (written.returncode, written.stdout) == (0, f"3 documents in {file}\n")
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert len(lines[0]["vector"]) == 384 and lines[0]["metadata"] == {"year": 2012}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    again = asking("index", file, "--collection", f"{name}-copy")
    assert again.returncode == 0 and again.stdout.startswith("3 stored (0 unchanged), 0 empty"), again.stderr
    assert stored(side_by_side, f"{name}-copy")["precisions"] == []  # no encoder made any of its vectors
    assert asking("export", f"{name}-copy", "--vectors").stdout == asking("export", name, "--vectors").stdout


@pytest.mark.slow
def test_an_export_under_another_fingerprint(asking, few, name, tmp_path, side_by_side):
    asking("index", few, "--collection", name)
    file = tmp_path / "notes.jsonl"
    asking("export", name, file, "--vectors")
    exists = asking("export", name, file)
    assert exists.returncode == 2 and "exists already" in exists.stderr
    assert "give it a name that ends in" in asking("export", name, tmp_path / "notes.txt").stderr
    assert "there is no collection" in asking("export", "nothing", tmp_path / "other.jsonl").stderr
    assert [entry.name for entry in tmp_path.iterdir() if "other" in entry.name] == []
    other = f"{name}-max"
    refused = asking("index", file, "--collection", other, "--model", "max")
    assert refused.returncode == 1 and "was made under fingerprint" in refused.stderr
    assert side_by_side.http.get(f"/collections/{other}").status_code == 404
    embedded = asking("index", file, "--collection", other, "--model", "max", "--embed-again")
    assert embedded.returncode == 0 and embedded.stdout.startswith("3 stored")
    foreign = asking("index", file, "--collection", f"{name}-foreign", "--dimension", 384)
    assert foreign.returncode == 0, foreign.stderr
    assert stored(side_by_side, f"{name}-foreign")["model"] is None


@pytest.mark.slow
def test_backup_beside_a_service_and_restore(asking, millpond, few, name, side_by_side, tmp_path):
    asking("index", few, "--collection", name)
    made = millpond("backup", tmp_path / "backup", "--store", side_by_side.store)
    assert made.returncode == 0 and f"MB in {tmp_path / 'backup'}, SHA-256 " in made.stdout, made.stderr
    again = millpond("backup", tmp_path / "backup", "--store", side_by_side.store)
    assert again.returncode == 2 and "holds a store or a backup already" in again.stderr
    running = millpond("restore", tmp_path / "backup", "--store", side_by_side.store, "--force")
    assert running.returncode == 2 and "another process has this store open" in running.stderr
    restored = millpond("restore", tmp_path / "backup", "--store", tmp_path / "new")
    assert restored.returncode == 0, restored.stderr
    opened = EmbeddedEngine(tmp_path / "new")
    assert opened.get(name).count() == 3
    opened.close()
    compact = millpond("compact", "--store", tmp_path / "new")
    assert compact.returncode == 0 and " MB before, " in compact.stdout
    assert "holds no store" in millpond("compact", "--store", tmp_path / "nothing").stderr
    asked = asking("compact")
    assert asked.returncode == 0 and " MB now" in asked.stdout

"""The import contract in pyproject.toml holds, and an import against an arrow breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the contract is about, in a folder of its own."""
    for name in ("millpond", "pooling", "service"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def plant(file: Path, imported: str) -> None:
    file.write_text(f"{file.read_text()}\nimport {imported}\n")


def test_the_contract_is_kept(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_every_import_against_an_arrow_is_refused(copy: Path) -> None:
    against = {
        "service/errors.py": "service.config",
        "service/encoder/queue.py": "service.embedding.embedder",
        "service/store/schema.py": "service.collections.embedded.collection",
        "service/collections/service.py": "service.collections.embedded",
        "service/collections/reindex.py": "service.store.transaction",
        "service/deployment.py": "service.api.app",
        "service/doctor/findings.py": "service.training.export",
        "service/config.py": "millpond",
        "service/similarity.py": "tests",
        "pooling/base.py": "service.errors",
        "pooling/masks.py": "yaml",
    }
    for module, imported in against.items():
        plant(copy / module, imported)
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    for module, imported in against.items():
        importer = module.removesuffix(".py").replace("/", ".")
        assert f"{importer} -> {imported} " in done.stdout, done.stdout


def test_a_circle_is_refused(copy: Path) -> None:
    plant(copy / "pooling" / "base.py", "pooling.registry")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No cycles are allowed in pooling" in done.stdout


def test_every_module_of_service_has_its_place(copy: Path) -> None:
    (copy / "service" / "loose.py").touch()
    done = lint(copy)
    assert done.returncode == 1
    assert "loose" in done.stdout

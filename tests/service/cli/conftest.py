"""The command line as a user has it: a process of its own, asking a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from typer.testing import CliRunner

from service.cli import app
from tests.support.deployed import TINY

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "service"]


@pytest.fixture(scope="session")
def environment():
    """The process's own, without settings for Millpond or for the look of a terminal."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("MILLPOND_") and k not in ("COLUMNS", "FORCE_COLOR")
    }
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "PYTHONWARNINGS": "error::ResourceWarning"}


@pytest.fixture
def millpond(environment):
    """Runs a command; gives its exit status and output."""

    def run(*arguments, env=None, text=True, **options):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=ROOT,
            env=environment | (env or {}),
            capture_output=True,
            text=text,
            timeout=240,
            **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
            **options,
        )

    return run


@pytest.fixture
def asking(millpond, side_by_side):
    """The same, asking the shared service."""

    def run(*arguments, **options):
        return millpond(*arguments, env={"MILLPOND_URL": side_by_side.url}, **options)

    return run


class Here:
    """Runs a command in this process over a tiny model of its own."""

    def __init__(self, folder):
        self.store, self._config = folder / "store", folder / "tiny.yaml"
        runtime = {"backend": "torch", "precision": "fp32", "threads": 1}
        models = {"tiny": {"encoder": str(TINY)}}
        self._config.write_text(yaml.safe_dump({"models": models, "runtime": runtime}))

    def __call__(self, command, *arguments):
        return CliRunner().invoke(app, [command, "--config", str(self._config), *arguments])


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path)


@pytest.fixture
def name():
    """A collection that no other test uses."""
    return f"c-{uuid4().hex[:12]}"


@pytest.fixture
def jsonl(tmp_path):
    """Writes a file of JSON lines."""

    def write(*lines, file="documents.jsonl"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def few(jsonl):
    """Three documents."""
    return jsonl(
        {"id": "harp", "text": "A man is playing a harp.", "metadata": {"year": 2012}},
        {"id": "cat", "text": "A cat sleeps [red] in the sun.", "metadata": {"year": 2020}},
        {"id": "dough", "text": "A woman kneads dough for bread."},
    )

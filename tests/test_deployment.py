"""What a deployment is made of: the configs, the Dockerfile, and the gate."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from service.config import load_config
from tests.support.manifests import DOCKERFILE, Image

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_promised_configs_are_there() -> None:
    names = {path.stem for path in CONFIGS}
    assert names >= {"mean", "cls", "max", "last", "attention", "gem", "side-by-side"}


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_can_be_served(path: Path) -> None:
    models = load_config(path, env={}).models
    checked = subprocess.run(
        [sys.executable, "-m", "service", "config", "check", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert all(name[:4] in checked.stdout for name in models)


def test_dockerfile_installs_as_the_makefile_does() -> None:
    dockerfile = DOCKERFILE.read_text()
    assert "pip install" not in dockerfile
    installed = re.findall(r"^RUN make (\S+) VENV=(\S+)", dockerfile, re.MULTILINE)
    assert installed == [("torch", "/opt/millpond"), ("install", "/opt/millpond")]
    assert Image().env["PATH"].startswith("/opt/millpond/bin:")
    for names in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in names.split():
            assert (ROOT / name).exists(), name
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in packages["packages"]:
        assert f"COPY {name} {name}\n" in dockerfile


def test_every_requirement_is_pinned() -> None:
    pins = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    project = (ROOT / "pyproject.toml").read_text()
    wanted = set(re.findall(r'^\s+"([A-Za-z0-9_-]+)[>=]', project, re.MULTILINE))
    assert {name.lower() for name in wanted} <= pins


def test_pre_commit_hooks_run_commands_of_the_makefile() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = {line.strip().replace("$(BIN)", ".venv/bin") for line in (ROOT / "Makefile").read_text().splitlines()}
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "mypy"}
    assert {hook["entry"] for hook in hooks} <= commands

"""What a deployment is made of: the configs, the compose file, the Dockerfile, and the gate."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.config import load_config

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


def test_compose_file_follows_its_schema() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")),
        ],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_keeps_documents_and_watches_health() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["millpond"]
    assert [volume.split(":")[1] for volume in service["volumes"]] == ["/data"]
    assert "/ready" in service["healthcheck"]["test"][-1]
    assert "MILLPOND_STORE__PATH=/data" in (ROOT / "Dockerfile").read_text()


def test_compose_makes_a_key_before_the_service_starts() -> None:
    """The service refuses to start without one where a container publishes it."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    maker, service = services["key"], services["millpond"]
    assert service["depends_on"] == {"key": {"condition": "service_completed_successfully"}}
    assert maker["command"][:2] == ["keys", "new"] and "--unless-there" in maker["command"]
    for each in (maker, service):
        assert each["environment"]["MILLPOND_ACCESS__KEYS_FILE"].startswith("/data/")
        assert "store:/data" in each["volumes"]


def test_dockerfile_installs_as_the_makefile_does_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "pip install" not in dockerfile
    assert set(re.findall(r"^RUN make (\S+)$", dockerfile, re.MULTILINE)) == {"torch", "install"}
    user = re.search(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert user is not None and user[1] not in ("root", "0")
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


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

"""Linters over what deploys the service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.manifests import COMPOSE, DOCKERFILE, KUBERNETES, OVER_MILVUS, manifests
from tests.support.servers import ROOT

BIN = Path(sys.executable).parent


def check(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_compose_file_follows_its_schema() -> None:
    check(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_hadolint_takes_the_dockerfile() -> None:
    check(BIN / "hadolint", DOCKERFILE)


def test_shellcheck_takes_the_scripts() -> None:
    check(BIN / "shellcheck", *(path for path in (ROOT / ".ci").iterdir() if b"bash" in path.read_bytes()[:40]))


@pytest.mark.parametrize("folder", [KUBERNETES, OVER_MILVUS], ids=lambda folder: folder.name)
def test_each_manifest_follows_its_schema(folder: Path) -> None:
    for document in manifests(folder).values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        service = next(document for (kind, _), document in manifests(folder).items() if kind == "Service")
        kubernetes_validate.validate(
            service | {"spec": {"ports": 80}},
            kubernetes_validate.latest_version(),
            strict=True,
        )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("source", [KUBERNETES, OVER_MILVUS], ids=lambda source: source.name)
def test_kustomize_puts_the_manifests_together(source: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(source, tmp_path / "kubernetes")
    (folder / "keys.yaml").write_text("{}")
    built = [*yaml.safe_load_all(check("kubectl", "kustomize", folder))]
    assert {(each["kind"], each["metadata"]["name"]) for each in built} >= manifests(source).keys() | {
        ("Secret", "millpond-keys")
    }
    for document in built:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "millpond"
        spec = document["spec"].get("template", {}).get("spec") if "spec" in document else None
        if spec:
            assert spec["containers"][0]["image"].startswith("registry.example.com/millpond")
            config = next(volume for volume in spec["volumes"] if volume["name"] == "config")
            assert config["configMap"]["name"].startswith("millpond-config-")

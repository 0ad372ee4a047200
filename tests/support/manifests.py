"""What deploys the service, as its files say it: the Dockerfile, the compose file, the manifests of Kubernetes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.servers import ROOT

DOCKERFILE: Final = ROOT / "Dockerfile"
COMPOSE: Final = ROOT / "docker-compose.yml"
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
OVER_MILVUS: Final = ROOT / "deploy" / "kubernetes-milvus"


class Image:
    """What the Dockerfile says of the image: of its last stage."""

    def __init__(self) -> None:
        self.text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
        last = self.text[self.text.rindex("\nFROM ") :]
        said = dict(re.findall(r"^(ENV|USER|WORKDIR|EXPOSE|ENTRYPOINT|CMD) (.+)$", last, re.MULTILINE))
        self.env: dict[str, str] = dict(part.split("=", 1) for part in said["ENV"].split())
        self.user, self.group = map(int, said["USER"].split(":"))
        self.workdir, self.port = said["WORKDIR"], int(said["EXPOSE"])
        self.command: list[str] = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
        self.made_writable: list[str] = re.findall(r"^RUN install .*--mode=0775 (.+)$", last, re.MULTILINE)[0].split()


def compose() -> dict[str, Any]:
    """Return the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def kustomization(folder: Path = KUBERNETES) -> dict[str, Any]:
    """Return what puts the manifests of a folder together."""
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


@cache
def manifests(folder: Path = KUBERNETES) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests of a folder as they are written, by kind and name."""
    documents = [
        document
        for name in kustomization(folder)["resources"]
        for document in yaml.safe_load_all((folder / name).read_text())
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pods(folder: Path = KUBERNETES) -> dict[str, dict[str, Any]]:
    """Return the template of each kind of pod in a folder, by the name of what makes it."""
    return {
        name: document["spec"]["template"]
        for (_, name), document in manifests(folder).items()
        if "template" in document.get("spec", {})
    }

"""What deploys the service, as its files say it: the Dockerfile, the compose file, the manifests of Kubernetes."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final

import yaml

from tests.support.servers import ROOT

DOCKERFILE: Final = ROOT / "Dockerfile"
COMPOSE: Final = ROOT / "docker-compose.yml"
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"


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


def kustomization() -> dict[str, Any]:
    """Return what puts the manifests together."""
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    return found


@cache
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests as they are written, by kind and name."""
    documents = [
        document
        for name in kustomization()["resources"]
        for document in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pods() -> dict[str, dict[str, Any]]:
    """Return the template of each kind of pod, by the name of what makes it."""
    return {
        name: document["spec"]["template"]
        for (_, name), document in manifests().items()
        if "template" in document.get("spec", {})
    }

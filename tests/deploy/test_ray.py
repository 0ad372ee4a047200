"""What linters do not see in the manifest of KubeRay: that it agrees with the config, the code and itself."""

from __future__ import annotations

import ast
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from service.cluster.settings import most_replicas, require_clusterable
from service.config import Config, make_config
from tests.support.servers import ROOT

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def documents() -> dict[str, Manifest]:
    text = (ROOT / "deploy" / "ray" / "rayservice.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def application(documents: dict[str, Manifest]) -> Manifest:
    (found,) = yaml.safe_load(documents["RayService"]["spec"]["serveConfigV2"])["applications"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def config(documents: dict[str, Manifest]) -> Config:
    return make_config(yaml.safe_load(documents["ConfigMap"]["data"]["config.yaml"]), "the ConfigMap", env={})


def groups(documents: dict[str, Manifest]) -> tuple[Manifest, Manifest]:
    cluster = documents["RayService"]["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"], workers


def test_replicas_can_serve_the_config(config: Config) -> None:
    require_clusterable(config)


def test_the_application_is_a_function_that_is_there(application: Manifest) -> None:
    module, name = application["import_path"].split(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())  # Ray may not be installed here
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert application["args"].keys() == {"config"}


def test_every_machine_has_the_files_that_are_named(
    documents: dict[str, Manifest], application: Manifest, config: Config
) -> None:
    keys = config.access.keys_file
    assert keys is not None
    for group in groups(documents):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {PurePosixPath(each["mountPath"]): each["name"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in pod["volumes"]}
        of_config = volumes[mounts[PurePosixPath(application["args"]["config"]).parent]]
        assert of_config["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
        assert "secret" in volumes[mounts[PurePosixPath(keys).parent]]


def test_a_worker_has_room_for_a_replica_and_there_may_be_as_many(
    documents: dict[str, Manifest], config: Config
) -> None:
    _, workers = groups(documents)
    (container,) = workers["template"]["spec"]["containers"]
    assert float(container["resources"]["requests"]["cpu"]) == config.cluster.replica_cpus
    assert workers["maxReplicas"] >= most_replicas(config)
    assert workers["minReplicas"] == config.cluster.replicas


def test_the_version_of_ray_is_the_extras(documents: dict[str, Manifest]) -> None:
    (extra,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    version = documents["RayService"]["spec"]["rayClusterConfig"]["rayVersion"]
    assert extra == f"ray[data,serve]=={version.rpartition('.')[0]}.*"
    assert f'"{extra}"' in (ROOT / "docs" / "ray.md").read_text()

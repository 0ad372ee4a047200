"""What linters do not see in the manifests: that they agree with the service, the image, and each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.access import digest
from service.config import Config, load_config
from tests.support.applications import application, ask, tiny_deployment
from tests.support.manifests import KUBERNETES, Image, kustomization, manifests, pods

IMAGE = Image()
PODS = pytest.mark.parametrize("name", ["millpond-embed", "millpond-store"])


@pytest.fixture(scope="module")
def config() -> Config:
    twins = {name: value for name, value in IMAGE.env.items() if name.startswith("MILLPOND_")}
    return load_config(KUBERNETES / "config.yaml", env=twins)


@pytest.fixture(scope="module")
def app(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A tiny model, with the settings of the manifests, and a key."""
    keys = {"someone": {"hash": digest("someone's"), "scopes": ["embed"]}}
    access = config.access.model_dump() | {"keys_file": None, "keys": keys}
    with tiny_deployment(tmp_path_factory.mktemp("tiny") / "store") as served:
        yield application(served, server=config.server.model_dump(), access=access)


def container(name: str) -> dict[str, Any]:
    (found,) = pods()[name]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def probes(name: str) -> dict[str, dict[str, Any]]:
    return {key: value for key, value in container(name).items() if key.endswith("Probe")}


def test_there_are_these_pods() -> None:
    assert sorted(pods()) == ["millpond-embed", "millpond-store"]


@PODS
def test_probes_ask_routes_that_are_there_without_a_key(app: FastAPI, name: str) -> None:
    paths = {probe: what["httpGet"]["path"] for probe, what in probes(name).items()}
    assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}
    document = ask(app, "GET", "/openapi.json").json()
    for path in paths.values():
        assert "get" in document["paths"][path]
        assert ask(app, "GET", path).status_code == 200
    assert ask(app, "GET", "/info").status_code == 401


@PODS
def test_the_port_is_that_of_the_service(config: Config, name: str) -> None:
    (port,) = container(name)["ports"]
    assert port["containerPort"] == config.server.port == IMAGE.port
    assert {what["httpGet"]["port"] for what in probes(name).values()} == {port["name"]}
    (exposed,) = manifests()["Service", name]["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    (allowed,) = manifests()["NetworkPolicy", "millpond"]["spec"]["ingress"]
    assert allowed["ports"] == [{"port": port["containerPort"]}]
    scraped = pods()[name]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(port["containerPort"])


@PODS
def test_a_pod_has_the_time_that_a_stop_takes(config: Config, name: str) -> None:
    before = int(container(name)["lifecycle"]["preStop"]["exec"]["command"][1])
    given = pods()[name]["spec"]["terminationGracePeriodSeconds"]
    assert given >= before + config.server.shutdown_timeout + 5


@PODS
def test_a_first_start_has_minutes(name: str) -> None:
    startup = probes(name)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@PODS
def test_the_metrics_are_where_they_are_scraped(app: FastAPI, name: str) -> None:
    answer = ask(app, "GET", pods()[name]["metadata"]["annotations"]["prometheus.io/path"])
    assert answer.status_code == 200 and "millpond_info" in answer.text


def test_replicas_are_scaled_by_a_gauge_of_each_pod(app: FastAPI) -> None:
    spec = manifests()["HorizontalPodAutoscaler", "millpond-embed"]["spec"]
    scaled = spec["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) in manifests()
    (metric,) = spec["metrics"]
    families = {each.name: each for each in text_string_to_metric_families(ask(app, "GET", "/metrics").text)}
    gauge = families[metric["pods"]["metric"]["name"]]
    assert gauge.type == "gauge" and gauge.samples
    assert "replicas" not in manifests()["Deployment", "millpond-embed"]["spec"]  # which would undo it at each apply


@PODS
def test_all_that_is_written_is_mounted(config: Config, name: str) -> None:
    inside = container(name)
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount for mount in inside["volumeMounts"]}
    writable = [PurePosixPath(path) for path, mount in mounts.items() if not mount.get("readOnly")]
    for path in (config.store.path, config.runtime.cache, IMAGE.env["HF_HOME"], "/tmp"):
        assert any(PurePosixPath(str(path)).is_relative_to(mount) for mount in writable), path
    spec = pods()[name]["spec"]
    claimed = manifests().get(("StatefulSet", name), {"spec": {}})["spec"].get("volumeClaimTemplates", [])
    volumes = {volume["name"]: volume for volume in spec["volumes"]} | {
        claim["metadata"]["name"]: claim for claim in claimed
    }
    assert {mount["name"] for mount in mounts.values()} == volumes.keys()
    given = inside["args"][inside["args"].index("--config") + 1]
    for file, mount, generated in (
        (given, "config", kustomization()["configMapGenerator"]),
        (str(config.access.keys_file), "keys", kustomization()["secretGenerator"]),
    ):
        folder, _, base = file.rpartition("/")
        assert mounts[folder]["name"] == mount
        source = volumes[mount]
        named = source["configMap"]["name"] if mount == "config" else source["secret"]["secretName"]
        assert [(each["name"], each["files"]) for each in generated] == [(named, [base])]


@PODS
def test_a_pod_is_nobody_special(name: str) -> None:
    spec = pods()[name]["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] and "runAsUser" not in context  # so that OpenShift may choose
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert IMAGE.user > 0 and IMAGE.group == 0  # Kubernetes takes no name for what is not root
    assert not spec["automountServiceAccountToken"]
    limits = container(name)["resources"]
    assert limits["requests"]["cpu"] == limits["limits"]["cpu"]


@pytest.mark.parametrize(("kind", "name"), [key for key in manifests() if key[1] in pods()])
def test_selectors_find_the_pods_that_are_meant(kind: str, name: str) -> None:
    spec = manifests()[kind, name]["spec"]
    selector = spec.get("selector", {})
    selector = selector.get("matchLabels", selector)
    wanted = pods()[name]["metadata"]["labels"]
    assert kind == "HorizontalPodAutoscaler" or selector == wanted
    assert [pods()[other]["metadata"]["labels"] == wanted for other in pods()].count(True) == 1


def test_a_store_has_one_writer_and_a_volume() -> None:
    spec = manifests()["StatefulSet", "millpond-store"]["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"


def test_both_pods_are_run_alike() -> None:
    embed, store = container("millpond-embed"), container("millpond-store")
    assert {key for key in embed if embed[key] != store[key]} == {"resources"}


def test_the_keys_that_somebody_makes_are_not_committed() -> None:
    (secret,) = kustomization()["secretGenerator"]
    assert [f"/{name}" for name in secret["files"]] == (KUBERNETES / ".gitignore").read_text().split()

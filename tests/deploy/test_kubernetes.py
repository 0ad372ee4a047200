"""What linters do not see in the manifests: that they agree with the service, the image, and each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.access import digest
from service.config import Config, load_config
from tests.support.applications import application, ask, tiny_deployment
from tests.support.manifests import KUBERNETES, OVER_MILVUS, Image, kustomization, manifests, pods
from tests.support.servers import ROOT

IMAGE = Image()
FOLDERS = {"millpond-embed": KUBERNETES, "millpond-store": KUBERNETES, "millpond-api": OVER_MILVUS}
PODS = pytest.mark.parametrize("name", FOLDERS)
TWINS = {name: value for name, value in IMAGE.env.items() if name.startswith("MILLPOND_")}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(KUBERNETES / "config.yaml", env=TWINS)


@pytest.fixture(scope="module")
def app(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A tiny model, with the settings of the manifests, and a key."""
    keys = {"someone": {"hash": digest("someone's"), "scopes": ["embed"]}}
    access = config.access.model_dump() | {"keys_file": None, "keys": keys}
    with tiny_deployment(tmp_path_factory.mktemp("tiny") / "store") as served:
        yield application(served, server=config.server.model_dump(), access=access)


def template(name: str) -> dict[str, Any]:
    return pods(FOLDERS[name])[name]


def container(name: str) -> dict[str, Any]:
    (found,) = template(name)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def probes(name: str) -> dict[str, dict[str, Any]]:
    return {key: value for key, value in container(name).items() if key.endswith("Probe")}


def test_there_are_these_pods() -> None:
    assert [*pods(), *pods(OVER_MILVUS)] == [*FOLDERS]


def test_over_milvus_only_the_store_is_another(config: Config) -> None:
    other = load_config(OVER_MILVUS / "config.yaml", env=TWINS)
    assert {key for key, value in other.model_dump().items() if value != config.model_dump()[key]} == {"store"}
    _, milvus = manifests(OVER_MILVUS)["NetworkPolicy", "millpond"]["spec"]["egress"]
    (namespace,) = [each["namespaceSelector"]["matchLabels"] for each in milvus["to"]]
    host, _, port = other.store.uri.removeprefix("http://").partition(":")
    assert other.store.engine == "milvus" and milvus["ports"] == [{"port": int(port)}]
    assert host.split(".")[1:] == [namespace["kubernetes.io/metadata.name"], "svc"]


def test_an_ingress_asks_another_pod_where_nothing_is_found_twice() -> None:
    """As nginx does; tests/deploy/test_over_milvus.py tries that."""
    prefix = "nginx.ingress.kubernetes.io/proxy-next-upstream"
    said = {}
    for name in ("millpond-api", "millpond-api-once"):
        ingress = manifests(OVER_MILVUS)["Ingress", name]
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        service = manifests(OVER_MILVUS)["Service", path["backend"]["service"]["name"]]
        assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]
        said[path["path"]] = ingress["metadata"]["annotations"][prefix]
    conf = (ROOT / "deploy" / "nginx-milvus.conf").read_text()
    assert f"proxy_next_upstream {said['/']};" in conf
    assert f"proxy_next_upstream {said['/collections/[^/]+/(copy|rename|reindex)$']};" in conf


@PODS
def test_probes_ask_routes_that_are_there_without_a_key(app: FastAPI, name: str) -> None:
    paths = {probe: what["httpGet"]["path"] for probe, what in probes(name).items()}
    ready = "/health" if name == "millpond-api" else "/ready"
    assert paths == {"startupProbe": ready, "readinessProbe": ready, "livenessProbe": "/health"}
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
    (exposed,) = manifests(FOLDERS[name])["Service", name]["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    (allowed,) = manifests(FOLDERS[name])["NetworkPolicy", "millpond"]["spec"]["ingress"]
    assert allowed["ports"] == [{"port": port["containerPort"]}]
    scraped = template(name)["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(port["containerPort"])


@PODS
def test_a_pod_has_the_time_that_a_stop_takes(config: Config, name: str) -> None:
    before = int(container(name)["lifecycle"]["preStop"]["exec"]["command"][1])
    given = template(name)["spec"]["terminationGracePeriodSeconds"]
    assert given >= before + config.server.shutdown_timeout + 5


@PODS
def test_a_first_start_has_minutes(name: str) -> None:
    startup = probes(name)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@PODS
def test_the_metrics_are_where_they_are_scraped(app: FastAPI, name: str) -> None:
    answer = ask(app, "GET", template(name)["metadata"]["annotations"]["prometheus.io/path"])
    assert answer.status_code == 200 and "millpond_info" in answer.text


@pytest.mark.parametrize("name", ["millpond-embed", "millpond-api"])
def test_replicas_are_scaled_by_a_gauge_of_each_pod(app: FastAPI, name: str) -> None:
    there = manifests(FOLDERS[name])
    spec = there["HorizontalPodAutoscaler", name]["spec"]
    scaled = spec["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) in there
    (metric,) = spec["metrics"]
    families = {each.name: each for each in text_string_to_metric_families(ask(app, "GET", "/metrics").text)}
    gauge = families[metric["pods"]["metric"]["name"]]
    assert gauge.type == "gauge" and gauge.samples
    assert "replicas" not in there["Deployment", name]["spec"]  # which would undo it at each apply


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
    spec = template(name)["spec"]
    claimed = (
        manifests(FOLDERS[name]).get(("StatefulSet", name), {"spec": {}})["spec"].get("volumeClaimTemplates", [])
    )
    volumes = {volume["name"]: volume for volume in spec["volumes"]} | {
        claim["metadata"]["name"]: claim for claim in claimed
    }
    assert {mount["name"] for mount in mounts.values()} == volumes.keys()
    given = inside["args"][inside["args"].index("--config") + 1]
    for file, mount, generated in (
        (given, "config", kustomization(FOLDERS[name])["configMapGenerator"]),
        (str(config.access.keys_file), "keys", kustomization(FOLDERS[name])["secretGenerator"]),
    ):
        folder, _, base = file.rpartition("/")
        assert mounts[folder]["name"] == mount
        source = volumes[mount]
        named = source["configMap"]["name"] if mount == "config" else source["secret"]["secretName"]
        assert [(each["name"], each["files"]) for each in generated] == [(named, [base])]


@PODS
def test_a_pod_is_nobody_special(name: str) -> None:
    spec = template(name)["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] and "runAsUser" not in context  # so that OpenShift may choose
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert IMAGE.user > 0 and IMAGE.group == 0  # Kubernetes takes no name for what is not root
    assert not spec["automountServiceAccountToken"]
    limits = container(name)["resources"]
    assert limits["requests"]["cpu"] == limits["limits"]["cpu"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for folder in (KUBERNETES, OVER_MILVUS)
        for kind, name in manifests(folder)
        if name in FOLDERS and kind != "Ingress"  # which leads to a Service
    ],
)
def test_selectors_find_the_pods_that_are_meant(kind: str, name: str) -> None:
    there = pods(FOLDERS[name])
    spec = manifests(FOLDERS[name])[kind, name]["spec"]
    selector = spec.get("selector", {})
    selector = selector.get("matchLabels", selector)
    wanted = template(name)["metadata"]["labels"]
    assert kind == "HorizontalPodAutoscaler" or selector == wanted
    assert [other["metadata"]["labels"] == wanted for other in there.values()].count(True) == 1


def test_a_store_has_one_writer_and_a_volume() -> None:
    spec = manifests()["StatefulSet", "millpond-store"]["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"


def test_all_pods_are_run_alike() -> None:
    embed, store, api = map(container, FOLDERS)
    assert {key for key in embed if embed[key] != store[key]} == {"resources"}
    assert {key for key in embed if embed[key] != api[key]} == {"startupProbe", "readinessProbe"}


@pytest.mark.parametrize("folder", [KUBERNETES, OVER_MILVUS], ids=lambda folder: folder.name)
def test_the_keys_that_somebody_makes_are_not_committed(folder: Path) -> None:
    (secret,) = kustomization(folder)["secretGenerator"]
    assert [f"/{name}" for name in secret["files"]] == (folder / ".gitignore").read_text().split()

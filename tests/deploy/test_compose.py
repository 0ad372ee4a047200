"""The compose file: a single service, replicas behind nginx, and what watches either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import ServerConfig, make_config, read_keys
from tests.support.manifests import Image, compose
from tests.support.promql import DASHBOARD, RULES
from tests.support.servers import ROOT

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] in ("millpond", "millpond-milvus")]
APIS = ["api-1", "api-2"]
SERVING = ["millpond", "millpond-1", "millpond-2", *APIS]


def mounts(name: str) -> dict[str, str]:
    """What is mounted in a container, by the path inside."""
    parts = [volume.split(":") for volume in SERVICES[name]["volumes"]]
    return {inside: outside for outside, inside, *_ in parts}


def published(name: str) -> str:
    """The port of the container that is published."""
    (port,) = SERVICES[name]["ports"]
    host, _, inside = port.rsplit(":", 2)
    assert host == "127.0.0.1"
    return str(inside)


def test_what_each_profile_starts() -> None:
    profiles: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        for profile in service.get("profiles", [""]):
            profiles.setdefault(profile, []).append(name)
    assert profiles == {
        "": ["key", "millpond"],
        "replicas": ["millpond-1", "millpond-2", "gateway"],
        "milvus": ["milvus", *APIS, "milvus-gateway"],
        "monitoring": ["prometheus-key", "prometheus", "grafana"],
    }
    for service in SERVICES.values():
        for wanted in service.get("depends_on", ()):
            assert set(SERVICES[wanted].get("profiles", ())) <= set(service.get("profiles", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert name in OURS or re.search(r":v?\d+\.\d+", service["image"])
    for outside in mounts(name).values():
        assert (ROOT / outside).exists() if outside.startswith(".") else outside in compose()["volumes"]


def test_a_key_is_made_before_a_service_starts() -> None:
    """The service refuses to start without one where a container publishes it."""
    maker = SERVICES["key"]
    assert maker["command"][:2] == ["keys", "new"] and "--unless-there" in maker["command"]
    for name in OURS:
        file = Path(SERVICES[name]["environment"]["MILLPOND_ACCESS__KEYS_FILE"])
        assert mounts(name)[str(file.parent)] == "keys"
        assert str(file.parent) in Image().made_writable
    for name in SERVING:
        assert SERVICES[name]["depends_on"] == {"key": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", SERVING)
def test_a_service_is_watched_and_has_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    assert ("/health" if name in APIS else "/ready") in service["healthcheck"]["test"][-1]
    assert service["command"] == Image().command[1:]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= ServerConfig().shutdown_timeout + 5


def test_documents_are_kept() -> None:
    image = Image()
    assert mounts("millpond")[image.env["MILLPOND_STORE__PATH"]] == "store"
    assert published("millpond") == str(image.port)
    assert image.env["MILLPOND_STORE__PATH"] in image.made_writable


@pytest.mark.parametrize(("gateway", "replicas"), [("gateway", SERVING[1:3]), ("milvus-gateway", APIS)])
def test_nginx_leads_to_the_replicas(gateway: str, replicas: list[str]) -> None:
    config = (ROOT / mounts(gateway)["/etc/nginx/conf.d/default.conf"]).read_text()
    for upstream in re.findall(r"^upstream .*?^}", config, re.MULTILINE | re.DOTALL):
        asked = re.findall(r"server ([\w-]+):(\d+)", upstream)
        assert asked == [(name, str(Image().port)) for name in replicas]
    assert f"listen {published(gateway)};" in config
    assert set(SERVICES[gateway]["depends_on"]) - {"milvus"} == {*replicas}


def test_replicas_over_milvus_are_built_for_it_and_hold_nothing() -> None:
    for name in APIS:
        given = SERVICES[name]["environment"] | Image().env
        said = {"models": {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}}
        store = make_config(said, "compose", env={k: v for k, v in given.items() if k.startswith("MILLPOND_")}).store
        assert store.engine == "milvus" and "store" not in mounts(name).values()
        host, _, port = store.uri.removeprefix("http://").partition(":")
        assert (SERVICES[host]["image"].partition(":")[0], port) == ("milvusdb/milvus", "19530")
        extras = SERVICES[name]["build"]["args"]["EXTRAS"].split(",")
        assert {"milvus", *default_extras()} == {*extras}
    data = [path for path, volume in mounts("milvus").items() if volume == "milvus"]
    assert data == ["/var/lib/milvus"]


def default_extras() -> list[str]:
    (found,) = re.findall(r"^ARG EXTRAS=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"EXTRAS ?= {found}\n" in (ROOT / "Makefile").read_text()
    return str(found).split(",")


def test_prometheus_scrapes_each_service_with_its_key() -> None:
    command = SERVICES["prometheus"]["command"]
    given = next(part.partition("=")[2] for part in command if part.startswith("--config.file="))
    file = ROOT / mounts("prometheus")[str(Path(given).parent)] / Path(given).name
    config = yaml.safe_load(file.read_text())
    assert [file.parent / name for name in config["rule_files"]] == [RULES]
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == SERVING and found["port"] == Image().port
    key = job["authorization"]["credentials_file"]
    assert mounts("prometheus")[str(Path(key).parent)] == "keys"
    assert f"> {key}" in SERVICES["prometheus-key"]["entrypoint"][-1]
    assert any(mounts("prometheus").get(part.partition("=")[2]) == "prometheus" for part in command)


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    provisioning = ROOT / mounts("grafana")["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "millpond.yml").read_text())["providers"]
    assert (ROOT / mounts("grafana")[provider["options"]["path"]]).resolve() == DASHBOARD.parent
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"].partition("://")[2].partition(":")[0] in SERVICES


@pytest.mark.slow
def test_the_key_of_prometheus_is_made_once(tmp_path: Path) -> None:
    shell, flag, script = SERVICES["prometheus-key"]["entrypoint"]
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env["MILLPOND_ACCESS__KEYS_FILE"] = str(tmp_path / "keys.yaml")
    (tmp_path / "millpond").write_text(f'#!/bin/sh\nexec {sys.executable} -m service "$@"\n')
    (tmp_path / "millpond").chmod(0o755)
    here = [shutil.which(shell) or shell, flag, script.replace("/keys/", f"{tmp_path}/")]
    shown = []
    for _ in range(2):
        subprocess.run(here, cwd=ROOT, env=env, check=True)
        shown.append((tmp_path / "prometheus").read_text())
    assert shown[0] == shown[1] and shown[0].startswith("millpond_")
    assert {name: key.scopes for name, key in read_keys(tmp_path / "keys.yaml").items()} == {"prometheus": []}

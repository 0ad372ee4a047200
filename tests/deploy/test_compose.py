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

from service.config import ServerConfig, read_keys
from tests.support.manifests import Image, compose
from tests.support.promql import DASHBOARD, RULES
from tests.support.servers import ROOT

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "millpond"]
SERVING = ["millpond", "millpond-1", "millpond-2"]


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
    assert "/ready" in service["healthcheck"]["test"][-1]
    assert service["command"] == Image().command[1:]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= ServerConfig().shutdown_timeout + 5


def test_documents_are_kept() -> None:
    image = Image()
    assert mounts("millpond")[image.env["MILLPOND_STORE__PATH"]] == "store"
    assert published("millpond") == str(image.port)
    assert image.env["MILLPOND_STORE__PATH"] in image.made_writable


def test_nginx_leads_to_the_replicas() -> None:
    config = (ROOT / mounts("gateway")["/etc/nginx/conf.d/default.conf"]).read_text()
    asked = re.findall(r"server ([\w-]+):(\d+)", config)
    assert asked == [(name, str(Image().port)) for name in SERVING[1:]]
    assert f"listen {published('gateway')};" in config
    assert set(SERVICES["gateway"]["depends_on"]) == {name for name, _ in asked}


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

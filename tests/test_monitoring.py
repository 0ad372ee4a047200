"""What `deploy/` has for Prometheus and Grafana asks for what a service tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.promql import DASHBOARD, ROOT, RULES, Reads, dashboard_queries, reads, rules
from tests.support.servers import Launcher, Server, free_port

CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"


def test_what_a_query_reads() -> None:
    query = (
        'sum by (le, route) (rate(a_bucket{status=~"5..|x{}", job!=""}[5m] offset 1h)) / on (job) b:c:rate5m > 0.5e3'
    )
    assert reads(query) == Reads({"a_bucket", "b:c:rate5m"}, {"le", "route", "status", "job"})
    assert reads("time() - max(x_seconds) and y") == Reads({"x_seconds", "y"}, set())


@pytest.fixture(scope="module")
def scrape(side_by_side: Server) -> tuple[set[str], set[str]]:
    """The names of all series that a scrape may have, and of their labels."""
    http = side_by_side.http
    http.put("/collections/monitored").raise_for_status()
    http.post("/embed", json={"inputs": "a"}).raise_for_status()
    families = [*text_string_to_metric_families(http.get("/metrics").text)]
    http.delete("/collections/monitored").raise_for_status()
    names = {sample.name for family in families for sample in family.samples}
    for family in families:
        if not family.samples:  # of an index that is built, or of shapes that are compiled
            names |= {f"{family.name}_total" if family.type == "counter" else family.name}
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    return names, labels | {"job", "instance", "shape"}


def test_rules_and_dashboard_read_what_a_scrape_has(scrape: tuple[set[str], set[str]]) -> None:
    names, labels = scrape
    names |= {"up", *(rule["record"] for rule in rules() if "record" in rule)}
    queries = [(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()] + [*dashboard_queries()]
    assert len(queries) > 40
    for title, query in queries:
        read = reads(query)
        assert read.series and read.series <= names, f"{title}: {read.series - names}"
        assert read.labels <= labels, f"{title}: {read.labels - labels}"


def test_alerts_say_what_is_wrong() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["for"] and rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"]


def test_the_scrape_config_names_the_rules_and_the_job() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert [CONFIG.parent / name for name in config["rule_files"]] == [RULES]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "millpond" and 'job="millpond"' in RULES.read_text()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.fixture(scope="module")
def prometheus(side_by_side: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the project's rules that scrapes the service each second."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("prometheus and promtool are not on the PATH")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{side_by_side.port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with Launcher(command, port, folder / "log", ready="/-/ready", patience=60) as launched:
        yield launched.http


def ask(prometheus: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def until(prometheus: httpx.Client, query: str, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while not ask(prometheus, query):
        assert time.monotonic() < deadline, query
        meanwhile()
        time.sleep(0.2)


@pytest.mark.peers
def test_prometheus_takes_the_files_and_a_scrape(side_by_side: Server, tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not on the PATH")
    for what, path in (("rules", RULES), ("config", CONFIG)):
        checked = subprocess.run(["promtool", "check", what, path], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    scraped = side_by_side.http.get("/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=scraped, capture_output=True, text=True)
    # What remains is how text-embeddings-inference names its own.
    complaints = [line for line in checked.stderr.splitlines() if not line.startswith("te_")]
    assert complaints == [], checked.stderr


@pytest.mark.peers
def test_each_query_has_an_answer(side_by_side: Server, prometheus: httpx.Client) -> None:
    http = side_by_side.http

    def busy() -> None:
        http.put("/collections/monitored").raise_for_status()
        http.post("/embed", json={"inputs": ["a", "some words"]}).raise_for_status()
        document = {"id": "1", "text": "a", "metadata": {"at": time.monotonic()}}
        http.post("/collections/monitored/documents", json={"documents": [document]}).raise_for_status()
        http.post("/collections/monitored/search", json={"query": "a"}).raise_for_status()

    for rate in (
        "millpond:vectors:rate5m",
        "millpond:padding:ratio5m",
        "rate(millpond_store_commit_seconds_sum[1m])",
    ):
        until(prometheus, f"{rate} >= 0", busy)
    absent = ["millpond_index_recall", "millpond_index_tail", "millpond_index_snapshot"]  # no index is built here
    if not http.get("/info").json()["models"]["mean"]["shapes"]:
        absent.append("millpond_shape")
    empty = [query for _, query in dashboard_queries() if not ask(prometheus, query)]
    assert [query for query in empty if not any(map(query.count, absent))] == []
    for rule in rules():
        found = ask(prometheus, rule["expr"])
        if "record" in rule and not any(status in rule["expr"] for status in ("5..", "503")):
            assert found, rule
    loaded = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    states = {rule["name"]: rule["health"] for group in loaded for rule in group["rules"]}
    assert len(states) == len(rules()) and set(states.values()) == {"ok"}
    http.delete("/collections/monitored").raise_for_status()

"""The load test against real services: what it reports, what it counts apart, and what it must not miss."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.texts import cranfield
from loadtests.deployment import Service
from loadtests.records import BACKPRESSURE, FAILURE, OK
from loadtests.run import Run
from loadtests.sampler import Sampler
from loadtests.scenarios import SCENARIOS
from loadtests.texts import write
from tests.support.servers import ROOT, Server

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "loadtests"]
COLLECTION = "documents"


def execute(server: Server, name: str, *, users: int, seconds: int, folder: Path) -> Run:
    """Run one scenario on a server."""
    run = Run(SCENARIOS[name], users, seconds)
    service = Service(server.url)
    with Sampler(server.process.pid) as sampler:
        run.execute(service, service.facts(), COLLECTION, sampler, folder)
    return run


@pytest.fixture
def mean(data: Path, tmp_path: Path):
    """A service with some of Cranfield's documents."""
    with Server(ROOT / "configs" / "mean.yaml", tmp_path / "store") as server:
        server.http.put(f"/collections/{COLLECTION}").raise_for_status()
        some = [{"id": key, "text": text} for key, text in list(cranfield().documents.items())[:20]]
        body = {"documents": some, "truncate": True}
        server.http.post(f"/collections/{COLLECTION}/documents", json=body).raise_for_status()
        yield server


def test_a_healthy_service_is_reported_without_failures(mean: Server, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    asked = ["--url", mean.url, "--scenario", "embed-small", "--seconds", "5", "--users", "2"]
    done = subprocess.run(
        [*COMMAND, *asked, "--report", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = (folder / "report.md").read_text()
    row = re.search(r"^\| embed-small \| 2 \|(.+)\|$", report, re.MULTILINE)
    assert row is not None, report
    rate, texts, p50, p95, p99, answered, failures, _ = (float(cell) for cell in row[1].split("|"))
    assert rate == texts > 0
    assert 0 < p50 <= p95 <= p99
    assert answered > 0 and failures == 0
    for plot in re.findall(r"\]\((.+?\.png)\)", report):
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")
    assert f"--url {mean.url}" in report and str(tmp_path) not in report


def test_every_other_scenario_finds_a_healthy_service_healthy(mean: Server, tmp_path: Path) -> None:
    for name in ("embed-bulk", "search", "mixed", "soak"):
        run = execute(mean, name, users=3, seconds=5, folder=tmp_path)
        assert not run.problems and not run.failures(), (name, run.problems, run.failures())
        assert run.count(OK) > 0
    kinds = {record.name for record in run.records}
    assert {"search", "embed several", "upsert", "fetch"} <= kinds


def test_an_overload_is_reported_by_phases(mean: Server, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    asked = ["--url", mean.url, "--scenario", "overload", "--seconds", "20", "--users", "12"]
    done = subprocess.run(
        [*COMMAND, *asked, "--report", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = (folder / "report.md").read_text().split("| phase |")[1]
    rows = {
        name: [cell.strip() for cell in re.search(rf"^\| {name} \|(.+)\|$", report, re.MULTILINE)[1].split("|")]
        for name in ("normal", "overload", "after")
    }
    assert [rows[name][1] for name in rows] == ["12", "120", "12"]
    _, _, answered, p50, _, p99, refused, _, _, looked, *_ = (float(cell) for cell in rows["overload"])
    assert answered > 0 and refused > 0 and 0 < p50 <= p99
    assert looked > 0  # somebody has asked for /health
    assert (folder / "overload.png").read_bytes().startswith(b"\x89PNG")


def test_acknowledged_documents_that_go_missing_are_failures(mean: Server, tmp_path: Path) -> None:
    over = threading.Event()

    def lose_documents() -> None:
        path = f"{mean.url}/collections/{COLLECTION}"
        with httpx.Client(timeout=60) as thief:
            while not over.is_set():
                body = {"query": "flow", "k": 100, "filter": {"writer": {"$exists": True}}, "include": []}
                for hit in thief.post(f"{path}/search", json=body).json()["hits"]:
                    thief.delete(f"{path}/documents/{hit['id']}")

    thread = threading.Thread(target=lose_documents)
    thread.start()
    try:
        run = execute(mean, "mixed", users=4, seconds=8, folder=tmp_path)
    finally:
        over.set()
        thread.join()
    assert run.count(FAILURE) > 0
    kinds = {name for name, _ in run.failures()}
    assert kinds & {"fetch", "search, filtered", "delete"}


def test_vectors_of_another_dimension_are_failures(mean: Server, tmp_path: Path) -> None:
    path, texts = tmp_path / "records.jsonl", tmp_path / "texts.json"
    write(texts)
    locust = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "EmbedSmall", "--headless"]
    load = ["--host", mean.url, "--users", "1", "--run-time", "3", "--texts", str(texts), "--record", str(path)]
    done = subprocess.run(
        [*locust, *load, "--dimension", "383"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "384 dimensions, not 383" in path.read_text()


def test_a_full_queue_is_backpressure_and_no_failure(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "narrow.yaml"
    mean = (ROOT / "configs" / "mean.yaml").read_text()
    config.write_text(f"{mean}batching: {{max_batch_tokens: 256, max_queued_tokens: 512}}\n")
    with Server(config, tmp_path / "store") as server:
        run = execute(server, "embed-bulk", users=12, seconds=6, folder=tmp_path)
    assert run.count(BACKPRESSURE) > 0
    assert run.count(OK) > 0
    assert not run.failures() and not run.problems


def test_a_service_that_dies_is_a_failure(mean: Server, tmp_path: Path) -> None:
    killer = threading.Timer(3, mean.kill)
    killer.start()
    run = execute(mean, "embed-small", users=2, seconds=8, folder=tmp_path)
    killer.join()
    assert run.count(FAILURE) > 0
    messages = [message for _, message in run.failures()]
    assert any("no answer" in message for message in messages)
    # An answer that was on its way is cut off.
    assert all("no answer" in message or "not the shape of an answer" in message for message in messages)


def test_requests_that_are_never_answered_are_failures(mean: Server, tmp_path: Path) -> None:
    stopper = threading.Timer(3.5, mean.process.send_signal, (signal.SIGSTOP,))
    stopper.start()
    try:
        run = execute(mean, "embed-small", users=2, seconds=6, folder=tmp_path)
    finally:
        stopper.join()
        mean.process.send_signal(signal.SIGCONT)
    assert run.count(FAILURE) == 2
    assert all("when the run was over" in message for _, message in run.failures())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_service_and_reports_what_it_has(
    data: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    folder, temporary, log = tmp_path / "report", tmp_path / "temporary", tmp_path / "log"
    temporary.mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "--scenario", "embed-small", "--seconds", "100", "--report", str(folder)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 120
        # The ninth request: its record shows that the load is under way.
        while sum(path.read_bytes().count(b"\n") for path in temporary.glob("*/embed-small.jsonl")) < 10:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = re.search(r"at (http://\S+)", log.read_text())
        assert url is not None and httpx.get(f"{url[1]}/health").status_code == 200
        process.send_signal(sent)
        assert process.wait(60) == 130, log.read_text()
    finally:
        process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url[1]}/health")
    assert list(temporary.glob("millpond-loadtest-*")) == []
    report = (folder / "report.md").read_text()
    assert "**Interrupted**" in report and re.search(r"^\| embed-small \| 16 \| \d", report, re.MULTILINE)
    assert (folder / "embed-small.png").exists()


def test_missing_data_is_said_before_anything_is_started(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, cwd=ROOT, env={**os.environ, "MILLPOND_DATA": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "MILLPOND_DATA" in done.stderr and "Traceback" not in done.stderr


def test_the_process_that_starts_the_service_is_not_patched() -> None:
    program = "import sys, loadtests.__main__; print(sorted({'gevent', 'locust'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

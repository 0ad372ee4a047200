"""Log lines as a process writes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import ROOT

PROGRAM = """
import logging, sys
from service.observation import Observed, logs, observing
logs.configure(sys.argv[1], "info")
own, library = logging.getLogger("service.part"), logging.getLogger("library")
own.debug("unsaid"); library.debug("unsaid")
own.info("read %s", "a\\nb\\x1b[31m\\u2028c\\ud800")
with observing(Observed("r-1")):
    own.warning("within")
own.info("named", extra={"request_id": "r-2", "fields": {"tokens": 3}})
try:
    1 / 0
except ZeroDivisionError:
    own.exception("failed")
logs.set_level("debug")
own.debug("said"); library.debug("unsaid"); library.info("library")
logs.set_level("error")
own.warning("unsaid"); library.warning("unsaid"); own.error("last")
"""


def written(form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stdout == ""
    return done.stderr


def test_lines_for_a_console() -> None:
    lines = written("console").splitlines()
    assert lines[:4] == [
        "INFO service.part: read a\\nb\\x1b[31m\\u2028c\\ud800",
        "WARNING service.part: within [r-1]",
        "INFO service.part: named [r-2]",
        "ERROR service.part: failed",
    ]
    assert lines[4].startswith("Traceback") and "ZeroDivisionError: division by zero" in lines
    assert lines[-3:] == ["DEBUG service.part: said", "INFO library: library", "ERROR service.part: last"]


def test_lines_for_machines() -> None:
    lines = [json.loads(line) for line in written("json").splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "read a\nb\x1b[31m\u2028c\ud800"),
        ("warning", "within"),
        ("info", "named"),
        ("error", "failed"),
        ("debug", "said"),
        ("info", "library"),
        ("error", "last"),
    ]
    assert lines[0]["logger"] == "service.part" and lines[0]["time"].endswith("+00:00")
    assert "request_id" not in lines[0] and lines[1]["request_id"] == "r-1"
    assert lines[2]["request_id"] == "r-2" and lines[2]["tokens"] == 3
    assert "ZeroDivisionError" in lines[3]["exception"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_each_message_is_one_line(form: str) -> None:
    lines = written(form).splitlines()
    assert sum("read a" in line for line in lines) == 1
    assert not any(line.startswith("b\x1b") for line in lines)

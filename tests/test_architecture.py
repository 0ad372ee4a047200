"""docs/architecture.md names the files that requests run through."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ways import layer

ROOT = Path(__file__).parents[1]


def ways(markdown: str) -> dict[str, list[str]]:
    """The files of each list under a heading "The way of ...", in order."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^#+ ", markdown, flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        if heading.startswith("The way of "):
            found[heading] = re.findall(r"^\d+\. `([^`]+)`", body, flags=re.MULTILINE)
    return found


@pytest.mark.slow
def test_the_ways_of_requests_are_those_that_they_take() -> None:
    traced = subprocess.run(
        [sys.executable, "-m", "tests.support.ways"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    taken, told = ways(traced.stdout), ways((ROOT / "docs" / "architecture.md").read_text())
    assert list(told) == [f"The way of a {what}" for what in ("text", "document", "query", "reindex")]
    assert {way: sorted(files) for way, files in told.items()} == {way: sorted(files) for way, files in taken.items()}
    for way, files in told.items():
        assert files == sorted(files, key=layer), f"{way} goes back up"

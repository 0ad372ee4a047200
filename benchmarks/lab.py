"""How soon the lab is painted, how soon a change of ten short texts shows, and how large what it loads is.

Chromium without a window, on the machine that serves.
"""

from __future__ import annotations

import gzip
import tempfile
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from playwright.sync_api import Browser, Page, expect

from benchmarks.report import Report, progress
from benchmarks.texts import fresh_sentences
from tests.support import browser as chromium
from tests.support.servers import ROOT, Server

_TEXTS: Final = 10
_CHANGE: Final = """(box, rows) => new Promise(resolve => {
  const begun = performance.now();
  const look = () => document.querySelectorAll('.strategy').length === rows
    ? requestAnimationFrame(() => resolve(performance.now() - begun))
    : requestAnimationFrame(look);
  box.click();
  look();
})"""
"""Clicks on a box, and gives the milliseconds until so many rows are drawn, without the time of the driver."""
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def run(report: Report) -> None:
    """Measure, and fill the report."""
    visits, changes = report.size(20, 2), report.size(100, 5)
    sizes = {
        name: len(gzip.compress((files("service.lab") / name).read_bytes()))
        for name in ("lab.html", "lab.js", "lab.css")
    }
    with (
        tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name,
        chromium.browser() as browser,
        Server(ROOT / "configs" / "mean.yaml", Path(name) / "store") as server,
    ):
        progress("lab: visits")
        paints = [_painted(browser, server.url) for _ in range(visits)]
        progress("lab: changes")
        with chromium.opened(browser, server.url, bypass_csp=True) as page:  # to wait for a frame by a script
            shown = _shown(page, changes)
    rows = {
        "first paint": _figures(paints),
        f"a pooling more or less, {_TEXTS} texts": _figures(shown),
    }
    report.say(
        f"{visits} visits, each in a new profile, and {changes} changes of the poolings of {_TEXTS} sentences of "
        "STS-B, from the click until the answer is drawn; milliseconds:"
    )
    report.table("", rows, "{:.0f}".format)
    report.say(f"What the page loads has {sum(sizes.values()):,} bytes, gzipped.")
    report.keep(rows=rows, bytes=sizes)


def _painted(browser: Browser, url: str) -> float:
    """Visit the page, and return the milliseconds until its first content."""
    with chromium.opened(browser, url) as page:
        expect(page.locator("article").first).to_be_visible()
        return float(page.evaluate(_PAINT))


def _shown(page: Page, changes: int) -> list[float]:
    """Turn a pooling on and off, and return the milliseconds until it shows."""
    page.get_by_label("Texts, one a line").fill("\n".join(islice(fresh_sentences(), _TEXTS)))
    expect(page.locator("article")).to_have_count(_TEXTS)
    box = page.get_by_role("checkbox", name="weighted_mean")
    return [float(box.evaluate(_CHANGE, _TEXTS * (3 if number % 2 else 4))) for number in range(changes)]


def _figures(values: list[float]) -> dict[str, float]:
    return {head: float(np.percentile(values, share)) for head, share in {"p50": 50, "p95": 95, "most": 100}.items()}

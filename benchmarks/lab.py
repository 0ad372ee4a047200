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
from tests.support.lab import open_panel, settle
from tests.support.servers import ROOT, Server

_TEXTS: Final = 10
_CHANGE: Final = """(control, value) => new Promise(resolve => {
  const busy = () => document.querySelector('section').getAttribute('aria-busy') === 'true';
  const begun = performance.now();
  let seen = false;
  const look = () => {
    seen ||= busy();
    requestAnimationFrame(() => seen && !busy() ? resolve(performance.now() - begun) : look());
  };
  if (value === null) control.click();
  else { control.value = value; control.dispatchEvent(new Event('input', {bubbles: true})); }
  queueMicrotask(look);
})"""
"""Clicks on a control, or gives it a value; how many milliseconds later the answer is drawn, by the page's clock."""
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
        rows = {"first paint": _figures(paints)}
        with chromium.opened(browser, server.url) as page:
            for what, measured in _CHANGES.items():
                progress(f"lab: {what}")
                rows[what] = _figures(measured(page, changes))
    report.say(
        f"{visits} visits, each in a new profile, and {changes} changes on each panel, from the click or the stroke "
        "until the answer is drawn; milliseconds:"
    )
    report.table("", rows, "{:.0f}".format)
    report.say(f"What the page loads has {sum(sizes.values()):,} bytes, gzipped.")
    report.keep(rows=rows, bytes=sizes)


def _painted(browser: Browser, url: str) -> float:
    """Visit the page, and return the milliseconds until its first content."""
    with chromium.opened(browser, url) as page:
        expect(page.locator("article").first).to_be_visible()
        return float(page.evaluate(_PAINT))


def _of_texts(page: Page, changes: int) -> list[float]:
    """Turn a pooling on and off."""
    page.get_by_label("Texts, one a line").fill("\n".join(islice(fresh_sentences(), _TEXTS)))
    expect(page.locator("article")).to_have_count(_TEXTS)
    settle(page)
    box = page.get_by_role("checkbox", name="weighted_mean")
    return [float(box.evaluate(_CHANGE, None)) for _ in range(changes)]


def _of_laboratory(page: Page, changes: int) -> list[float]:
    """Move a slider that disturbs the states of a text."""
    open_panel(page, "laboratory")
    settle(page)
    slider = page.get_by_role("slider", name="Noise in states")
    return [float(slider.evaluate(_CHANGE, f"{0.1 + 0.1 * (number % 10):.2f}")) for number in range(changes)]


def _of_search(page: Page, changes: int) -> list[float]:
    """Search the examples under three poolings."""
    open_panel(page, "search")
    page.get_by_role("button", name="Try it with examples").click()
    expect(page.get_by_text("Done.")).to_be_visible(timeout=60_000)
    expect(page.locator(".hit").first).to_be_visible()
    settle(page)
    query = page.get_by_label("Query")
    return [float(query.evaluate(_CHANGE, text)) for text in islice(fresh_sentences(), changes)]


def _of_small_map(page: Page, changes: int) -> list[float]:
    """Turn a pooling on and off over a few texts."""
    open_panel(page, "map")
    page.get_by_label("Texts, one a line").fill("\n".join(islice(fresh_sentences(), _TEXTS)))
    expect(page.locator(".points g")).to_have_count(_TEXTS)
    return _of_map(page, changes)


def _of_map(page: Page, changes: int) -> list[float]:
    """Turn a pooling on and off over what is written, the forty examples at first."""
    open_panel(page, "map")
    settle(page)
    box = page.get_by_role("checkbox", name="weighted_mean")
    return [float(box.evaluate(_CHANGE, None)) for _ in range(changes)]


_CHANGES: Final = {
    f"texts: a pooling more or less, {_TEXTS} sentences of STS-B": _of_texts,
    "laboratory: a slider moved, three poolings, the whole curve": _of_laboratory,
    "search: another query, three collections": _of_search,
    "map: a pooling more or less, forty texts": _of_map,
    f"map: the same, {_TEXTS} sentences of STS-B": _of_small_map,
}


def _figures(values: list[float]) -> dict[str, float]:
    return {head: float(np.percentile(values, share)) for head, share in {"p50": 50, "p95": 95, "most": 100}.items()}

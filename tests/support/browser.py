"""A real Chromium, and pages in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
MISSING: Final = "there is no Chromium here: apt-get install chromium"
_OPTIONS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def found() -> str | None:
    """Where Chromium is; None where it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium without a window."""
    path = found()
    assert path is not None, MISSING
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS))
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running: Browser, url: str, **context: Any) -> Iterator[Page]:
    """Open a page in a profile of its own, with the options of Playwright's `new_context`.

    At the end, fails for anything that the page did which it must not: an error of its own, or a request to another
    host than that of `url`.
    """
    faults: list[str] = []
    profile = running.new_context(permissions=["clipboard-read", "clipboard-write"], **context)
    page = profile.new_page()
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: None if request.url.startswith((url, "data:")) else faults.append(f"asked {request.url}"),
    )
    page.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.goto(f"{url}/lab")
    yield page
    profile.close()
    assert not faults, faults

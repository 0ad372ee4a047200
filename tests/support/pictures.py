"""Pictures of the lab's panels, in both themes and three widths.

python -m tests.support.pictures FOLDER    # docs/figures has three of them
"""

from __future__ import annotations

import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, expect

from tests.support import browser as chromium
from tests.support.lab import PANELS, open_panel
from tests.support.servers import ROOT, Server

WIDTHS: Final = (360, 1280, 1920)
SCHEMES: Final[tuple[Any, ...]] = ("light", "dark")


def take(folder: Path) -> list[Path]:
    """Save a picture of each panel in each theme and width, whole pages; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with (
        tempfile.TemporaryDirectory() as name,
        chromium.browser() as running,
        Server(ROOT / "configs" / "mean.yaml", Path(name) / "store") as server,
    ):
        for scheme, width in product(SCHEMES, WIDTHS):
            size = {"width": width, "height": 900}
            with chromium.opened(running, server.url, color_scheme=scheme, viewport=size) as page:
                for panel in PANELS:
                    found.append(folder / f"lab-{panel}-{scheme}-{width}.png")
                    _show(page, panel)
                    page.screenshot(path=found[-1], full_page=True)
    return found


def _show(page: Page, panel: str) -> None:
    open_panel(page, panel)
    if panel == "texts":
        page.locator("article").first.locator(".strategy").nth(1).locator("li").nth(3).hover()
    if panel == "search":
        page.get_by_role("button", name="Try it with examples").click()
        expect(page.get_by_text("Done. 40 of 40 texts stored")).to_be_visible()
        page.get_by_role("spinbutton", name="Hits").fill("5")
        expect(page.locator(".hit")).to_have_count(15)
        page.locator(".hit").nth(1).hover()


if __name__ == "__main__":
    print(*take(Path(sys.argv[1])), sep="\n")

"""Pictures of the lab's panels, in both themes and three widths.

python -m tests.support.pictures FOLDER
python -m tests.support.pictures docs/figures lab-{panel}.png    # those of the documentation: light, 1,280 wide
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


def take(folder: Path, name: str = "lab-{panel}-{scheme}-{width}.png") -> list[Path]:
    """Save a picture of each panel, whole pages; return where they are.

    They are of each theme and width that `name` tells apart, and else light and of the middle one.
    """
    schemes = SCHEMES if "{scheme}" in name else SCHEMES[:1]
    widths = WIDTHS if "{width}" in name else WIDTHS[1:2]
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        chromium.browser() as running,
        Server(ROOT / "configs" / "mean.yaml", Path(temporary) / "store") as server,
    ):
        for scheme, width in product(schemes, widths):
            size = {"width": width, "height": 900}
            with chromium.opened(running, server.url, color_scheme=scheme, viewport=size) as page:
                for panel in PANELS:
                    found.append(folder / name.format(panel=panel, scheme=scheme, width=width))
                    _show(page, panel)
                    page.screenshot(path=found[-1], full_page=True)
    return found


def _show(page: Page, panel: str) -> None:
    open_panel(page, panel)
    if panel == "texts":
        page.locator("article").first.locator(".strategy").nth(1).locator("li").nth(3).hover()
    if panel == "laboratory":
        page.get_by_role("slider", name="Padding tokens").fill("64")
        page.get_by_role("rowheader", name="mask forgotten").wait_for()
    if panel == "quiz":
        page.get_by_role("radio", name="cls", exact=False).first.check()
        page.get_by_role("button", name="Run").click()
        page.locator("section table").first.wait_for(timeout=120_000)
    if panel == "map":
        page.get_by_role("listbox", name="Texts as").focus()
        page.keyboard.press("n")
        page.wait_for_timeout(1_000)  # until the points stand still
    if panel == "search":
        page.get_by_role("button", name="Try it with examples").click()
        expect(page.get_by_text("Done. 40 of 40 texts stored")).to_be_visible()
        page.get_by_role("spinbutton", name="Hits").fill("5")
        expect(page.locator(".hit")).to_have_count(15)
        page.locator(".hit").nth(1).hover()


if __name__ == "__main__":
    print(*take(Path(sys.argv[1]), *sys.argv[2:3]), sep="\n")

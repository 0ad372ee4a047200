"""The lab as tests and pictures use it: its panels, and what is done on several of them."""

from __future__ import annotations

from typing import Final

from playwright.sync_api import Page, expect

PANELS: Final = {
    "texts": ("Look at texts", "article"),
    "laboratory": ("Laboratory", ".outputs td"),
    "search": ("Search", "fieldset.known button"),
    "quiz": ("Quiz", "input[type=radio]"),
    "health": ("Health", "article"),
}
"""By name: its title, and what it shows once it has its answer."""


def open_panel(page: Page, name: str) -> None:
    """Open a panel by its link, and wait until it shows something."""
    title, shown = PANELS[name]
    page.get_by_role("navigation", name="Panels").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", name=title, level=2)).to_be_visible()
    expect(page.locator(shown).first).to_be_visible()


def settle(page: Page) -> None:
    """Wait until the panel waits for no answer."""
    expect(page.locator("section")).to_have_attribute("aria-busy", "false")


def write(page: Page, *texts: str) -> None:
    """Write texts, and wait until they are compared."""
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    expect(page.locator("article")).to_have_count(len(texts))
    settle(page)

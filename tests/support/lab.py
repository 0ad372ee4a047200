"""The lab as tests and pictures use it: its panels, and what is done on several of them."""

from __future__ import annotations

from typing import Final

from playwright.sync_api import Locator, Page, expect

PANELS: Final = {
    "texts": ("Look at texts", "article"),
    "laboratory": ("Laboratory", ".outputs td"),
    "lesson": ("Laboratory", ".weights td"),
    "search": ("Search", "fieldset.known button"),
    "quiz": ("Quiz", "input[type=radio]"),
    "map": ("Map", ".points g"),
    "health": ("Health", "article"),
}
"""By name: its title, and what it shows once it has its answer."""
_TABS: Final = {"lesson": "Numbers of your own"}


def open_panel(page: Page, name: str) -> None:
    """Open a panel by its link, and wait until it shows something."""
    title, shown = PANELS[name]
    page.get_by_role("navigation", name="Panels").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", name=title, level=2)).to_be_visible()
    if name in _TABS:
        page.get_by_role("tab", name=_TABS[name]).click()
    expect(page.locator(shown).first).to_be_visible()


def settle(page: Page) -> None:
    """Wait until the panel waits for no answer."""
    expect(page.locator("section")).to_have_attribute("aria-busy", "false")


def paste(field: Locator, characters: int) -> bool:
    """Paste so many characters, and return whether the page lets the browser take them."""
    event = """(field, count) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', 'a wheel\\n'.repeat(count / 8));
      return field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
    }"""
    return bool(field.evaluate(event, characters))


def write(page: Page, *texts: str) -> None:
    """Write texts, and wait until they are compared."""
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    expect(page.locator("article")).to_have_count(len(texts))
    settle(page)

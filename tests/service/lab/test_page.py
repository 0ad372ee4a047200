"""The lab as a whole: by keyboard, by axe, in any width, with keys, and without its service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support import browser as chromium
from tests.support.lab import PANELS, open_panel, paste, write
from tests.support.pictures import WIDTHS
from tests.support.servers import ROOT, Server

pytestmark = pytest.mark.slow

PICTURES = Path(os.environ.get("MILLPOND_PICTURES", ROOT / "lab" / "pictures"))
"""Where each run leaves pictures of the panels, for whoever wants to look at them."""


def test_a_browser_is_led_to_it(browser: Browser, side_by_side: Server) -> None:
    with chromium.opened(browser, side_by_side.url) as page:
        page.goto(side_by_side.url)
        expect(page).to_have_url(f"{side_by_side.url}/lab")
    assert side_by_side.http.get("/").json() == {"status": "ok"}


def test_by_keyboard_alone(page: Page) -> None:
    field = page.get_by_label("Texts, one a line")
    for _ in range(20):
        page.keyboard.press("Tab")
        if field.evaluate("field => field === document.activeElement"):
            break
    page.keyboard.press("Control+a")
    page.keyboard.type("One mill")
    expect(page.locator("article")).to_have_count(1)
    first = page.locator("li").first
    for _ in range(40):
        page.keyboard.press("Tab")
        if first.evaluate("item => item === document.activeElement"):
            break
    page.keyboard.press("ArrowRight")
    expect(page.locator(".pointed-at")).to_contain_text("one")
    page.keyboard.press("End")
    expect(page.locator(".pointed-at")).to_contain_text("[SEP] (special token)")
    page.keyboard.press("Home")
    expect(page.locator(".pointed-at")).to_contain_text("[CLS] (special token)")
    page.get_by_role("link", name="Health").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Health")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("panel", PANELS)
def test_axe_finds_nothing(browser: Browser, side_by_side: Server, scheme: Any, panel: str) -> None:
    with chromium.opened(browser, side_by_side.url, color_scheme=scheme) as page:
        open_panel(page, panel)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=PICTURES / f"{panel}-{scheme}-{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_wider_than_the_page(browser: Browser, side_by_side: Server, width: int) -> None:
    with chromium.opened(browser, side_by_side.url, viewport={"width": width, "height": 800}) as page:
        expect(page.get_by_role("heading", name="Text 1")).to_be_visible()
        write(page, "mill " * 500, "a" * 2_000, "The Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for panel in PANELS:
            open_panel(page, panel)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        open_panel(page, "texts")
        write(page, "mill " * 500)
        expect(page.locator("h3", has_text="cut: what is beyond was not read").first).to_be_visible()


def test_a_long_pooling_is_no_wider_than_the_page(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.get_by_label("Another").fill("p" * 900)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("unknown pooling")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", ["nowhere", "constructor", "__proto__"])
def test_an_address_of_no_panel_leads_to_the_first(page: Page, name: str) -> None:
    page.goto(page.url + "#" + name)
    page.reload()
    expect(page.get_by_role("heading", name="Look at texts")).to_be_visible()


def test_a_key_is_asked_for_and_forgotten(browser: Browser, tmp_path: Any) -> None:
    def new(name: str, scope: str) -> str:
        options = [name, "--scopes", scope, "-f", tmp_path / "keys"]
        command = [sys.executable, "-m", "service", "keys", "new", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[0]

    key, other = new("someone", "embed"), new("another", "search")
    env = {"MILLPOND_ACCESS__KEYS_FILE": str(tmp_path / "keys")}
    with (
        Server(ROOT / "configs" / "mean.yaml", tmp_path / "store", env) as server,
        chromium.opened(browser, server.url) as page,
    ):
        expect(page.get_by_role("alert")).to_contain_text("key")
        for given, words in ((f"“{key}”", "no key"), (other, "is for search"), (key, None)):
            page.get_by_label("API key").fill(given)
            page.get_by_role("button", name="Use this key").click()
            if words:
                expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("heading", name="Text 1")).to_be_visible()
        page.get_by_role("button", name="Copy this request as curl").click()
        expect(page.get_by_text("Copied as curl.")).to_be_visible()
        command = page.evaluate("navigator.clipboard.readText()")
        assert "Bearer $MILLPOND_API_KEY" in command and key not in command
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert kept == '[{},{},""]'
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()


def test_a_proxy_without_its_service_is_asked_again(page: Page) -> None:
    page.route("**/compare", lambda route: route.fulfill(status=502, body="Bad Gateway"), times=1)
    page.get_by_label("Texts, one a line").fill("A wheel")
    expect(page.get_by_role("alert")).to_contain_text("It may be starting again")
    expect(page.locator("article")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_service_that_ends_and_starts_again(browser: Browser, tmp_path: Any) -> None:
    with (
        Server(ROOT / "configs" / "mean.yaml", tmp_path / "store") as server,
        chromium.opened(browser, server.url) as page,
    ):
        expect(page.get_by_role("heading", name="Text 1")).to_be_visible()
        server.stop()
        page.get_by_label("Texts, one a line").fill("A wheel")
        expect(page.get_by_role("alert")).to_contain_text("It may be starting again")
        with server:
            expect(page.locator("article")).to_have_count(1, timeout=20_000)
            expect(page.get_by_role("alert")).to_have_count(0)


def test_what_one_wrote_is_there_when_one_comes_back(page: Page) -> None:
    write(page, "A wheel of my own")
    open_panel(page, "health")
    open_panel(page, "texts")
    expect(page.get_by_label("Texts, one a line")).to_have_value("A wheel of my own")


@pytest.mark.parametrize("panel", ["texts", "laboratory", "map"])
def test_a_paste_of_5_mb_is_refused_in_words(page: Page, panel: str) -> None:
    open_panel(page, panel)
    field = page.get_by_role("textbox").first
    before = field.input_value()
    assert paste(field, 8_000)
    assert not paste(field, 5_000_000)
    expect(page.get_by_role("alert")).to_contain_text("5,000,000 characters, and this field takes 200,000")
    assert field.input_value() == before
    field.press_sequentially("x")
    expect(page.get_by_role("alert")).to_have_count(0)

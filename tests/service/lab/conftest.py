"""A browser, and the lab of a running service in it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import browser as chromium
from tests.support.servers import Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium.found() is None:
        pytest.skip(chromium.MISSING)
    with chromium.browser() as running:
        yield running


@pytest.fixture(scope="module")
def http(side_by_side: Server) -> httpx.Client:
    return side_by_side.http


@pytest.fixture
def page(browser: Browser, side_by_side: Server) -> Iterator[Page]:
    with chromium.opened(browser, side_by_side.url) as page:
        expect(page.get_by_role("heading", name="Text 1")).to_be_visible()
        yield page

"""The panel of health: what is served, what the process is at, and what the doctor finds."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.lab import open_panel

pytestmark = pytest.mark.slow


@pytest.fixture
def health(page: Page) -> Page:
    open_panel(page, "health")
    return page


def figure(page: Page, name: str) -> float:
    """Return a number that the panel tells."""
    found = re.search(r"[\d,.]+", page.get_by_role("status", name=name).inner_text())
    assert found is not None
    return float(found.group().replace(",", ""))


def test_models_are_told_as_the_api_has_them(health: Page, http: httpx.Client) -> None:
    models = http.get("/info").json()["models"]
    expect(health.locator("article")).to_have_count(len(models))
    for article, (name, model) in zip(health.locator("article").all(), models.items(), strict=True):
        expect(article.get_by_role("heading", level=3)).to_contain_text(name)
        terms = article.locator("dt").all_inner_texts()
        facts = dict(zip(terms, article.locator("dd").all_inner_texts(), strict=True))
        assert (facts["pooling declared"], facts["pooling served"]) == (model["declared_pooling"], model["pooling"])
        assert facts["fingerprint"] == model["fingerprint"]
        for warning in model["warnings"]:
            expect(article.get_by_text(warning)).to_be_visible()


def test_what_the_process_is_at_is_told_and_goes_on(health: Page, http: httpx.Client) -> None:
    load = http.get("/info").json()["load"]
    assert figure(health, "Memory") == pytest.approx(load["resident_bytes"] / 1e6, rel=0.25)
    expect(health.get_by_text("able to serve")).to_be_visible()
    made = health.locator("article").first.locator("dd").last
    before = int(made.inner_text().replace(",", ""))
    http.post("/embed", json={"inputs": ["a wheel"] * 300, "model": "mean"}).raise_for_status()
    expect(made).to_have_text(f"{before + 300:,}", timeout=10_000)
    expect(health.get_by_role("status", name="Vectors a second")).not_to_have_text("0", timeout=10_000)


def test_a_model_is_examined(health: Page, http: httpx.Client) -> None:
    health.get_by_role("button", name="Examine mean", exact=True).click()
    article = health.locator("article").first
    expect(article.get_by_role("table")).to_be_visible(timeout=60_000)
    report = http.get("/doctor", params={"model": "mean"}).json()["models"]["mean"]
    expect(article.get_by_text(report["verdict"])).to_be_visible()
    rows = article.locator("tbody tr")
    expect(rows).to_have_count(len(report["findings"]))
    for row, finding in zip(rows.all(), report["findings"], strict=True):
        expect(row).to_contain_text(finding["seen"])
        expect(row.locator("td").first).to_contain_text(finding["severity"])

"""The laboratory's tab of a text: what it shows against what `/perturb` gives."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.lab import open_panel, settle

pytestmark = pytest.mark.slow

TEXT = "The mill by the pond grinds no grain, ברוך הבא 👩‍🌾 café."
WRONG = "mean, mask forgotten"
COUNTED = """() => {
  const ask = window.fetch;
  window.counted = { now: 0, most: 0, all: 0 };
  window.fetch = (...of) => {
    counted.all += 1;
    counted.most = Math.max(counted.most, ++counted.now);
    return ask(...of).finally(() => counted.now--);
  };
}"""


@pytest.fixture
def disturb(page: Page) -> Page:
    open_panel(page, "laboratory")
    page.get_by_label("A text", exact=True).fill(TEXT)
    expect(page.get_by_role("region", name="The disturbed text")).to_have_text(TEXT)
    return page


def slide(page: Page, name: str, to: str) -> None:
    page.get_by_role("slider", name=name).fill(to)


def perturbed(http: httpx.Client, **change: float) -> Any:
    body = {"text": TEXT, "changes": [change], "pooling": ["mean", "cls", "max"], "model": "mean", "truncate": True}
    return http.post("/perturb", json=body).raise_for_status().json()["changes"][0]


def expect_shown(page: Page, outcome: Any, *, padded: bool) -> None:
    wanted = [*outcome["cosines"], *([outcome["without_mask"]] if padded else [])]
    expect(page.locator(".outputs tbody td")).to_have_text([f"{cosine:.3f}" for cosine in wanted])
    expect(page.locator(".disturbed")).to_have_text(outcome["text"])


def test_its_numbers_are_those_of_the_api(disturb: Page, http: httpx.Client) -> None:
    slide(disturb, "Noise in states", "0.5")
    expect_shown(disturb, perturbed(http, noise=0.5), padded=False)
    slide(disturb, "Padding tokens", "64")
    expect_shown(disturb, perturbed(http, noise=0.5, padding=64), padded=True)
    slide(disturb, "Noise in states", "0")
    found = perturbed(http, padding=64)
    expect_shown(disturb, found, padded=True)
    expect(disturb.locator(".outputs tbody td")).to_have_text(["1.000"] * 3 + [f"{found['without_mask']:.3f}"])
    slide(disturb, "Padding tokens", "0")
    for name, change in (
        ("Swapped words", {"swaps": 3}),
        ("Replaced tokens", {"swaps": 3, "replaced": 0.5}),
        ("Filler sentences", {"swaps": 3, "replaced": 0.5, "filler": 2}),
        ("Kept share", {"swaps": 3, "replaced": 0.5, "filler": 2, "keep": 0.4}),
    ):
        slide(disturb, name, str(list(change.values())[-1]))
        expect_shown(disturb, perturbed(http, **change), padded=False)
    disturb.get_by_role("button", name="Undisturbed again").click()
    expect(disturb.locator(".outputs tbody td")).to_have_text(["1.000"] * 3)


def test_the_chart_is_over_the_slider_that_was_touched_last(disturb: Page) -> None:
    expect(disturb.get_by_role("img", name="by noise in states")).to_be_visible()
    slide(disturb, "Padding tokens", "100")
    chart = disturb.get_by_role("img", name="by padding tokens")
    expect(chart.locator(".series")).to_have_count(4)
    labels = [label.bounding_box() for label in chart.locator(".series text").all()]
    assert chart.locator(".series text").all_text_contents() == ["mean", "cls", "max", WRONG]
    heights = sorted(box["y"] for box in labels if box)
    assert all(below - above > 12 for above, below in pairwise(heights))
    lines = chart.locator("path.line").all()
    assert len({line.get_attribute("stroke-dasharray") for line in lines}) == 4
    marks = {chart.locator(".series").nth(place).locator(".mark").first.get_attribute("d") for place in range(4)}
    assert len(marks) == 4
    assert chart.locator(".series").first.locator(".mark").count() == 10  # nine places, and where it stands


def test_tabs_by_keyboard(disturb: Page) -> None:
    first, second = (disturb.get_by_role("tab", name=name) for name in ("A text of yours", "Numbers of your own"))
    expect(first).to_have_attribute("aria-selected", "true")
    first.focus()
    disturb.keyboard.press("ArrowRight")
    expect(second).to_be_focused()
    expect(disturb.get_by_role("tabpanel", name="Numbers of your own")).to_be_visible()
    disturb.keyboard.press("ArrowRight")
    expect(first).to_be_focused()
    disturb.keyboard.press("End")
    expect(second).to_be_focused()
    disturb.keyboard.press("Home")
    expect(disturb.get_by_label("A text", exact=True)).to_have_value(TEXT)
    disturb.keyboard.press("Tab")
    expect(disturb.get_by_label("A text", exact=True)).to_be_focused()


def test_one_request_at_a_time_while_one_drags(disturb: Page) -> None:
    settle(disturb)
    disturb.evaluate(COUNTED)
    slider = disturb.get_by_role("slider", name="Padding tokens")
    slider.focus()
    for _ in range(40):
        slider.press("ArrowRight")
    expect(disturb.get_by_text("160", exact=True)).to_be_visible()
    settle(disturb)
    assert disturb.evaluate("counted.most") == 1
    assert disturb.evaluate("counted.all") > 1


def test_a_long_text_is_asked_for_at_fewer_places(disturb: Page) -> None:
    disturb.get_by_label("A text", exact=True).fill("mill " * 600)
    slide(disturb, "Replaced tokens", "0.5")
    expect(disturb.get_by_text("256 of at most 256 tokens, cut: what is beyond was not read")).to_be_visible()
    expect(disturb.get_by_role("img", name="by replaced tokens").locator(".series")).to_have_count(3)
    expect(disturb.get_by_role("alert")).to_have_count(0)


def test_what_is_missing_or_wrong_is_said(disturb: Page) -> None:
    disturb.get_by_label("Another").fill("maen")
    disturb.keyboard.press("Enter")
    expect(disturb.get_by_role("alert")).to_contain_text("'mean'")
    expect(disturb.get_by_role("checkbox", name="maen")).to_have_count(0)
    disturb.get_by_label("Another").fill("")
    expect(disturb.get_by_role("alert")).to_have_count(0)
    disturb.get_by_label("A text", exact=True).fill(" ")
    expect(disturb.get_by_text("Write a text above")).to_be_visible()
    disturb.get_by_label("A text", exact=True).fill("<img src=x onerror=\"document.title='run'\">")
    expect(disturb.locator(".disturbed")).to_contain_text("<img")
    assert disturb.title() == "Millpond lab" and disturb.locator(".disturbed img").count() == 0


def test_it_is_taken_along_as_a_command(disturb: Page) -> None:
    slide(disturb, "Padding tokens", "8")
    settle(disturb)
    disturb.get_by_role("button", name="Copy this request as curl").click()
    expect(disturb.get_by_text("Copied as curl.")).to_be_visible()
    command = disturb.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["changes"][0]["padding"] == 8

"""The map: where texts are, against the API, and how one chooses some."""

from __future__ import annotations

import re
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.lab import open_panel, settle

pytestmark = pytest.mark.slow

TEXTS = ["The mill by the pond.", "A wheel turns.", "<b>My invoice</b> is wrong.", "ברוך הבא 👩‍🌾", "harp"]


def points(page: Page) -> Locator:
    return page.locator(".points").get_by_role("option")


def chosen(page: Page) -> Locator:
    return page.locator(".points").get_by_role("option", selected=True)


@pytest.fixture
def places(page: Page) -> Page:
    open_panel(page, "map")
    page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))
    expect(points(page)).to_have_count(len(TEXTS))
    settle(page)
    return page


def drawn(page: Page) -> np.ndarray:
    """Where points are drawn, upwards, around the middle of the picture."""
    styles = [point.get_attribute("style") or "" for point in points(page).all()]
    found = np.array([[float(number) for number in re.findall(r"-?[\d.]+(?=px)", style)] for style in styles])
    _, _, *size = map(float, (page.locator(".points svg").get_attribute("viewBox") or "").split())
    return (found - np.array(size) / 2) * [1, -1]


def shape(points: Any) -> np.ndarray:
    """Points of any scale at one scale."""
    of = np.array(points)
    return of / np.abs(of).max()


def test_points_are_where_the_api_has_them(places: Page, http: httpx.Client) -> None:
    body = {"texts": TEXTS, "pooling": ["mean", "cls", "max"], "model": "mean"}
    views = http.post("/project", json=body).json()["views"]
    for view in views:
        places.get_by_role("radio", name=view["pooling"]).check()
        np.testing.assert_allclose(shape(drawn(places)), shape(view["points"]), atol=2e-3)
        first, second = (f"{100 * share:.0f} %" for share in view["explained"])
        expect(places.get_by_text(f"The two axes show {first} and {second}")).to_be_visible()
    assert [option.get_attribute("aria-label") for option in points(places).all()] == TEXTS
    assert places.locator(".points b").count() == 0


def test_points_are_chosen_by_keyboard(places: Page) -> None:
    places.get_by_role("listbox", name="Texts as mean places them").focus()
    expect(places.locator(".pointed-at")).to_have_text(TEXTS[0])
    places.keyboard.press("Enter")
    expect(places.get_by_label("Texts chosen").get_by_role("listitem")).to_have_text(TEXTS[:1])
    visited = {TEXTS[0]}
    for key in ["ArrowRight"] * 4 + ["ArrowLeft"] * 4 + ["ArrowUp"] * 4 + ["ArrowDown"] * 4:
        places.keyboard.press(key)
        visited.add(places.locator(".pointed-at").inner_text())
    assert len(visited) > 2
    places.keyboard.press("n")
    expect(chosen(places)).to_have_count(len(TEXTS))
    places.keyboard.press("Escape")
    expect(chosen(places)).to_have_count(0)


def test_points_are_chosen_by_drawing_around_them(places: Page) -> None:
    box = places.locator(".points svg").bounding_box()
    assert box is not None
    left = {place for place, (x, _) in enumerate(drawn(places)) if x < 0}
    corners = [(0.01, 0.01), (0.5, 0.01), (0.5, 0.99), (0.01, 0.99)]
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    places.mouse.move(*at[0])
    places.mouse.down()
    for corner in at[1:]:
        places.mouse.move(*corner, steps=4)
    places.mouse.up()
    expect(places.get_by_role("heading", name=re.compile("chosen"))).to_contain_text(str(len(left)))
    selected = [option.get_attribute("aria-selected") for option in points(places).all()]
    assert {place for place, is_selected in enumerate(selected) if is_selected == "true"} == left
    points(places).nth(min(left)).locator("path").click()
    expect(chosen(places)).to_have_count(len(left) - 1)


def test_too_little_and_too_much(places: Page) -> None:
    field = places.get_by_label("Texts, one a line")
    field.fill("one alone")
    expect(places.get_by_text("Write two texts or more")).to_be_visible()
    field.fill("a wheel\n" * 2_001)
    expect(places.get_by_text("2,001 lines are written, and 2,000 texts are shown")).to_be_visible()


def test_a_collection_by_its_vectors_and_by_other_poolings(page: Page, http: httpx.Client) -> None:
    http.put("/collections/on-a-map", json={"model": "mean"}).raise_for_status()
    documents = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]
    http.post("/collections/on-a-map/documents", json={"documents": documents}).raise_for_status()
    try:
        open_panel(page, "map")
        page.get_by_label("Show").select_option("on-a-map")
        expect(page.get_by_text("5 documents.")).to_be_visible()
        found = http.post("/collections/on-a-map/project", json={}).json()
        np.testing.assert_allclose(shape(drawn(page)), shape(found["points"]), atol=2e-3)
        page.get_by_label("under other poolings").check()
        expect(page.get_by_role("radio", name="max")).to_be_visible()
        assert [option.get_attribute("aria-label") for option in points(page).all()] == TEXTS
    finally:
        http.delete("/collections/on-a-map")


def test_scratch_of_another_page_is_not_listed(page: Page, http: httpx.Client) -> None:
    for name, kept in (("lab-of-another", {"idle_timeout": 600}), ("lab-that-stays", {})):
        http.put(f"/collections/{name}", json={"model": "mean", **kept}).raise_for_status()
    try:
        open_panel(page, "map")
        expect(page.locator("option[value=lab-that-stays]")).to_have_count(1)
        expect(page.locator("option[value=lab-of-another]")).to_have_count(0)
    finally:
        for name in ("lab-of-another", "lab-that-stays"):
            http.delete(f"/collections/{name}")

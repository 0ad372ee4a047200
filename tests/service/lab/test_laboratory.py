"""The laboratory: the numbers of lessons on pooling, and what is disturbed."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.lab import open_panel, settle

pytestmark = pytest.mark.slow


@pytest.fixture
def laboratory(page: Page) -> Page:
    open_panel(page, "laboratory")
    return page


def outputs(page: Page) -> dict[str, tuple[list[float], float]]:
    """Each pooling's vector, and its cosine to the undisturbed one, as the page shows them."""
    settle(page)
    found = {}
    for row in page.locator(".outputs tbody tr").all():
        name, vector, cosine = row.locator("th, td").all_inner_texts()
        found[name] = ([float(number) for number in vector.split()], float(cosine))
    return found


def slide(page: Page, name: str, to: str) -> None:
    page.get_by_role("slider", name=name).fill(to)


def test_the_lesson_s_four_tokens(laboratory: Page, http: httpx.Client) -> None:
    found = outputs(laboratory)
    worked = {"mean": [0.275, 0.375], "max": [0.8, 0.9], "cls": [0.5, 0.3], "last": [-0.3, 0.5]}
    assert {name: found[name][0] for name in worked} == worked
    assert found["attention"][0] == pytest.approx([0.405, 0.254], abs=2e-3)
    assert all(cosine == 1 for _, cosine in found.values())
    states = [[0.5, 0.3], [0.8, -0.2], [0.1, 0.9], [-0.3, 0.5]]
    (power,) = http.post("/pool", json={"states": states, "pooling": "gem(p=3)"}).json()["poolings"]
    assert found["gem(p=3.0)"][0] == pytest.approx(power["vector"], abs=6e-4)
    laboratory.get_by_label("Token 1, number 1").fill("0.9")
    expect(laboratory.locator(".outputs tbody tr").nth(1).locator("td").first).to_have_text("0.900  0.900")


def test_padding_that_the_mask_forgets(laboratory: Page) -> None:
    laboratory.get_by_label("Begin with").select_option("Three tokens and padding")
    expect(laboratory.locator(".outputs tr", has_text="mean without the mask")).to_contain_text("0.450  0.338")
    assert outputs(laboratory)["mean"][0] == [0.567, 0.433]
    laboratory.get_by_label("Token 4 counts").check()
    expect(laboratory.locator(".outputs tr", has_text="mean without the mask")).to_have_count(0)


def test_what_is_slid_moves_the_vectors(laboratory: Page) -> None:
    before = outputs(laboratory)
    slide(laboratory, "Padding", "8")
    expect(laboratory.locator(".weights tbody tr")).to_have_count(12)
    padded = outputs(laboratory)
    assert {name: padded[name] for name in before} == before
    assert padded["mean without the mask"][0] != before["mean"][0]
    slide(laboratory, "Padding", "0")
    slide(laboratory, "Noise", "0.8")
    expect(laboratory.locator(".weights tbody tr")).to_have_count(4)
    assert min(cosine for _, cosine in outputs(laboratory).values()) < 0.99
    slide(laboratory, "Noise", "0")
    slide(laboratory, "GeM's p", "20")
    expect(laboratory.get_by_role("rowheader", name="gem(p=20.0)")).to_be_visible()
    power, largest = outputs(laboratory)["gem(p=20.0)"][0], before["max"][0]
    assert power == pytest.approx(largest, rel=0.08)


def test_a_query_that_turns_chooses_other_tokens(laboratory: Page) -> None:
    slide(laboratory, "Length of the query", "20")
    slide(laboratory, "Angle of the query", "90")
    expect(laboratory.locator(".outputs tr", has_text="attention")).to_contain_text("0.898")
    assert outputs(laboratory)["attention"][0] == pytest.approx([0.1, 0.9], abs=0.01)  # the token furthest that way


def test_tokens_come_and_go(laboratory: Page) -> None:
    laboratory.get_by_role("button", name="One token more").click()
    expect(laboratory.locator(".weights tbody tr")).to_have_count(5)
    for token in range(5):
        laboratory.get_by_label(f"Token {token + 1} counts").uncheck()
    expect(laboratory.get_by_text("No token counts")).to_be_visible()

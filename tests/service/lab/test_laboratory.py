"""The laboratory's tab of token states: the numbers of lessons on pooling, and what is disturbed."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.lab import open_panel, settle

pytestmark = pytest.mark.slow


@pytest.fixture
def laboratory(page: Page) -> Page:
    open_panel(page, "lesson")
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
    laboratory.get_by_label("Token 1, dim 1").fill("0.9")
    expect(laboratory.locator(".outputs tbody tr").nth(1).locator("td").first).to_have_text("0.900  0.900")


def test_padding_that_the_mask_forgets(laboratory: Page) -> None:
    laboratory.get_by_label("Begin with").select_option("Three tokens and padding")
    expect(laboratory.locator(".outputs tr", has_text="mean without the mask")).to_contain_text("0.450  0.338")
    assert outputs(laboratory)["mean"][0] == [0.567, 0.433]
    laboratory.get_by_label("Token 4 in the mask").check()
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
    slide(laboratory, "Length of attention's query", "20")
    slide(laboratory, "Angle of attention's query", "90")
    expect(laboratory.locator(".outputs tr", has_text="attention")).to_contain_text("0.898")
    assert outputs(laboratory)["attention"][0] == pytest.approx([0.1, 0.9], abs=0.01)  # the token furthest that way


def test_tokens_come_and_go(laboratory: Page) -> None:
    laboratory.get_by_role("button", name="One token more").click()
    expect(laboratory.locator(".weights tbody tr")).to_have_count(5)
    for token in range(5):
        laboratory.get_by_label(f"Token {token + 1} in the mask").uncheck()
    expect(laboratory.get_by_text("No token is in the mask")).to_be_visible()


GRID = "A 4 \u00d7 4 grid with windows"
PIECES = ("piecewise(n=2)", "piecewise(n=2, by=mean)")
WORKED = {
    "Four tokens in two dimensions": {
        **{"mean": [0.275, 0.375], "max": [0.8, 0.9], "cls": [0.5, 0.3], "last": [-0.3, 0.5]},
        "attention": [0.405, 0.254],
    },
    "Three tokens and padding": {"mean": [0.567, 0.433], "mean without the mask": [0.45, 0.3375]},
    "Four tokens in three dimensions": {"cls": [0.5, 0.3, -0.1], "mean": [0.275, 0.375, 0.3]},
    "Between the mean and the max": {
        **{"gem(p=1.0)": [0.95], "gem(p=3.0)": [1.318], "gem(p=10.0)": [1.741]},
        **{"mean": [0.95], "max": [2.0]},
    },
    GRID: {
        "piecewise(n=4)": [0.8, 0.9, 0.9, 0.8],
        "piecewise(n=4, by=mean)": [0.45, 0.525, 0.5, 0.45],
    },
    "Windows and segments": dict(zip(PIECES, ([0.8, 0.9], [0.5, 0.5]), strict=True)),
    "Six tokens in two segments": {PIECES[1]: [1, 4]},
    "Seven tokens in two segments": {PIECES[1]: [1.5, 4.5]},  # tokens 1 to 4, and 4 to 7
    "Nine numbers and their mean": {"mean": [0.5]},
    "One loud token among eight": {"mean": [0.422]},
    "Nine tokens that are all loud": {"mean": [2.1]},
}
"""What lessons on pooling work out by hand."""


def test_the_worked_numbers_of_every_lesson(laboratory: Page) -> None:
    choice = laboratory.get_by_label("Begin with")
    for lesson, worked in WORKED.items():
        if choice.input_value() != lesson:
            with laboratory.expect_response(lambda answer: '"query"' in (answer.request.post_data or "")):
                choice.select_option(lesson)
        settle(laboratory)
        for name, vector in worked.items():
            row = laboratory.locator(
                ".outputs tbody tr", has=laboratory.get_by_role("rowheader", name=name, exact=True)
            )
            expect(row).to_have_count(1)
            shown = [float(number) for number in row.locator("td").first.inner_text().split()]
            assert shown == pytest.approx(vector, abs=1.1e-3), (lesson, name)
    assert set(WORKED) | {"A block and its gradients"} == set(choice.locator("option").all_inner_texts())


def test_weights_and_gradients_of_the_lessons(laboratory: Page) -> None:
    def column(place: int) -> list[list[str]]:
        settle(laboratory)
        cells = laboratory.locator(f".weights tbody tr td:nth-child({place + 2})").all_inner_texts()
        return [cell.split("\n") for cell in cells]

    attention = [float(weight.split()[0]) for weight, _ in column(6)]
    assert attention == pytest.approx([27.2, 37.7, 18.0, 17.1], abs=0.11)
    laboratory.get_by_label("Begin with").select_option("A block and its gradients")
    expect(laboratory.locator(".weights tbody tr").last.locator("td").nth(1)).to_contain_text("0.500")
    assert [gradient for _, gradient in column(1)] == ["0.000", "0.000", "0.000", "0.500"]
    assert [gradient for _, gradient in column(0)] == ["0.125"] * 4
    slide(laboratory, "Error of the vector (upstream gradient)", "1")
    expect(laboratory.locator(".weights tbody tr").last.locator("td").nth(1)).to_contain_text("1.000")


def test_a_grid_and_its_windows(laboratory: Page) -> None:
    laboratory.get_by_label("Begin with").select_option(GRID)
    largest = laboratory.get_by_role("table", name="Max of each window").locator("td")
    expect(largest).to_have_text(["0.800", "0.900", "0.900", "0.800"])
    expect(laboratory.get_by_role("table", name="Mean of each window").locator("td")).to_have_text(
        ["0.450", "0.525", "0.500", "0.450"]
    )
    laboratory.get_by_label("Row 2, column 3").fill("5")
    expect(largest).to_have_text(["0.800", "5.000", "0.900", "0.800"])


def test_the_curve_of_gem_is_drawn(laboratory: Page) -> None:
    laboratory.get_by_label("Begin with").select_option("Between the mean and the max")
    curve = laboratory.get_by_role("img", name="What GeM gives")
    expect(curve.locator(".series text")).to_have_text(["gem", "mean", "max"])
    gem, mean, most = (float(path.split(",")[-1]) for path in _paths(curve))
    assert most < gem < mean  # on the page, higher is less
    tokens = laboratory.get_by_role("img", name="Each token's part")
    expect(tokens.locator(".series text")).to_have_text([f"token {place}" for place in range(1, 5)])


def _paths(chart: Locator) -> list[str]:
    return [path.get_attribute("d") or "" for path in chart.locator("path.line").all()]

"""The panel of texts: what it shows against what the API gives."""

from __future__ import annotations

import json
import math
import re
import subprocess
from typing import Any

import httpx
import pytest
import yaml
from playwright.sync_api import Page, Route, expect

from tests.support.lab import settle, write

pytestmark = pytest.mark.slow

TEXTS = ["The mill by the pond.", "A wheel turns.", "ברוך הבא 👩‍🌾 café"]


def compared(http: httpx.Client, poolings: list[str]) -> Any:
    body = {"texts": TEXTS, "pooling": poolings, "model": "mean"}
    return http.post("/compare", json=body).raise_for_status().json()


def test_its_numbers_are_those_of_the_api(page: Page, http: httpx.Client) -> None:
    write(page, *TEXTS)
    found = compared(http, ["mean", "cls", "max"])
    for place, text in enumerate(found["texts"]):
        article = page.locator("article").nth(place)
        expect(article.get_by_role("heading", level=3)).to_contain_text(f"{len(text['tokens'])} of 256 tokens")
        for row, view in enumerate(found["views"]):
            seen = view["texts"][place]
            strategy = article.locator(".strategy").nth(row)
            expect(strategy.get_by_role("heading")).to_have_text(view["pooling"])
            expect(strategy.locator("bdi")).to_have_text([token["token"] for token in text["tokens"]])
            said = f"L2 norm as pooled {seen['norm']:.3f}; first of 384 numbers, normalised: "
            expect(strategy.locator(".vector")).to_contain_text(said)
            numbers = strategy.locator(".vector").inner_text().split("normalised: ")[1].replace("…", "").split()
            assert numbers[:6] == [f"{number:.4f}" for number in seen["vector"][:6]]
            labels = [item.get_attribute("aria-label") or "" for item in strategy.locator("li").all()]
            shares = [float(re.search(r"([\d.]+) %", label).group(1)) for label in labels]  # type: ignore[union-attr]
            assert shares == pytest.approx([100 * share for share in seen["shares"]], abs=0.051)
    for view in found["views"]:
        cells = page.get_by_role("table", name=view["pooling"]).locator("td").all_inner_texts()
        assert cells == [f"{cosine:.2f}" for row in view["cosines"] for cosine in row]


def test_shades_are_on_one_scale_or_by_the_largest_of_a_row(page: Page, http: httpx.Client) -> None:
    write(page, *TEXTS)
    found = compared(http, ["mean", "cls", "max"])
    shades = """rows => rows.map(
      row => [...row.querySelectorAll('li')].map(item => Number(item.style.getPropertyValue('--share'))))"""
    rows = page.locator("article").first.locator(".strategy")
    shares = [view["texts"][0]["shares"] for view in found["views"]]
    for shown, row in zip(rows.evaluate_all(shades), shares, strict=True):
        assert shown == pytest.approx([math.sqrt(share) for share in row], abs=1e-4)
    page.get_by_label("shade each row by its own largest share").check()
    for shown, row in zip(rows.evaluate_all(shades), shares, strict=True):
        assert shown == pytest.approx([share / max(row) for share in row], abs=1e-3)


def test_a_pooling_is_tried_before_it_is_offered_and_can_be_taken_away(page: Page) -> None:
    write(page, *TEXTS)
    for wrong in ("kmx(k=3)", "attention"):
        page.get_by_label("Another").fill(wrong)
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("alert")).to_contain_text(wrong.split("(")[0])
        expect(page.locator("article h4")).to_have_text(["mean", "cls", "max"] * len(TEXTS))
    page.get_by_label("Another").fill("kmax(k=3)")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("button", name="Add").click()
    expect(page.locator("article h4")).to_have_text(["mean", "cls", "max", "kmax(k=3)"] * len(TEXTS))
    page.get_by_role("button", name="Remove kmax(k=3)").click()
    expect(page.locator("article h4")).to_have_text(["mean", "cls", "max"] * len(TEXTS))


def test_the_pooling_of_the_model_that_is_chosen_is_among_those_shown(page: Page) -> None:
    write(page, *TEXTS)
    page.get_by_role("combobox", name="Model").select_option("gem")
    own = page.get_by_label("gem(p=3.0) (this model's)")
    expect(own).to_be_checked()
    expect(page.locator("article").first.locator("h4")).to_have_text(["gem(p=3.0)", "cls", "max"])
    own.uncheck()
    expect(page.locator("article").first.locator("h4")).to_have_text(["cls", "max"])


def test_the_order_of_pairs_is_that_of_their_cosines(page: Page, http: httpx.Client) -> None:
    write(page, *TEXTS)
    found = compared(http, ["mean", "cls", "max"])
    pairs = [(0, 1), (0, 2), (1, 2)]
    ranks = [sorted(pairs, key=lambda pair, view=view: -view["cosines"][pair[0]][pair[1]]) for view in found["views"]]
    rows = page.locator(".ranking tbody tr")
    expect(rows).to_have_count(3)
    for row, pair in zip(rows.all(), ranks[0], strict=True):
        expect(row.get_by_role("rowheader")).to_have_text(f"{pair[0] + 1} and {pair[1] + 1}")
        assert [int(cell.inner_text()) for cell in row.locator("td b").all()] == [
            order.index(pair) + 1 for order in ranks
        ]


def test_a_token_is_pointed_at_in_every_row(page: Page, http: httpx.Client) -> None:
    write(page, *TEXTS)
    share = compared(http, ["max"])["views"][0]["texts"][0]["shares"][2]
    article = page.locator("article").first
    article.locator(".strategy").nth(1).locator("li").nth(2).hover()
    expect(article.locator("li.pointed")).to_have_count(3)
    expect(article.locator(".pointed-at")).to_contain_text(f"max {100 * share:.1f} %")


def test_poolings_are_chosen_and_written(page: Page) -> None:
    page.get_by_role("checkbox", name="weighted_mean").check()
    expect(page.locator("article").first.locator("h4")).to_have_text(["mean", "cls", "max", "weighted_mean"])
    page.get_by_label("Another").fill("kmax(k=2)")
    page.keyboard.press("Enter")
    expect(page.locator("article").first.locator("h4").last).to_have_text("kmax(k=2)")


def test_what_a_text_holds_is_never_run(page: Page) -> None:
    write(
        page, "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>", "&amp; <b>bold</b>"
    )
    assert page.title() == "Millpond lab"
    assert page.locator("article img, article script").count() == 0
    expect(page.locator("article").first.locator("bdi", has_text="<").first).to_be_visible()


def test_texts_are_taken_along_as_a_command_a_program_and_a_config(page: Page, http: httpx.Client) -> None:
    write(page, "It's a mill.", "A wheel")
    copied = {}
    for kind, thing in {"curl": "request", "Python": "request", "YAML": "pooling"}.items():
        page.get_by_role("button", name=f"Copy this {thing} as {kind}").click()
        expect(page.get_by_text(f"Copied as {kind}.")).to_be_visible()
        copied[kind] = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", copied["curl"]], capture_output=True, text=True, check=True)
    assert len(json.loads(answer.stdout)["texts"]) == 2
    assert "'model': 'mean'" in copied["Python"] or '"model": "mean"' in copied["Python"]
    assert 'pooling: "mean"' in copied["YAML"]


def test_a_command_of_more_than_an_argument_holds(page: Page) -> None:
    texts = ["It's a mill, $HOME `id`. " + "Ü " * 40_000, "A wheel"]
    write(page, *texts)
    page.get_by_role("button", name="Copy this request as curl").click()
    expect(page.get_by_text("Copied as curl.")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    sent = command.split("END'\n")[1].removesuffix("\nEND")
    assert json.loads(sent)["texts"] == [text.strip() for text in texts]
    answer = subprocess.run(["bash"], input=command, capture_output=True, text=True, check=True)
    assert len(json.loads(answer.stdout)["texts"]) == 2


@pytest.mark.parametrize("name", ["a: b #x", "1", "on", 'it\'s "new"'])
def test_a_config_of_a_model_of_any_name(page: Page, name: str) -> None:
    def answer(route: Route) -> None:
        info = route.fetch().json()
        model = info["models"][info["default_model"]]
        route.fulfill(json={**info, "default_model": name, "models": {name: model}})

    page.route("**/info", answer)
    page.route(
        "**/compare",
        lambda route: route.continue_(post_data=json.dumps({**route.request.post_data_json, "model": "mean"})),
    )
    page.reload()
    page.get_by_role("button", name="Copy this pooling as YAML").click()
    expect(page.get_by_text("Copied as YAML.")).to_be_visible()
    assert list(yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))["models"]) == [name]


COUNTED = """() => {
  const own = window.fetch;
  window.underWay = window.most = window.asked = 0;
  window.fetch = async (...given) => {
    window.asked += 1;
    window.underWay += 1;
    window.most = Math.max(window.most, window.underWay);
    try {
      const answer = await own(...given);
      return new Response(await answer.text(), answer);
    } finally {
      window.underWay -= 1;
    }
  };
}"""
"""Counts requests where the page makes them: what a browser tells from without may come in another order."""


def test_one_request_at_a_time_while_one_types(page: Page) -> None:
    page.evaluate(COUNTED)
    page.get_by_label("Texts, one a line").press_sequentially("the wheel of the mill turns " * 2, delay=15)
    settle(page)
    assert page.evaluate("[window.most, window.underWay]") == [1, 0]
    assert page.evaluate("window.asked") > 1

"""The lab in a real browser: what it shows against what the API gives, by mouse, by keyboard and by axe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support import browser as chromium
from tests.support.servers import ROOT, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.found() is None, reason=chromium.MISSING),
]

TEXTS = ["The mill by the pond.", "A wheel turns.", "ברוך הבא 👩‍🌾 café"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
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


def write(page: Page, *texts: str) -> None:
    """Write texts, and wait until they are compared."""
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    expect(page.locator("article")).to_have_count(len(texts))
    expect(page.locator("section")).to_have_attribute("aria-busy", "false")


def compared(http: httpx.Client, poolings: list[str]) -> Any:
    body = {"texts": TEXTS, "pooling": poolings, "model": "mean"}
    return http.post("/compare", json=body).raise_for_status().json()


def test_a_browser_is_led_to_it(browser: Browser, side_by_side: Server) -> None:
    with chromium.opened(browser, side_by_side.url) as page:
        page.goto(side_by_side.url)
        expect(page).to_have_url(f"{side_by_side.url}/lab")
    assert side_by_side.http.get("/").json() == {"status": "ok"}


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
            expect(strategy.locator(".vector")).to_contain_text(f"norm {seen['norm']:.3f}; 384 numbers: ")
            numbers = strategy.locator(".vector").inner_text().split("numbers: ")[1].split()
            assert numbers[:6] == [f"{number:.4f}" for number in seen["vector"][:6]]
            labels = [item.get_attribute("aria-label") or "" for item in strategy.locator("li").all()]
            shares = [float(re.search(r"([\d.]+) %", label).group(1)) for label in labels]  # type: ignore[union-attr]
            assert shares == pytest.approx([100 * share for share in seen["shares"]], abs=0.051)
    for view in found["views"]:
        cells = page.get_by_role("table", name=view["pooling"]).locator("td").all_inner_texts()
        assert cells == [f"{cosine:.2f}" for row in view["cosines"] for cosine in row]


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


def test_poolings_are_chosen_and_written(page: Page) -> None:
    page.get_by_role("checkbox", name="weighted_mean").check()
    expect(page.locator("article").first.locator("h4")).to_have_text(["mean", "cls", "max", "weighted_mean"])
    page.get_by_label("Another").fill("kmax(k=2)")
    page.keyboard.press("Enter")
    expect(page.locator("article").first.locator("h4").last).to_have_text("kmax(k=2)")
    page.get_by_label("Another").fill("maen")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("'mean'")
    page.get_by_role("checkbox", name="maen").uncheck()
    expect(page.get_by_role("alert")).to_have_count(0)


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
    for kind in ("curl", "Python", "YAML"):
        page.get_by_role("button", name=f"Copy as {kind}").click()
        expect(page.get_by_text(f"Copied as {kind}.")).to_be_visible()
        copied[kind] = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", copied["curl"]], capture_output=True, text=True, check=True)
    assert len(json.loads(answer.stdout)["texts"]) == 2
    assert "'model': 'mean'" in copied["Python"] or '"model": "mean"' in copied["Python"]
    assert 'pooling: "mean"' in copied["YAML"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("panel", ["texts", "laboratory", "health"])
def test_axe_finds_nothing(browser: Browser, side_by_side: Server, scheme: Any, panel: str) -> None:
    with chromium.opened(browser, side_by_side.url, color_scheme=scheme) as page:
        page.goto(f"{side_by_side.url}/lab#{panel}")
        expect(page.locator("article, .outputs td").first).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_wider_than_the_page(browser: Browser, side_by_side: Server, width: int) -> None:
    with chromium.opened(browser, side_by_side.url, viewport={"width": width, "height": 800}) as page:
        expect(page.get_by_role("heading", name="Text 1")).to_be_visible()
        write(page, "mill " * 500, "a" * 2_000, "The Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for panel in ("Laboratory", "Health"):
            page.get_by_role("link", name=panel).click()
            expect(page.get_by_role("heading", name=panel)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("link", name="Look at texts").click()
        write(page, "mill " * 500)
        expect(page.locator("h3", has_text="cut: what is beyond was not read").first).to_be_visible()


@pytest.fixture
def laboratory(page: Page) -> Page:
    page.get_by_role("link", name="Laboratory").click()
    expect(page.locator(".outputs tbody tr").first).to_be_visible()
    return page


def outputs(page: Page) -> dict[str, tuple[list[float], float]]:
    """Each pooling's vector, and its cosine to the undisturbed one, as the page shows them."""
    expect(page.locator("section")).to_have_attribute("aria-busy", "false")
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


def test_one_request_at_a_time_while_one_types(page: Page) -> None:
    under_way, most = [0], [0]

    def count(by: int) -> Callable[[Any], None]:
        def counted(request: Any) -> None:
            if "/compare" in request.url:
                under_way[0] += by
                most[0] = max(most[0], under_way[0])

        return counted

    page.on("request", count(1))
    for event in ("requestfinished", "requestfailed"):
        page.on(event, count(-1))  # type: ignore[call-overload]
    page.get_by_label("Texts, one a line").press_sequentially("the wheel of the mill turns " * 2, delay=15)
    expect(page.locator("section")).to_have_attribute("aria-busy", "false")
    assert most[0] == 1


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

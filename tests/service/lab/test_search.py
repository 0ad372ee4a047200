"""The panel of searches: its hits and numbers against the API, its scratch collections, and what one gives it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.support import browser as chromium
from tests.support.checkpoints import plain_bert
from tests.support.forks import Forked, Forks
from tests.support.lab import open_panel

pytestmark = pytest.mark.slow

POOLINGS = ["mean", "cls", "max"]


@pytest.fixture
def search(page: Page, http: httpx.Client) -> Iterator[Page]:
    """The panel; what it made is gone once its page is closed."""
    open_panel(page, "search")
    yield page
    page.close()
    until(lambda: not scratch(http))


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def scratch(http: httpx.Client) -> list[Any]:
    """The scratch collections of the service, by their place in their name."""
    found = http.get("/collections").raise_for_status().json()["collections"]
    return sorted((one for one in found if one["name"].startswith("lab-")), key=lambda one: one["name"])


def try_examples(page: Page, http: httpx.Client) -> list[Any]:
    """Search the examples, and return their collections."""
    page.get_by_role("button", name="Try it with examples").click()
    expect(page.get_by_text("Done. 40 of 40 texts stored")).to_be_visible()
    expect(page.locator(".column")).to_have_count(3)
    settle(page)
    return scratch(http)


def settle(page: Page) -> None:
    expect(page.locator("section[aria-labelledby=search-title]")).to_have_attribute("aria-busy", "false")


def asked(http: httpx.Client, name: str, **body: Any) -> list[Any]:
    answer = http.post(f"/collections/{name}/search", json={"k": 10, **body}).raise_for_status()
    return list(answer.json()["hits"])


def ids(column: Locator) -> list[str]:
    return column.locator(".id").all_inner_texts()


def make(page: Page, file: str, content: str | bytes) -> None:
    """Give a file to the panel."""
    field = page.get_by_label(re.compile("Or a file"))
    if not field.is_visible():
        page.get_by_text("Your own texts", exact=True).click()
    buffer = content.encode() if isinstance(content, str) else content
    field.set_input_files({"name": file, "mimeType": "text/plain", "buffer": buffer})


def test_hits_are_those_of_the_api(search: Page, http: httpx.Client) -> None:
    made = try_examples(search, http)
    assert [(one["pooling"], one["count"], one["idle_timeout"]) for one in made] == [
        (pooling, 40, 600) for pooling in POOLINGS
    ]
    found = [asked(http, one["name"], query="sitting by the water") for one in made]
    ranks = [[hit["id"] for hit in hits] for hits in found]
    for number, (column, hits) in enumerate(zip(search.locator(".column").all(), found, strict=True)):
        assert ids(column) == ranks[number]
        assert column.locator(".score").all_inner_texts() == [f"{hit['score']:.4f}" for hit in hits]
        assert column.locator(".text").all_inner_texts() == [hit["text"] for hit in hits]
        for place, (card, id_) in enumerate(zip(column.locator(".hit").all(), ranks[number], strict=True)):
            alone = sum(id_ in each for each in ranks) == 1
            assert card.get_by_text("in no other column").count() == alone
            left = max((before for before in range(number) if id_ in ranks[before]), default=None)
            moved = 0 if left is None else ranks[left].index(id_) - place
            words = f"{'up' if moved > 0 else 'down'} by {abs(moved)} against column {(left or 0) + 1}"
            assert card.get_by_text(words).count() == (moved != 0)
    neighbours = list(pairwise(ranks))
    lines = {id_: sum(id_ in one and id_ in other for one, other in neighbours) for each in ranks for id_ in each}
    expect(search.locator(".lines path")).to_have_count(sum(lines.values()))
    document = next(id_ for id_ in ranks[0] if lines[id_])
    search.locator(".column").first.locator(".hit", has=search.get_by_text(document, exact=True)).hover()
    expect(search.locator(".hit.pointed")).to_have_count(sum(document in each for each in ranks))
    expect(search.locator(".lines .pointed")).to_have_count(lines[document])
    search.get_by_label("Query").fill("a loan from the bank")
    search.get_by_label("Hits").first.fill("3")
    search.get_by_role("combobox", name="Search").select_option("hybrid")
    settle(search)
    hybrid = asked(http, made[1]["name"], query="a loan from the bank", k=3, mode="hybrid")
    expect(search.locator(".column").nth(1).locator(".id")).to_have_text([hit["id"] for hit in hybrid])


def test_why_a_document_matched(search: Page, http: httpx.Client) -> None:
    made = try_examples(search, http)
    hit = asked(http, made[2]["name"], query="sitting by the water", k=1)[0]
    texts = {"text": "sitting by the water", "other": hit["text"], "model": "mean", "pooling": "max"}
    roles = {"input_type": "query", "other_input_type": "document"}
    explained = http.post("/explain", json=texts | roles).raise_for_status().json()["explanations"][0]
    assert explained["served_similarity"] == pytest.approx(hit["score"], abs=1e-5)
    search.locator(".column").nth(2).get_by_role("button", name=f"Why did {hit['id']} match").click()
    why = search.get_by_role("group", name=f"Why {hit['id']} matched")
    expect(why).to_contain_text(f"Cosine {explained['served_similarity']:.4f}")
    for title, side in (("query", "tokens"), ("document", "other")):
        shown = why.get_by_role("list", name=f"Tokens of the {title}")
        assert shown.locator("bdi").all_inner_texts() == [token["token"] for token in explained[side]]
        assert [number(text) for text in shown.locator("small").all_inner_texts()] == pytest.approx(
            [token["contribution"] for token in explained[side]], abs=6e-5
        )
    first = explained["pairs"][0]
    expect(why.locator(".pairs li").first).to_contain_text(f"{first['token']} ~ {first['other_token']}")
    for scheme in ("light", "dark"):
        search.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        checked = Axe().run(search)
        assert checked.violations_count == 0, checked.generate_report()
    search.get_by_role("button", name="Copy this request as curl").click()
    command = search.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert [each["id"] for each in json.loads(answer)["hits"]] == ids(search.locator(".column").first)
    search.get_by_role("combobox", name="for column").select_option("2")
    search.get_by_role("button", name="Copy this pooling as YAML").click()
    assert 'pooling: "max"' in search.evaluate("navigator.clipboard.readText()")


def number(written: str) -> float:
    return float(written.replace("\N{MINUS SIGN}", "-"))


def test_a_filter_is_written_and_checked(search: Page, http: httpx.Client) -> None:
    made = try_examples(search, http)
    search.get_by_text("Filter", exact=True).click()
    search.get_by_label("Field", exact=True).fill("subject")
    search.get_by_label("Value of the field").fill("river")
    search.get_by_role("button", name="Add to the filter").click()
    condition = search.get_by_label("Condition on metadata, as JSON")
    expect(condition).to_have_value('{"subject":"river"}')
    found = asked(http, made[0]["name"], query="sitting by the water", filter={"subject": "river"})
    assert len(found) == 5
    expect(search.locator(".column").first.locator(".id")).to_have_text([hit["id"] for hit in found])
    condition.fill('{"subject":')
    expect(search.get_by_text("This is no JSON yet")).to_be_visible()
    condition.fill('{"subject": {"$eqq": 1}}')
    expect(search.get_by_role("alert")).to_contain_text("$eqq")
    condition.fill('{"subjekt": "river"}')
    expect(search.get_by_text("Did you mean 'subject'?")).to_have_count(3)
    condition.fill("")
    expect(search.locator(".column").first.locator(".hit")).to_have_count(10)


def test_one_s_own_files(search: Page, http: httpx.Client) -> None:
    search.get_by_text("Your own texts", exact=True).click()
    refused = search.get_by_role("alert")
    column = search.get_by_label("Column with the texts")
    for name, content, words in (
        ("empty.csv", " \n", "empty.csv is empty"),
        ("big.txt", "a" * 4_000_001, "up to 4.0 MB"),
        ("header.csv", "text,year\n", "no rows"),
        ("numbers.csv", "a,b\n1,2\n", "no column with texts"),
        ("open.csv", 'text\n"never closed\n', "line 2: a quote is opened"),
        ("wide.csv", "text,year\nOne, two, three,1\n", "row 1: it has 4 cells"),
        ("bad.jsonl", '{"text": "a"}\n{"text": ', "line 2 is no JSON"),
        ("half.jsonl", '{"text": "a"}\n{"text": "b", "n": ["\\ud83d"]}', "item 2: a character is cut in half"),
        ("list.jsonl", '{"text": "a"}\n7\n', "item 2: it is neither"),
        ("windows.csv", "text\nDie Mühle\n".encode("cp1252"), "windows.csv is no text in UTF-8"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "picture.png is no text in UTF-8"),
    ):
        make(search, name, content)
        expect(refused).to_contain_text(words)
    make(search, "twice.csv", "id,text\nx,One\ny,Two\nx,Three\n")
    expect(search.get_by_text("1 id stands in several rows: “x”")).to_be_visible()
    make(search, "many.jsonl", '"A wheel."\n' * 6_000)
    expect(search.get_by_text("texts are given, and the page takes 5,000")).to_be_visible()
    for encoding in ("utf-8-sig", "utf-16"):
        make(search, "marked.tsv", "\r\ntext\tyear\r\nDie Mühle, alt\t1900\r\n".encode(encoding))
        expect(column).to_have_value("text")
        expect(search.get_by_role("button", name="Make 3 collections of 1 text")).to_be_enabled()
    make(search, "own.csv", 'titel;jahr\n"A mill; an ""old"" one\nby the pond";1900\nA wheel;007\nברכה 👩‍🌾;\n')
    expect(column).to_have_value("titel")  # the only one with letters
    search.get_by_role("button", name="Make 3 collections of 3 texts").click()
    expect(search.get_by_text("Done. 3 of 3")).to_be_visible()
    listed = http.post(f"/collections/{scratch(http)[0]['name']}/documents/list", json={}).json()["documents"]
    assert [(one["text"], one["metadata"]) for one in listed] == [
        ('A mill; an "old" one\nby the pond', {"jahr": 1900}),
        ("A wheel", {"jahr": "007"}),
        ("ברכה 👩‍🌾", {}),
    ]


def test_what_was_left_out_is_no_wider_than_the_page(search: Page) -> None:
    search.set_viewport_size({"width": 360, "height": 800})
    make(search, "ids.csv", f"id,text\n{'i' * 600},A mill\nshort,A wheel\n")
    search.get_by_role("button", name="Make 3 collections of 2 texts").click()
    expect(search.get_by_text("1 text was left out")).to_be_visible()
    assert search.evaluate("document.documentElement.scrollWidth") <= 360


def test_chunks_late_and_early(search: Page, http: httpx.Client) -> None:
    make(
        search,
        "long.jsonl",
        '{"body": "😀 A mill stands by the pond. Nobody grinds. The cat sleeps.", "id": "a"}\n"Bread."\n',
    )
    for name in ("cls", "max", "whole texts"):
        search.get_by_role("checkbox", name=name, exact=True).uncheck()
    for name in ("late chunks", "early chunks"):
        search.get_by_role("checkbox", name=name, exact=True).check()
    search.get_by_label("Column with the texts").select_option("body")
    search.get_by_role("button", name="Make 2 collections of 1 text").click()
    expect(search.get_by_text("Done. 1 of 1")).to_be_visible()
    late, early = scratch(http)
    assert (late["chunking"]["mode"], early["chunking"]["mode"]) == ("late", "early")
    search.get_by_label("Query").fill("an animal at rest")
    expect(search.locator(".column mark")).to_have_text(["The cat sleeps."] * 2)
    search.get_by_role("checkbox", name="each document once").uncheck()
    expect(search.locator(".column").first.locator(".hit")).to_have_count(3)
    expect(search.locator(".lines path")).to_have_count(1)


def test_a_column_that_cannot_be_searched_says_why(search: Page, http: httpx.Client) -> None:
    http.put("/collections/foreign-to-the-lab", json={"dimension": 3}).raise_for_status()
    try:
        try_examples(search, http)
        search.get_by_role("checkbox", name="foreign-to-the-lab").check()
        expect(search.locator(".column").nth(3).get_by_role("alert")).to_contain_text("holds foreign vectors")
        expect(search.locator(".column").first.locator(".hit")).to_have_count(10)
    finally:
        http.delete("/collections/foreign-to-the-lab")


def test_the_page_uses_what_it_made_so_that_it_is_kept(search: Page, http: httpx.Client) -> None:
    search.clock.install()
    made = try_examples(search, http)
    with search.expect_request(f"**/collections/{made[2]['name']}") as used:
        search.clock.fast_forward(1_000 * made[2]["idle_timeout"] / 4)
    assert used.value.method == "GET"
    http.delete(f"/collections/{made[2]['name']}").raise_for_status()  # by somebody else
    with search.expect_response(f"**/collections/{made[2]['name']}"):
        search.clock.fast_forward(1_000 * made[2]["idle_timeout"] / 4)
    expect(search.locator(".column")).to_have_count(2)


def test_the_scratch_of_another_page_is_not_listed(search: Page, browser: Browser, http: httpx.Client) -> None:
    made = try_examples(search, http)
    http.put("/collections/of-everybody", json={}).raise_for_status()
    try:
        with chromium.opened(browser, search.url.split("/lab")[0]) as other:
            open_panel(other, "search")
            expect(other.get_by_role("checkbox", name="of-everybody")).to_be_visible()
            assert not any(other.get_by_text(one["name"]).count() for one in made)
            open_panel(other, "map")
            expect(other.get_by_role("combobox", name="Show")).to_contain_text("of-everybody")
            assert not any(other.get_by_text(one["name"]).count() for one in made)
    finally:
        http.delete("/collections/of-everybody")


def test_a_full_queue_is_waited_for_and_a_fill_is_stopped(search: Page, http: httpx.Client) -> None:
    full = {"status": 503, "headers": {"retry-after": "1"}, "json": {"detail": "The queue is full."}}
    search.route("**/documents", lambda route: route.fulfill(**full), times=1)
    make(search, "some.txt", "\n".join(f"Wheel number {place}." for place in range(4_000)))
    search.get_by_role("button", name="Make 3 collections of 4000 texts").click()
    expect(search.get_by_text("The service is busy. This goes on in 1 s.")).to_be_visible()
    expect(search.get_by_text(re.compile(r"^[1-9]\d* of 4000 texts stored"))).to_be_visible()
    search.get_by_role("button", name="Stop").click()
    expect(search.get_by_text("Stopped; what is stored can be searched.")).to_be_visible()
    search.get_by_label("Query").fill("a wheel")
    expect(search.locator(".column")).to_have_count(3)
    search.get_by_role("button", name="Delete all that this page made").click()
    expect(search.get_by_text("Stopped; what is stored")).to_have_count(0)
    assert scratch(http) == []


def test_a_service_that_dies_amid_a_fill_and_a_browser_that_dies_after_it(browser: Browser, tmp_path: Path) -> None:
    """The fill goes on where the service is again; nobody says goodbye for a killed browser but the idle timeout."""
    model = {"encoder": str(plain_bert(tmp_path / "model")), "pooling": "mean"}
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1, "cache": str(tmp_path / "cache")}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"models": {"default": model}, "runtime": runtime}))

    def soon(route: Route) -> None:
        body = route.request.post_data_json
        route.continue_(post_data=json.dumps(body | {"idle_timeout": 3}) if route.request.method == "PUT" else None)

    with Forks() as forks, Forked(forks, config, tmp_path / "store") as server:
        running = browser.browser_type.launch(executable_path=chromium.found(), args=["--no-sandbox"])
        page = running.new_page()
        page.goto(f"{server.url}/lab#search")
        page.route("**/collections/lab-*", soon)
        make(page, "some.txt", "\n".join(f"Wheel number {place}." for place in range(1_000)))
        page.get_by_role("button", name="Make 3 collections of 1000 texts").click()
        expect(page.get_by_text(re.compile(r"^(64|\d{3,}) of 1000 texts"))).to_be_visible()
        server.kill()
        expect(page.get_by_text("This goes on once it answers.")).to_be_visible()
        with server:
            expect(page.get_by_text("Done. 1000 of 1000 texts stored")).to_be_visible(timeout=60_000)
            with httpx.Client(base_url=server.url, trust_env=False) as http:
                assert [one["count"] for one in scratch(http)] == [1_000] * 3
                _kill(running)
                until(lambda: not scratch(http))


def _kill(running: Browser) -> None:
    """Kill a browser and its processes, so that no page of it can do anything more."""
    processes = running.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    for process in processes:
        os.kill(process["id"], signal.SIGKILL)

"""The quiz: what it shows against what the API answers, how it ends, and what it says of data."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.support.lab import open_panel, settle

pytestmark = pytest.mark.slow

PAIRS = [
    (f"The mill number {place} stands by the pond.", f"A wheel turns, {place % 5}.", place % 6) for place in range(24)
]
CSV = "sentence1,sentence2,score,more\n" + "".join(
    f'"{one}",{json.dumps(other)},{score},x\n' for one, other, score in PAIRS
)
SMALL = {
    "pairs": [{"sentence1": one, "sentence2": other, "score": score} for one, other, score in PAIRS],
    "pooling": "mean",
}


@pytest.fixture
def quiz(page: Page) -> Page:
    open_panel(page, "quiz")
    return page


def run(page: Page) -> None:
    page.get_by_role("button", name="Run").click()


def own(page: Page, written: str) -> None:
    page.get_by_role("radio", name="Data of my own").check()
    page.get_by_label("Rows as CSV").fill(written)


def fulfil(page: Page, body: str, status: int = 200) -> list[Any]:
    """Answer the page's evaluations; returns the list of what they are asked."""
    asked: list[Any] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(status=status, body=body, content_type="application/x-ndjson")

    page.route("**/evaluate", answer)
    return asked


def test_its_numbers_are_those_of_the_api(quiz: Page) -> None:
    quiz.get_by_role("radio", name="mean", exact=True).focus()
    quiz.keyboard.press("Space")
    quiz.keyboard.press("ArrowRight")
    expect(quiz.get_by_role("radio", name="cls", exact=True)).to_be_checked()
    own(quiz, CSV)
    asked: list[Any] = []
    answers: list[Any] = []

    def through(route: Route) -> None:
        asked.append(route.request.post_data_json)
        answers.append(route.fetch(timeout=60_000))
        route.fulfill(response=answers[0])

    quiz.route("**/evaluate", through)
    run(quiz)
    expect(quiz.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(quiz.get_by_role("group", name="The answer")).to_be_visible(timeout=60_000)
    sent = [{"sentence1": one, "sentence2": other, "score": str(score)} for one, other, score in PAIRS]
    assert asked == [{"model": "mean", "pairs": sent}]
    report = json.loads(answers[0].text().splitlines()[-1])["report"]
    (data,) = report["data"]
    best_first = sorted(data["rows"], key=lambda row: -row["scores"]["spearman"]["value"])
    rows = quiz.locator(".scores tbody tr")
    expect(rows).to_have_count(len(best_first))
    for shown, row in zip(rows.all(), best_first, strict=True):
        score = row["scores"]["spearman"]
        expect(shown.get_by_role("rowheader")).to_contain_text(row["strategy"])
        cells = shown.locator("td").all_inner_texts()
        assert cells[0] == f"{100 * score['value']:.1f}"
        assert cells[1].strip() == f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"
        words = {"better": "better:", "worse": "worse:", "within noise": "may be chance:"}
        said = words.get(row["verdict"], "what the others")
        assert cells[2].strip().startswith("the same:" if row["strategy"] == "mean_sqrt_len" else said)
    answer = quiz.get_by_role("group", name="The answer")
    expect(answer).to_contain_text(report["advice"])
    expect(answer).to_contain_text(report["yaml"])
    expect(answer).to_contain_text("Your guess, cls,")
    expect(quiz.locator(".scores tr", has_text="your guess")).to_contain_text("cls")
    expect(quiz.locator(".scores tr.reference")).to_contain_text("declared")
    found = Axe().run(quiz)
    assert found.violations_count == 0, found.generate_report()
    quiz.get_by_role("button", name="Copy this pooling as YAML").click()
    assert report["choice"] in quiz.evaluate("navigator.clipboard.readText()")
    open_panel(quiz, "health")
    open_panel(quiz, "quiz")
    expect(quiz.locator(".scores tbody tr")).to_have_count(len(best_first))


def test_a_run_goes_on_beside_other_panels_and_ends_by_its_button_or_with_the_page(
    quiz: Page, http: httpx.Client
) -> None:
    rows = "".join(f"{'a mill by the pond ' * 30}{place},{place % 9}\n" for place in range(2_000))  # minutes of work
    file = {"name": "long.csv", "mimeType": "text/csv", "buffer": f"text,label\n{rows}".encode()}
    quiz.get_by_role("radio", name="Data of my own").check()
    quiz.get_by_label("Or choose a file").set_input_files(file)
    expect(quiz.get_by_text("long.csv")).to_be_visible()
    run(quiz)
    expect(quiz.locator("[role=status]")).to_contain_text("Embedding")
    open_panel(quiz, "health")
    open_panel(quiz, "quiz")
    expect(quiz.locator("[role=status]")).to_contain_text("Embedding")
    assert http.post("/evaluate", json=SMALL).status_code == 503
    quiz.get_by_role("button", name="Stop").click()
    accepted(http)
    expect(quiz.get_by_role("button", name="Run")).to_be_visible()
    expect(quiz.get_by_role("alert")).to_have_count(0)
    run(quiz)
    expect(quiz.locator("[role=status]")).to_contain_text("Embedding")
    quiz.close()
    accepted(http)


def accepted(http: httpx.Client) -> None:
    """Have an evaluation made, of which there is one at a time, as soon as the service knows that a page has left."""
    end = time.monotonic() + 30
    while (answer := http.post("/evaluate", json=SMALL)).status_code == 503:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "report" in json.loads(answer.text.splitlines()[-1])


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "There is nothing yet"),
        ("one,two\na,b\n", "The columns are named one, two. They have to be sentence1, sentence2 and score"),
        ("anchor,positive\na,b\n", "This is 1 row, and fewer than 20"),
        ("how do I sign in\tEnter your name and password.\n", "the first line names the columns"),
        ('{"text": "a", "label": "b"}\n{', "Line 2 is not JSON"),
        ("anchor,positive\n" + "a,b\n" * 30 + 'a,"b\n' + "a,b\n" * 30, "line 32: a quote is opened and never closed"),
        ("anchor,positive\n" + "a, well, b\n" * 30, "row 1: it has 3 cells, and the first line names 2 columns"),
    ],
)
def test_what_is_wrong_with_data(quiz: Page, written: str, words: str) -> None:
    asked = fulfil(quiz, "")
    own(quiz, written)
    run(quiz)
    expect(quiz.get_by_role("alert")).to_contain_text(words)
    assert asked == []


def test_five_megabytes_at_most(quiz: Page) -> None:
    own(quiz, "")
    large = "text,label\n" + "a" * 5_000_000
    quiz.get_by_label("Or choose a file").set_input_files(
        {"name": "large.csv", "mimeType": "text/csv", "buffer": large.encode()}
    )
    expect(quiz.get_by_role("alert")).to_contain_text("large.csv has 5.00 MB, and the page takes 5 MB")
    quiz.get_by_label("Rows as CSV").evaluate(
        """field => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text", "é".repeat(2_600_000));
            field.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}));
        }"""
    )
    expect(quiz.get_by_role("alert")).to_contain_text("What you pasted has 5.20 MB")


def test_a_file(quiz: Page) -> None:
    asked = fulfil(quiz, "")
    own(quiz, "what was written before")
    file = {"name": "<i>mine</i>.csv", "mimeType": "text/csv", "buffer": CSV.encode()}
    quiz.get_by_label("Or choose a file").set_input_files(file)
    expect(quiz.get_by_text("<i>mine</i>.csv")).to_be_visible()
    run(quiz)
    expect(quiz.get_by_role("alert")).to_contain_text("went away")
    assert len(asked[0]["pairs"]) == len(PAIRS)
    quiz.get_by_role("button", name="Take it away").click()
    expect(quiz.get_by_label("Rows as CSV")).to_have_value("what was written before")


def test_a_file_in_another_encoding(quiz: Page) -> None:
    own(quiz, "")
    file = {"name": "windows.csv", "mimeType": "text/csv", "buffer": "text,label\nDie Mühle,1\n".encode("cp1252")}
    quiz.get_by_label("Or choose a file").set_input_files(file)
    expect(quiz.get_by_role("alert")).to_contain_text("windows.csv is no text in UTF-8")
    expect(quiz.get_by_label("Rows as CSV")).to_be_visible()


def test_rows_of_each_kind_of_file(quiz: Page) -> None:
    asked = fulfil(quiz, '{"progress": {"stage": "embedding", "done": 0, "total": 40}}\n')
    quoted = [{"anchor": f'a "wheel", {place}', "positive": "two\nlines"} for place in range(20)]
    doubled = [(row["anchor"].replace('"', '""'), row["positive"]) for row in quoted]
    table = "\n".join(f'"{one}"\t"{other}"\r' for one, other in doubled)
    labelled = [{"text": f"<b>{place}</b>", "label": place % 2} for place in range(2_010)]
    for written, rows in (
        (f"anchor\tpositive\r\n{table}\n", {"pairs": quoted}),
        ("\ufeff" + "\n".join(json.dumps(row | {"id": 7}) for row in quoted), {"pairs": quoted}),
        (
            "anchor;positive\n" + 'one, two;"a; b"\n' * 20,
            {"pairs": [{"anchor": "one, two", "positive": "a; b"}] * 20},
        ),
        (json.dumps(labelled), {"classification": labelled[:2_000]}),
    ):
        own(quiz, written)
        run(quiz)
        expect(quiz.get_by_role("alert")).to_contain_text("went away before it was done")
        assert asked[-1] == {"model": "mean", **rows}
    expect(quiz.get_by_text("Of 2010 rows the first 2000 are compared.")).to_be_visible()


def test_errors_in_a_sentence(quiz: Page) -> None:
    step = '{"progress": {"stage": "embedding", "done": 0, "total": 40}}\n'
    stops = json.dumps({"error": {"status": 503, "detail": "the service is stopping"}})
    busy = json.dumps({"detail": "another evaluation is under way"})
    for body, status, words in (
        (f"{step}{stops}\n", 200, "Not now: the service is stopping"),
        (busy, 503, "Not now: another evaluation is under way"),
        ("Bad Gateway", 502, "Press Run once it is back"),
        (json.dumps({"detail": "key 'a' is for search"}), 403, "key 'a' is for search"),
    ):
        fulfil(quiz, body, status)
        run(quiz)
        expect(quiz.get_by_role("alert")).to_contain_text(words)
        settle(quiz)
        quiz.unroute("**/evaluate")
    expect(quiz.get_by_label("API key")).to_be_visible()

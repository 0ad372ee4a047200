"""`millpond explain`, over HTTP and inside the process."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.support.deployed import deployed
from tests.support.servers import ROOT

TEXT, OTHER = "A man is playing a harp & <b>.", "Someone plays the harp."


class Page(HTMLParser):
    """Collects the words of each paragraph, and what the page would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.paragraphs, self.tags, self.loads, self.inside = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag == "p":
            self.paragraphs.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "p"

    def handle_data(self, data):
        if self.inside:
            self.paragraphs[-1] += data


def test_a_row_a_token_and_a_bar_a_strategy(asking):
    result = asking("explain", TEXT, "--model", "mean", "-p", "mean", "-p", "max", "-p", "cls")
    assert (result.returncode, result.stderr) == (0, "")
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["share", "mean", "max", "cls"]
    words = ["a", "man", "is", "playing", "a", "harp", "&", "<", "b", ">", "."]
    assert [row.split()[0] for row in rows] == ["[CLS]", *words, "[SEP]"]
    shares = [[float(share) for share in re.findall(r"([\d.]+)%", row)] for row in rows]
    assert all(sum(column) == pytest.approx(100, abs=0.7) for column in zip(*shares, strict=True))
    assert shares[0][2] == 100.0 and rows[0].count("█") > 40 > rows[1].count("█")


def test_json_is_the_service_s_answer(asking, side_by_side):
    result = asking("explain", TEXT, OTHER, "--json", "-p", "gem(p=3)")
    body = {"text": TEXT, "other": OTHER, "pooling": ["gem(p=3)"]}
    assert json.loads(result.stdout) == side_by_side.http.post("/explain", json=body).json()


@pytest.mark.slow
def test_other_layers(here):
    with deployed(here.store) as served:
        body = {"text": TEXT, "pooling": ["max"], "layers": {"last": 2}}
        wanted = served.post("/explain", body).json()
    found = json.loads(here("explain", TEXT, "-p", "max", "--layers", "{last: 2}", "--json").stdout)
    assert found["layers"] == wanted["layers"]
    shares = [[each["share"] for each in answer["explanations"][0]["tokens"]] for answer in (found, wanted)]
    assert shares[0] == pytest.approx(shares[1])


def test_two_texts(asking, tmp_path):
    page = tmp_path / "page.html"
    result = asking("explain", TEXT, OTHER, "-p", "mean", "-p", "gem(p=3)", "--html", page)
    assert (result.returncode, result.stderr) == (0, "")
    assert "harp ~ harp" in result.stdout and "(divided by share)" in result.stdout
    html = page.read_text()
    found = Page(html)
    assert not found.loads and "script" not in found.tags and "link" not in found.tags
    assert found.tags.count("svg") == 2 and found.tags.count("rect") > 50
    assert [text for text in found.paragraphs if "harp" in text] == 2 * [f"[CLS]{TEXT}[SEP]", f"[CLS]{OTHER}[SEP]"]


def test_a_page_of_one_text(asking, tmp_path):
    page = tmp_path / "page.html"
    text = "naïve\n日本 👨‍👩‍👧 <script>alert(1)</script>"
    result = asking("explain", text, "-p", "mean", "-p", "last", "--html", page)
    assert result.returncode == 0, result.stderr
    found = Page(page.read_text())
    assert "script" not in found.tags and "svg" not in found.tags
    assert [shown for shown in found.paragraphs if "naïve" in shown] == 2 * [f"[CLS]{text}[SEP]"]


@pytest.mark.slow
def test_in_process_equals_over_http(asking, millpond):
    command = ("explain", TEXT, OTHER, "--model", "mean", "--json")
    config = ROOT / "configs" / "side-by-side.yaml"
    inside = json.loads(millpond(*command, "--config", config, env={"MILLPOND_RUNTIME__PRECISION": "fp32"}).stdout)
    over = json.loads(asking(*command).stdout)
    assert inside["explanations"][0]["similarity"] == pytest.approx(over["explanations"][0]["similarity"], abs=1e-5)


@pytest.mark.slow
def test_what_cannot_be_explained(asking, tmp_path):
    for arguments, status, message in (
        (("",), 1, "the text is empty"),
        (("a", " "), 1, "the other text has nothing but white space"),
        (("harp " * 300,), 1, "the text has 302 tokens and the model takes 256. Give --truncate"),
        (("a", "-p", "meen"), 1, "did you mean 'mean'?"),
        (("a", "-p", "attention"), 1, "learned"),
        (("a", *["-p", "mean"] * 17), 1, "17 poolings are asked for"),
        (("a", "--html", tmp_path / "no" / "page.html"), 2, "No such file"),
        (("a", "--url", "http://127.0.0.1:9"), 1, "no service answers"),
    ):
        result = asking("explain", *arguments)
        assert result.returncode == status and message in result.stderr, (arguments, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr

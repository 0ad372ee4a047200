"""The page: whole, readable on its own, and true to the report."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from service.evaluation import plots
from service.evaluation.page import page


class Outline(HTMLParser):
    """Fails on tags that are not closed in order; gathers the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def outline(report):
    parser = Outline()
    parser.feed(page(report, "millpond train --model a"))
    assert not parser.open
    return parser


def test_it_needs_nothing_beside_it(outline):
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"script", "link", "img", "iframe"}
    assert not any({"src", "href"} & set(attributes) for _, attributes in outline.tags)


def test_it_holds_the_figures_the_advice_and_the_names_as_they_are(outline):
    text = "".join(outline.text)
    for wanted in (
        *("Poolings of a & b", "pairs <of mine>.csv", "fitted/<pooler>", "pooling: mean", "millpond train --model a"),
        *("Keep mean, which", "82.00 (80.00 to 84.00)", "-3.00 (-5.00 to -1.00)", "worse", "within noise"),
        *("1.10 times as long", "3 texts are longer than 5 tokens."),
    ):
        assert wanted in text
    assert text.index("fitted/<pooler>83.00") < text.index("mean82.00") < text.index("max79.00")  # the best first


def test_its_plots_are_svg(report):
    found = re.findall(r"<svg.*?</svg>", page(report), re.S)
    # Scores, differences, a line's sample for each of three poolings, and three kinds of spoiled texts.
    assert len([ElementTree.fromstring(each) for each in found]) == 2 + 3 + 3


def test_of_a_single_pooling_there_are_no_differences(report):
    data = replace(report.data[0], rows=report.data[0].rows[1:2])
    assert "difference to" not in page(replace(report, data=(data,)))


def places(svg, tag, attribute):
    return [float(each.get(attribute)) for each in ElementTree.fromstring(svg).iter(tag)]


def test_dots_stand_where_the_values_are():
    bars = [plots.Bar(str(value), value, value - 1, value + 1) for value in (0.0, 5.0, 10.0)]
    first, middle, last = places(plots.intervals(bars, "x"), "circle", "cx")
    assert first < middle < last
    assert middle - first == pytest.approx(last - middle, abs=0.2)
    assert places(plots.intervals(bars, "x"), "circle", "cy") == sorted(
        places(plots.intervals(bars, "x"), "circle", "cy")
    )


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0, -250.0])
def test_one_value_can_be_drawn(value):
    ElementTree.fromstring(plots.intervals([plots.Bar("a", value, value, value)], "x", zero=True))
    ElementTree.fromstring(plots.lines([plots.Line("a", [(0.0, value)])], "x", "y"))


def test_json_holds_all_of_it(report):
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (found["format"], found["choice"], found["yaml"]) == (1, "mean", "pooling: mean")
    [data] = found["data"]
    assert data["speed"]["ratio"] == pytest.approx(1.1)
    assert data["seconds"] == {"embedding": 4.0, "scoring": 1.0}
    assert [row["verdict"] for row in data["rows"]] == ["worse", None, "within noise"]
    assert data["rows"][0]["information"]["words_recovered"] == 0.5

"""The page: whole, readable on its own, and true to the report."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from service.evaluation.page import page
from service.evaluation.report import Score


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
    # Scores, differences, a line's sample for each of three poolings, and three kinds of perturbation.
    assert len([ElementTree.fromstring(each) for each in found]) == 2 + 3 + 3
    assert len(svgs(report)) == 2 + 3


def test_of_a_single_pooling_there_are_no_differences(report):
    data = replace(report.data[0], rows=report.data[0].rows[1:2])
    assert "difference to" not in page(replace(report, data=(data,)))


def svgs(report):
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg viewBox.*?</svg>", page(report), re.S)]


def scored(report, *values):
    """The report with one strategy for each value."""
    [data] = report.data
    rows = [replace(data.rows[1], strategy=f"s{value}") for value in values]
    rows = [
        replace(row, scores={name: Score(value, value - 0.1, value + 0.1) for name in row.scores})
        for row, value in zip(rows, values, strict=True)
    ]
    return replace(report, data=(replace(data, rows=tuple(rows)),))


def test_dots_stand_where_the_values_are(report):
    circles = list(svgs(scored(report, 0.0, 0.05, 0.1))[0].iter("circle"))
    last, middle, first = (float(each.get("cx")) for each in circles)  # the best first
    assert first < middle < last
    assert middle - first == pytest.approx(last - middle, abs=0.2)
    heights = [float(each.get("cy")) for each in circles]
    assert heights == sorted(set(heights))


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0, -250.0])
def test_one_value_can_be_drawn(report, value):
    alone = scored(report, value)
    [row] = alone.data[0].rows
    flat = {kind: [replace(each, score=value, lost=0.0) for each in found] for kind, found in row.robustness.items()}
    scores = {name: Score(value, value, value) for name in row.scores}
    row = replace(row, scores=scores, robustness=flat)
    intervals, *lines = svgs(replace(alone, data=(replace(alone.data[0], rows=(row,)),)))
    assert len(list(intervals.iter("circle"))) == 1
    assert [len(list(each.iter("polyline"))) for each in lines] == [1, 1, 1]


def test_json_holds_all_of_it(report):
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (found["format"], found["choice"], found["yaml"]) == (1, "mean", "pooling: mean")
    [data] = found["data"]
    assert data["speed"]["ratio"] == pytest.approx(1.1)
    assert data["seconds"] == {"embedding": 4.0, "scoring": 1.0}
    assert [row["verdict"] for row in data["rows"]] == ["worse", None, "within noise"]
    assert data["rows"][0]["information"]["words_recovered"] == 0.5

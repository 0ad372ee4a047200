"""What results are made of: fresh texts, ratios, batches, what a soak shows, and the files."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.encoder import batches
from benchmarks.load import Answer, Outcome
from benchmarks.machine import Usage, processor
from benchmarks.plots import Panel, curves, rows
from benchmarks.report import Report, medians_by_column, nested, number, ratio, ratios, spread
from benchmarks.servers import Measured
from benchmarks.soak import EVERY, Soak
from benchmarks.texts import fresh
from benchmarks.throughput import ALONE, KINDS, show


def test_a_ratio_pairs_the_rounds() -> None:
    assert ratio([10, 100, 30], [5, 50, 30]) == 2
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


def test_ratios_are_of_what_both_measured() -> None:
    assert ratios({"a": [10.0], "b": [1.0]}, {"a": [4.0], "c": [1.0]}) == {"a": "2.50"}


def test_what_is_measured_by_pairs_becomes_a_table() -> None:
    rows = nested({("x", "a"): [1.0, 3.0], ("y", "a"): [2.0], ("x", "b"): [5.0]})
    assert rows == {"x": {"a": [1.0, 3.0], "b": [5.0]}, "y": {"a": [2.0]}}
    assert medians_by_column(rows, ["b", "a"]) == {"b": {"x": 5.0}, "a": {"x": 2.0, "y": 2.0}}


def test_figures_have_three_digits() -> None:
    assert [number(value) for value in (1234.5, 99.94, 9.876)] == ["1234", "99.9", "9.88"]
    assert spread([3.0]) == "3.00"
    assert spread([30.0, 10.0, 20.0]) == "20.0 (10.0-30.0)"


def test_no_text_comes_twice_and_all_have_the_lengths_of_the_data() -> None:
    texts = [
        " ".join(f"w{number}" for number in range(start, start + length)) for start in range(9) for length in (3, 7)
    ]
    found = list(islice(fresh(texts), 60))
    assert len(set(found)) == 60
    assert set(found[: len(texts)]) == set(texts)
    assert {len(text.split()) for text in found} == {3, 7}
    assert found == list(islice(fresh(texts), 60)) != list(islice(fresh(texts, seed=1), 60))


def test_a_soak_shows_memory_that_grows_and_the_slowest_of_each_stretch() -> None:
    answers = [
        Answer(at, latency, 5, refused, b"")
        for at, latency, refused in ((0.1 * EVERY, 0.25, 0), (0.9 * EVERY, 0.5, 1), (2.5 * EVERY, 2.0, 0))
    ]
    soak = Soak([500.0, 600.0, 660.0], answers, Usage(cpu=0.3, peak=700.0), shapes=42)
    assert [round(p99) if p99 else None for p99 in soak.p99()] == [498, None, 2000]
    row = soak.row(2)
    assert [row[head] for head in ("early", "at the end", "growth", "at most")] == ["600", "660", "+10.0%", "700"]
    assert [row[head] for head in ("p50", "longest", "longest without an answer")] == [
        "500",
        "2000",
        f"{1600 * EVERY:.0f}",
    ]
    assert [row[head] for head in ("requests", "refused", "CPU", "shapes")] == ["3", "1", "20.0", "42"]


def test_loads_are_compared_with_the_ceiling_and_a_single_client_with_itself_alone(tmp_path: Path) -> None:
    ceiling = [Measured(Outcome(1.0, 200), Usage(cpu=0.4))] * 2
    usage = Usage(cpu=0.25, resident=500.0, peak=600.0)
    here = [Measured(Outcome(1.0, 100, [0.010, 0.030]), usage), Measured(Outcome(1.0, 50, [0.010, 0.030]), usage)]
    crowded = [Measured(Outcome(1.0, 10, [0.020, 0.060]), usage)] * 2
    found = {
        "ceiling fp32": {kind.name: ceiling for kind in KINDS if kind is not ALONE},
        "Millpond fp32": {kind.name: here for kind in KINDS} | {"beside others": crowded},
    }
    report = Report("demo", "A demonstration", rounds=2, quick=False, folder=tmp_path)
    show(report, found, {"Millpond fp32": "ceiling fp32"})
    report.write()
    page = (tmp_path / "demo.md").read_text()
    assert "| Millpond fp32 / ceiling fp32 | 0.38 | 0.38 | 0.38 |  |" in page
    row = "| Millpond fp32 | 75.0 (50.0-100) | 0.38 | 3.75 | 0.60 | 20.0 | 29.8 | 30.0 | 500 | 600 |"
    assert page.count(row) == len(KINDS) - 1
    assert (
        "| Millpond fp32, beside others | 40.0 (40.0-40.0) | 59.6 (59.6-59.6) | 60.0 (60.0-60.0) | 2.00 | 2.00 |"
        in page
    )


def test_batches_hold_every_text_within_their_tokens() -> None:
    lengths = (3, 9, 1, 4, 30, 4)
    found = batches([[place + 1] * length for place, length in enumerate(lengths)], tokens=12)
    assert sorted(place for places, *_ in found for place in places) == list(range(len(lengths)))
    for places, ids, mask in found:
        assert ids.size <= 12 or len(ids) == 1
        for place, row, counted in zip(places, ids, mask, strict=True):
            assert row[counted].tolist() == [place + 1] * lengths[place]
            assert (row[~counted] == 0).all()


def test_batches_can_be_padded_further() -> None:
    ((_, ids, mask),) = batches([[5, 6]], least=4, pad=9)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6, 9, 9]], [[True, True, False, False]])


def test_every_contestant_is_measured_in_every_round(tmp_path: Path) -> None:
    asked = []
    report = Report("demo", "A demonstration", rounds=2, quick=False, folder=tmp_path)
    found = report.interleave({name: partial(asked.append, name) for name in "ab"})
    assert asked == ["a", "b", "a", "b"]
    assert found == {"a": [None, None], "b": [None, None]}


def test_a_report_is_a_page_its_figures_and_its_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--isa", "avx2")
    report = Report("demo", "A demonstration", rounds=2, quick=False, folder=tmp_path / "new", options=options)
    report.table("texts/s", {"x": {"a": 1.0}, "y": {"b": 20.0}}, number)
    report.plot(curves([Panel("", "clients", "texts/s", [1, 2], {"x": [1.0, 2.0]})], "Demo"), "demo-lines", "Demo")
    report.plot(rows({"p": {"x": 1.0}, "q": {"y": 2.0}}, "Demo"), "demo-bars", "Demo")
    report.keep(rates={"x": [1.0]})
    report.write()
    page = (tmp_path / "new" / "demo.md").read_text()
    assert page == capsys.readouterr().out
    assert f"| texts/s: {processor()} | a | b |\n| --- | ---: | ---: |\n| x | 1.00 |  |\n| y |  | 20.0 |" in page
    assert "python -m benchmarks demo --isa avx2 --rounds 2" in page
    kept = json.loads((tmp_path / "new" / "demo.json").read_text())
    assert kept["rates"] == {"x": [1.0]}
    for plot in ("demo-lines", "demo-bars"):
        assert (tmp_path / "new" / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({plot}.png)" in page

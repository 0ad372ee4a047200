"""What results are made of: ratios, texts of a length, cliffs, and the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bare import batches_of
from benchmarks.loop import bundled
from benchmarks.options import Settings
from benchmarks.plots import bars, lines
from benchmarks.report import Report, number, ratio, spread
from benchmarks.scaling import cliffs, texts_of


def test_a_ratio_pairs_the_rounds() -> None:
    assert ratio([10, 100, 30], [5, 50, 30]) == 2
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


def test_figures_have_three_digits() -> None:
    assert [number(value) for value in (1234.5, 99.94, 9.876)] == ["1234", "99.9", "9.88"]
    assert spread([3.0]) == "3.00"
    assert spread([30.0, 10.0, 20.0]) == "20.0 (10.0-30.0)"


@pytest.mark.parametrize("length", [16, 512])
def test_texts_have_exactly_so_many_tokens(minilm: Path, length: int) -> None:
    from transformers import AutoTokenizer

    texts = texts_of(length, 5)
    tokenizer = AutoTokenizer.from_pretrained(bundled())
    assert [len(ids) for ids in tokenizer(texts)["input_ids"]] == [length] * 5
    assert len(set(texts)) == 5


def test_a_cliff_is_a_fall_of_more_than_a_quarter() -> None:
    assert cliffs({1: [100.0], 2: [76.0], 4: [80.0]}) == []
    assert cliffs({1: [100.0, 90.0, 110.0], 2: [74.0, 200.0, 10.0]}) == ["from 1 to 2 clients, 100 to 74.0 texts/s"]


def test_batches_hold_every_text_within_their_tokens() -> None:
    batches = batches_of([[1] * length for length in (3, 9, 1, 4, 30, 4)], tokens=12)
    assert sorted(row for _, mask in batches for row in mask.sum(1)) == [1, 3, 4, 4, 9, 30]
    assert all(ids.size <= 12 or len(ids) == 1 for ids, _ in batches)
    assert all((ids[~mask] == 0).all() and (ids[mask] == 1).all() for ids, mask in batches)


def test_a_report_is_a_page_its_figures_and_its_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("demo", "A demonstration", Settings(rounds=2, results=tmp_path / "new"))
    report.table(["texts/s", "a", "b"], [["x", "1", "2"]])
    report.commands({"x": ["/somewhere/bin/program", "--port", "1"]})
    report.plot(lines([1, 2], {"x": [1.0, 2.0]}, x="clients", y="texts/s", title="Demo"), "demo-lines", "Demo")
    report.plot(bars({"p": {"x": 1.0}}, x="texts/s", title="Demo"), "demo-bars", "Demo")
    report.keep("rates", {"x": [1.0]})
    report.write()
    page = (tmp_path / "new" / "demo.md").read_text()
    assert page == capsys.readouterr().out
    assert "| x | 1 | 2 |" in page
    assert "`program --port 1`" in page
    assert "python -m benchmarks.demo --rounds 2" in page
    kept = json.loads((tmp_path / "new" / "demo.json").read_text())
    assert kept["rates"] == {"x": [1.0]}
    for plot in ("demo-lines", "demo-bars"):
        assert (tmp_path / "new" / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({plot}.png)" in page

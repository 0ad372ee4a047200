"""The figures of docs/pooling.md: their numbers on a few texts, their files, and the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.pooling_figures import disturbances, encoders, lengths, strategies
from benchmarks.pooling_figures.__main__ import ALL, save
from benchmarks.pooling_figures.laboratory import FIXED, Encoder, Laboratory
from pooling import available, stages
from tests.conftest import ROOT
from tests.support.checkpoints import plain_llama

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "pooling.md"


@pytest.fixture(scope="module")
def laboratory(data: Path, tmp_path_factory: pytest.TempPathFactory):
    """A few texts, and a small causal model with random weights in place of SmolLM2."""
    found = Laboratory(pairs=40, documents=5)
    found.smollm2 = Encoder(str(plain_llama(tmp_path_factory.mktemp("llama"))))
    return found


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-4, abs=1e-4)


def test_shares_of_a_sentence(laboratory: Laboratory) -> None:
    numbers = strategies.shares(laboratory).numbers
    assert [numbers["tokens"][0], numbers["tokens"][-1]] == ["[CLS]", "[SEP]"]
    assert all(sum(row) == near(100) for row in numbers["shares"].values())
    assert numbers["shares"]["cls"][0] == numbers["shares"]["last"][-1] == near(100)
    assert numbers["shares"]["mean"] == near([100 / len(numbers["tokens"])] * len(numbers["tokens"]))


def test_noise_costs_one_token_more_than_many(laboratory: Laboratory) -> None:
    numbers = disturbances.noise(laboratory).numbers
    by_noise, by_swaps = numbers["spearman_by_noise"], numbers["spearman_by_swaps"]
    assert all(by_noise[spec][0] == near(by_swaps[spec][0]) for spec in FIXED)  # none of either
    assert by_noise["mean"][0] - by_noise["mean"][-1] < by_noise["cls"][0] - by_noise["cls"][-1]
    assert all(by_swaps[spec][-1] < by_swaps[spec][0] for spec in FIXED)


def test_a_spike_moves_a_vector_by_its_weight(laboratory: Laboratory) -> None:
    numbers = disturbances.outliers(laboratory).numbers
    arrived, tokens = numbers["percent_of_the_spike"], numbers["synthetic_tokens"]
    middle = (tokens // 2 + 1) / (tokens * (tokens + 1) / 2)
    assert arrived["mean"] == near([100 / tokens] * len(disturbances.SPIKES))
    assert arrived["weighted_mean"] == near([100 * middle] * len(disturbances.SPIKES))
    assert arrived["cls"] == arrived["last"] == [0.0] * len(disturbances.SPIKES)
    assert arrived["mean"][-1] < arrived["gem(p=3)"][-1] < arrived["max"][-1] < 100
    assert numbers["spearman"]["mean"][-1] < numbers["spearman"]["mean"][0]


def test_filler_dilutes(laboratory: Laboratory) -> None:
    numbers = lengths.length(laboratory).numbers
    held, found = numbers["share_of_the_sentence"], numbers["found_first"]
    assert all(held[spec] == sorted(held[spec], reverse=True) for spec in lengths.SPREAD)
    assert held["weighted_mean"][-1] < held["mean"][-1]
    assert found["mean"][-1] <= found["mean"][0]


def test_only_the_mask_keeps_padding_out(laboratory: Laboratory) -> None:
    numbers = lengths.padding(laboratory).numbers
    cosines, scores = numbers["cosine_to_the_text_alone"], numbers["spearman"]
    assert cosines["mean"] == near([1.0] * len(lengths.TIMES))
    assert scores["mean"] == near([scores["mean"][0]] * len(lengths.TIMES))
    assert cosines[lengths.UNMASKED] == sorted(cosines[lengths.UNMASKED], reverse=True)
    assert cosines[lengths.UNMASKED][-1] < 0.99


def test_first_and_last_token_are_cls_and_last(laboratory: Laboratory) -> None:
    numbers = encoders.causal(laboratory).numbers
    for encoder, by_strategy in numbers["spearman_by_strategy"].items():
        by_place = numbers["spearman_of_one_token"][encoder]
        assert [by_place["0"], by_place["1"]] == near([by_strategy["cls"], by_strategy["last"]])
    assert next(iter(numbers["first_tokens_that_differ"].values())) == 1  # [CLS]


def test_gradients_reach_whom_they_should(laboratory: Laboratory) -> None:
    numbers = strategies.gradients(laboratory).numbers
    reached, lengths = numbers["reached"], numbers["lengths"]
    assert reached["cls"] == reached["last"] == near([100 / tokens for tokens in lengths])
    for spec in ("mean", "weighted_mean", "gem(p=3)", "attention", "gated", "multihead_attention", "mean + max"):
        assert reached[spec] == near([100.0] * len(lengths))
    assert reached["max"][-1] < 100
    assert numbers["evenness"]["mean"] == near([100.0] * len(lengths))
    assert all(evenness <= 100.01 for values in numbers["evenness"].values() for evenness in values)


def test_parameters_are_counted() -> None:
    numbers = strategies.parameters(Laboratory()).numbers
    counts, dimensions = numbers["parameters"], numbers["dimensions"]
    assert [counts[spec] for spec in ("mean", "gem(p=3)", "attention", "gated")] == [0, 1, 384, 385]
    assert [dimensions[spec] for spec in ("mean", "mean + max", "multihead_attention(heads=4)")] == [384, 768, 1536]


def test_a_figure_is_an_opaque_svg_without_a_date_that_does_not_change(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save(strategies.parameters(Laboratory()), "it", tmp_path / folder)
    one, two = ((tmp_path / folder / "it.svg").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert b"<dc:date>" not in one
    assert "fill: #ffffff" in one.decode()[:3000]


def linked() -> list[Path]:
    return [PAGE.parent / path for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text())]


def test_the_page_shows_every_figure_and_its_command() -> None:
    assert [path.stem for path in linked()] == list(ALL)
    for path in linked():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.stat().st_size < 150_000
        assert f"\npython -m benchmarks.pooling_figures {path.stem}\n" in PAGE.read_text()


def test_the_page_names_every_strategy() -> None:
    page = PAGE.read_text()
    assert [name for name in (*available(), *stages()) if f"`{name}" not in page] == []

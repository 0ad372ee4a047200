"""Commands over a folder with a Router: what it has is shown by route, and what is of one encoder is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.sentence_transformer.modules import Normalize
from typer.testing import CliRunner, Result

from service.cli import app
from service.cli.wording import in_options
from service.embedding.embedder import Embedder
from service.errors import InvalidInput
from tests.support.checkpoints import TEXTS, routed

_PAIRS = (("a mill", "the mill"), ("grain", "a wheel"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return routed(tmp_path_factory.mktemp("routes"), Normalize())


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, [*map(str, arguments)], env={"MILLPOND_RUNTIME__BACKEND": "torch", "COLUMNS": "400"}
    )


def rows(output: str) -> list[Sequence[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines()]


@pytest.mark.slow
def test_a_config_is_checked_by_route(millpond: Any, folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"models": {"m": {"encoder": str(folder)}}}))
    result = millpond("config", "check", config)
    assert result.returncode == 0, result.stderr
    found = {row[0]: row[2:5] for row in rows(result.stdout)}
    assert found["m (query)"] == ["declared", "mean", "yes"]
    assert found["m (document)"] == ["declared", "cls", "yes"]
    config.write_text(json.dumps({"models": {"m": {"encoder": str(folder), "max_tokens": 10_000}}}))
    refused = str(invoke("config", "check", config).exception)
    assert (
        "models.m.max_tokens: 10000 is more than the 64 positions" in refused and "document_0_Transformer" in refused
    )


def test_what_is_of_one_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    pairs = [f"{first} {place},{second} {place},{place % 3}" for place in range(40) for first, second in _PAIRS]
    data.write_text("\n".join(["sentence1,sentence2,score", *pairs]))
    for command in (
        ["evaluate", folder, "--pairs", data],
        ["train", "--model", folder, "--train", data, "--dev", data, "--test", data, "--output", tmp_path / "out"],
    ):
        result = invoke(*command)
        assert result.exit_code, result.output
        said = str(result.exception)
        assert "has a Router" in said and f"{folder / 'document_0_Transformer'} (document)" in said


def test_the_remedy_is_an_option(folder: Path) -> None:
    torch = {"backend": "torch", "precision": "fp32"}
    with Embedder.load(str(folder), runtime=torch) as model, pytest.raises(InvalidInput) as refused:
        model.encode(TEXTS, prompt_name="query")
    assert "Give --input-type query instead." in in_options(refused.value.detail)

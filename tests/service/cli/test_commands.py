"""Help, `millpond poolings`, `millpond config check` and `millpond serve`."""

from __future__ import annotations

import subprocess

import pytest

import pooling
from tests.support.classifiers import bert_classifier
from tests.support.deployed import TINY
from tests.support.servers import ROOT
from tests.support.splade import bert_mlm, sparse_encoder

from .conftest import COMMAND

COMMANDS = ("serve", "embed", "index", "search", "explain", "poolings", "config")


def test_help(millpond):
    result = millpond("--help")
    assert result.returncode == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)


def test_help_imports_nothing_that_is_slow(environment):
    slow = {"torch", "faiss", "transformers", "fastapi", "numpy", "uvicorn"}
    code = (
        "import sys; sys.argv = ['millpond', '--help']\nfrom service.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('slow:', sorted({slow} & sys.modules.keys()))"
    )
    result = subprocess.run([COMMAND[0], "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.endswith("slow: []\n"), result.stdout


@pytest.mark.parametrize("command", ["index", "search"])
def test_usage(millpond, command):
    result = millpond(command)
    assert result.returncode == 2
    assert "Missing" in result.stderr


@pytest.mark.slow
def test_poolings_lists_every_strategy_and_stage(millpond):
    result = millpond("poolings")
    assert (result.returncode, result.stderr) == (0, "")
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    for name, strategy in {**pooling.available(), **pooling.stages()}.items():
        assert all(text in rows[name] for text in (strategy.summary, strategy.good_for, strategy.weak_at))
        assert all(option in rows[name] for option in pooling.options_of(strategy))
    assert "p=3.0" in rows["gem"] and "size (required)" in rows["window"]


@pytest.mark.slow
def test_poolings_of_other_packages(millpond, environment, tmp_path):
    (tmp_path / "median_pooling.py").write_text(
        "from pooling import Mean\n"
        "class Median(Mean):\n"
        "    name = 'median'\n    summary = 'of each dimension'\n    good_for = '[all]'\n    weak_at = 'ties'\n"
    )
    about = tmp_path / "median_pooling-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: median-pooling\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[millpond.poolers]\nmedian = median_pooling:Median\nlost = median_pooling:Lost\n"
    )
    result = millpond("poolings", env={"PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"})
    assert result.returncode == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("median"))
    assert "of each dimension" in row and "[all]" in row and "ties" in row
    assert result.stderr.startswith("warning: pooling 'lost' of package 'median-pooling' cannot be used")


@pytest.mark.slow
def test_check_a_good_config(millpond, minilm, tmp_path):
    config = tmp_path / "good.yaml"
    config.write_text(
        "models:\n"
        "  default: {encoder: bundled/all-MiniLM-L6-v2, prompts: {query: 'find: '}}\n"
        f"  other: {{encoder: {minilm}, pooling: cls + gem, max_tokens: 128, normalize: false}}\n"
        "  third: {encoder: bundled/all-MiniLM-L6-v2, pooling: attention}\n"
    )
    result = millpond("config", "check", config)
    assert result.returncode == 0, result.stderr
    _, *rows = (line.split("  ") for line in result.stdout.splitlines())
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["default", str(minilm), "declared", "mean", "yes", "256", "query: 'find: '"],
        ["other", str(minilm), "cls + gem(p=3.0)", "mean", "no", "128", "none"],
        ["third", str(minilm), "attention", "mean", "yes", "256", "none"],
    ]
    assert result.stderr.splitlines() == [
        "warning: models.other: pooling 'cls + gem(p=3.0)' overrides the declared 'mean'",
        "warning: models.other: normalize False overrides the declared True",
        "warning: models.third: pooling 'attention' overrides the declared 'mean'",
        "warning: models.third: pooling 'attention' is learned and untrained; give it fitted weights",
    ]


@pytest.mark.slow
def test_check_bad_models(millpond, minilm, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (plain / file).symlink_to(minilm / file)
    config = tmp_path / "bad.yaml"
    config.write_text(
        "models:\n"
        "  good: {encoder: bundled/all-MiniLM-L6-v2}\n"
        f"  none: {{encoder: {tmp_path / 'nowhere'}}}\n"
        f"  undeclared: {{encoder: {plain}}}\n"
        "  typo: {encoder: bundled/all-MiniLM-L6-v2, pooling: maen}\n"
        "  long: {encoder: bundled/all-MiniLM-L6-v2, max_tokens: 1000}\n"
    )
    result = millpond("config", "check", config)
    assert result.returncode == 2
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["model", "good"]
    none, undeclared, typo, long = result.stderr.splitlines()
    assert none.startswith(f"error: {config}: models.none: ") and "there is no such folder" in none
    assert "models.undeclared" in undeclared and "declares no pooling" in undeclared and "'mean'" in undeclared
    assert "models.typo.pooling" in typo and "did you mean 'mean'" in typo
    assert "models.long.max_tokens: 1000 is more than the 512 positions" in long


@pytest.mark.slow
def test_check_rerankers(millpond, tmp_path):
    folder = bert_classifier(tmp_path / "model", num_labels=3)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"models: {{default: {{encoder: {TINY}}}}}\n"
        "rerankers:\n"
        f"  good: {{encoder: {folder}, activation: Tanh, max_tokens: 48}}\n"
        f"  vectors: {{encoder: {TINY}}}\n"
    )
    result = millpond("config", "check", config)
    assert result.returncode == 2
    cells = [cell.strip() for cell in result.stdout.splitlines()[-1].split("  ") if cell.strip()]
    assert cells == ["good", str(folder), "LABEL_0, LABEL_1, LABEL_2", "Tanh", "48"]
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"error: {config}: rerankers.vectors: ") and "list it under `models`" in error


@pytest.mark.slow
def test_check_sparse(millpond, tmp_path):
    plain = bert_mlm(tmp_path / "plain")
    folder = sparse_encoder(plain, tmp_path / "model", "sum", prompts={"query": "q: "})
    config = tmp_path / "config.yaml"
    config.write_text(
        f"models: {{default: {{encoder: {TINY}}}}}\n"
        "sparse:\n"
        f"  good: {{encoder: {folder}, max_tokens: 48}}\n"
        f"  plain: {{encoder: {plain}}}\n"
        f"  vectors: {{encoder: {TINY}}}\n"
    )
    result = millpond("config", "check", config)
    assert result.returncode == 2
    good, bare = (
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()[-2:]
    )
    assert good == ["good", str(folder), "sum", "relu", "48", "document: '', query: 'q: '"]
    assert bare == ["plain", str(plain), "max", "relu", "64", "none"]
    warning, error = result.stderr.splitlines()[-2:]
    assert "sparse.plain: " in warning and "declares no sparse vectors" in warning
    assert error.startswith(f"error: {config}: sparse.vectors: ") and "list it under `models`" in error


def test_check_bad_keys(millpond, tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("models: {default: {encoder: x, poling: mean}}\nserver: {port: eighty}\n")
    result = millpond("config", "check", config)
    assert (result.returncode, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ") and "Did you mean 'pooling'?" in first
    assert second.startswith("error: ") and "server.port" in second


def test_serve_at_an_address_that_is_taken(millpond, side_by_side):
    result = millpond("serve", "--config", ROOT / "configs" / "mean.yaml", "--port", side_by_side.port)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"port {side_by_side.port}: Address already in use" in result.stderr and "--port" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_serve_with_a_store_that_is_taken(millpond, side_by_side):
    config = ROOT / "configs" / "side-by-side.yaml"
    result = millpond("serve", "--config", config, "--port", 0, "--store", side_by_side.store)
    assert result.returncode == 2
    assert str(side_by_side.store) in result.stderr and len(result.stderr.splitlines()) == 1

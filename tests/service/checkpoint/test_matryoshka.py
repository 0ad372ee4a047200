"""The dimensions that a model declares to be cut to: in its config, or as its training's loss in the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

from service.checkpoint import read_checkpoint
from tests.support.checkpoints import edit, plain_bert, sentence_transformer, static


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return plain_bert(tmp_path_factory.mktemp("plain") / "model")


@pytest.mark.parametrize("key", ["matryoshka_dims", "matryoshka_dimensions"])
def test_a_config_goes_before_the_readme(plain, tmp_path, key):
    folder = sentence_transformer(plain, tmp_path / "model")
    assert read_checkpoint(str(folder)).matryoshka == ()
    (folder / "README.md").write_text('"matryoshka_dims": [\n 24,\n 12\n ]')
    assert read_checkpoint(str(folder)).matryoshka == (24, 12)
    edit(folder / "config.json", **{key: [8, 24, 16]})
    assert read_checkpoint(str(folder)).matryoshka == (24, 16, 8)


def test_a_readme_has_them_as_sentence_transformers_writes_them(plain, tmp_path):
    folder = static(tmp_path / "model")
    model = SentenceTransformer(str(folder), device="cpu")
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [24, 16, 8, 4])
    parameters = json.dumps(loss.get_config_dict(), indent=4)
    (folder / "README.md").write_text(f"* Loss: MatryoshkaLoss with these parameters:\n```json\n{parameters}\n```\n")
    assert read_checkpoint(str(folder)).matryoshka == (24, 16, 8, 4)


@pytest.mark.parametrize("value", ["all", 64, [0], [True], ["64"], [[64]], {}])
def test_what_is_no_list_of_sizes_declares_nothing(plain, tmp_path, value):
    folder = sentence_transformer(plain, tmp_path / "model")
    edit(folder / "config.json", matryoshka_dims=value)
    assert read_checkpoint(str(folder)).matryoshka == ()

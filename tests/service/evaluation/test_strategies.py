"""Which poolings take part."""

from __future__ import annotations

import pytest
import torch
import yaml
from sentence_transformers.sentence_transformer.modules import Dense

import pooling
from pooling.base import REQUIRED, options_of
from service.errors import InvalidInput
from service.evaluation import FIXED, choose
from tests.support.checkpoints import DIM, plain_bert, sentence_transformer, served


def names(model, specs=(), folders=()):
    notes = []
    return [strategy.name for strategy in choose(model, specs, folders, notes.append)], notes


def test_by_default_all_that_need_no_fitting(model):
    found, notes = names(model)
    assert found == [pooling.build(spec, DIM).spec for spec in FIXED]
    assert notes == []
    known = [cls for cls in pooling.available().values() if REQUIRED not in options_of(cls).values()]
    assert {cls.name for cls in known if not cls.learned} == {spec for spec in FIXED if "+" not in spec}


def test_the_declared_one_is_always_among_them_and_none_comes_twice(model, fitted):
    assert names(model, ["max", "max", "gem"], [str(fitted)])[0] == ["max", "gem(p=3.0)", "mean", str(fitted)]


def test_what_does_not_fit_the_head_is_left_out_or_refused(tmp_path):
    dense = Dense(in_features=DIM, out_features=10, activation_function=torch.nn.Tanh())
    folder = sentence_transformer(plain_bert(tmp_path / "plain"), tmp_path / "model", "mean", dense)
    with served(folder) as models:
        found, notes = names(models.get())
        assert "mean + max" not in found and len(found) == len(FIXED) - 2
        for spec, note in zip(("mean + max", "piecewise"), notes, strict=True):
            assert note.startswith(f"{spec} is left out: ") and "takes vectors of 24 dimensions" in note
        assert {strategy.embedder.dim for strategy in choose(models.get(), [], [], print)} == {10}
        with pytest.raises(InvalidInput, match="takes vectors of 24 dimensions and would be given 48"):
            names(models.get(), ["mean + max"])


def test_what_cannot_take_part_says_why(model, tmp_path):
    pooling.build("attention", DIM + 1).save(tmp_path / "other")
    for specs, folders, message in (
        (["maen"], [], "--pooling maen: unknown pooling 'maen'.*'mean'"),
        (["attention"], [], "--pooling attention: is learned. Name the folder of a fitted one with --pooler"),
        ([], [str(tmp_path / "none")], "--pooler .*none.*not found; a folder that a pooler was saved to"),
        (
            [],
            [str(tmp_path / "other")],
            "--pooler .*was fitted for token states of 25 dimensions; this encoder has 24",
        ),
    ):
        with pytest.raises(InvalidInput, match=message):
            names(model, specs, folders)


def test_one_that_was_never_fitted_is_noted(model, tmp_path):
    pooling.build("gated", DIM).save(tmp_path)
    assert names(model, ["mean"], [str(tmp_path)])[1] == [f"{tmp_path} holds a pooler that was never fitted."]


@pytest.mark.slow
def test_the_line_of_yaml_gives_the_same_vectors(model, bert, fitted):
    for strategy in choose(model, [*FIXED, "window(size=3, stride=2) > mean"], [str(fitted)], print):
        assert "\n" not in strategy.yaml
        with served(bert, **yaml.safe_load(strategy.yaml)) as models:
            assert models.get().fingerprint == strategy.embedder.fingerprint

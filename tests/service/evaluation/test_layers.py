"""Every layer scored beside the poolings of the last one: each as it would be alone, and the advice that follows."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim

from pooling.tasks import Similarity
from service.evaluation import choose, evaluate, over_layers
from service.evaluation.page import page
from tests.support.checkpoints import plain_modernbert, sentence_transformer, served


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of four layers."""
    folder = tmp_path_factory.mktemp("layers")
    with served(sentence_transformer(plain_modernbert(folder / "plain"), folder / "model")) as found:
        yield found


def cosines(embedder, data):
    left, right = (asyncio.run(embedder.embed(texts)).vectors for texts in (data.first, data.second))
    return pairwise_cos_sim(left, right).numpy()


@pytest.mark.slow
def test_each_layer_is_scored_as_it_would_be_alone(models, sentences):
    model = models.get()
    first, second = sentences(60), sentences(60, seed=1)
    data = Similarity(tuple(first), tuple(second), tuple(range(60)))
    data = Similarity(tuple(first), tuple(second), tuple(cosines(models.get(layers={"use": [1]}), data).tolist()))
    strategies = choose(model, ["mean", "max"], [], print)
    layered = over_layers(strategies[:1], model.encoder.carry_layers())
    names = [f"mean, layer {number}" for number in range(4)]
    names += ["mean, mean of layers 1, 4", "mean, mean of layers 1, 2, 3, 4"]
    assert [each.name for each in layered] == names
    report = evaluate(model, strategies, [("data", data)], by_layers=layered)

    (found,) = report.data
    assert [row.strategy for row in found.rows] == ["mean", "max"]
    scores = {each.strategy: each.scores["spearman"].value for each in found.compared}
    assert scores["mean, layer 1"] == pytest.approx(1.0)
    for strategy in (*strategies, *layered):
        alone = models.get(spec=strategy.embedder.recipe.pooler.spec, layers=strategy.summary().layers)
        assert scores[strategy.name] == pytest.approx(
            spearmanr(cosines(alone, data), data.scores).statistic, abs=1e-3
        )
    (curve,) = found.curves
    assert [(at, each.strategy) for at, each in curve.points] == list(enumerate([*names[:4], "mean"]))

    assert report.choice == "mean, layer 1"
    assert yaml.safe_load(report.yaml) == {"pooling": "mean", "layers": {"use": [1], "by": "mean"}}
    written = json.loads(json.dumps(report.to_json()))
    assert [each["layers"] for each in written["strategies"]][:3] == ["last", "last", {"use": [0], "by": "mean"}]
    assert {each["layer"] for each in written["data"][0]["by_layers"]} == {0, 1, 2, 3, None}
    assert all(np.isfinite(each["scores"]["spearman"]["low"]) for each in written["data"][0]["by_layers"])
    assert "By layer" in page(report)


@pytest.mark.slow
def test_a_model_over_other_layers_is_compared_with_its_last(tmp_path, sentences):
    folder = sentence_transformer(plain_modernbert(tmp_path / "plain"), tmp_path / "model")
    with served(folder, layers={"last": 2}) as found:
        model = found.get()
        (own,) = choose(model, ["mean"], [], print)
        layered = over_layers([own], model.encoder.carry_layers())
        data = Similarity(tuple(sentences(20)), tuple(sentences(20, seed=1)), tuple(range(20)))
        report = evaluate(model, [own], [("data", data)], by_layers=layered)
    assert yaml.safe_load(own.yaml) == {"pooling": "mean", "layers": {"use": [3, 4], "by": "mean"}}
    (curve,) = report.data[0].curves
    assert [each.layers for _, each in curve.points] == [
        *({"use": [layer], "by": "mean"} for layer in range(4)),
        "last",
    ]


@pytest.mark.slow
def test_a_model_over_one_layer_has_its_place_on_the_curve(models, sentences):
    model = models.get(layers={"use": [2]})
    (own,) = choose(model, ["mean"], [], print)
    data = Similarity(tuple(sentences(20)), tuple(sentences(20, seed=1)), tuple(range(20)))
    report = evaluate(model, [own], [("data", data)], by_layers=over_layers([own], model.encoder.carry_layers()))
    (curve,) = report.data[0].curves
    assert [at for at, _ in curve.points] == [0, 1, 2, 3, 4] and curve.points[2][1].strategy == "mean"

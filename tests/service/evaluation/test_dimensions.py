"""Leading dimensions scored beside all of them: each as `dimensions` of a request would be, from the same pass."""

from __future__ import annotations

import asyncio
import json

import pytest
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim

from pooling.tasks import Similarity
from service.errors import InvalidInput
from service.evaluation import choose, evaluate, leading
from service.evaluation.page import page
from tests.support.checkpoints import DIM


@pytest.mark.slow
def test_each_cut_is_scored_as_a_request_for_it_would_be(model, sentences):
    data = Similarity(tuple(sentences(60)), tuple(sentences(60, seed=1)), tuple(range(60)))
    strategies = choose(model, ["mean", "max"], [], print)
    cuts = leading(strategies[:1], [DIM, 6, 12, 6])
    assert [each.name for each in cuts] == ["mean, 12 dimensions", "mean, 6 dimensions"]
    report = evaluate(model, strategies, [("data", data)], by_dimensions=cuts)

    (found,) = report.data
    (curve,) = found.curves
    assert [(at, each.strategy) for at, each in curve.points] == [
        (6, cuts[1].name),
        (12, cuts[0].name),
        (DIM, "mean"),
    ]
    for kept, each in curve.points:
        left, right = (
            asyncio.run(model.embed(texts, dimensions=kept)).vectors for texts in (data.first, data.second)
        )
        alone = spearmanr(pairwise_cos_sim(left, right).numpy(), data.scores).statistic
        assert each.scores["spearman"].value == pytest.approx(alone, abs=1e-3)
        assert each.scores["spearman"].low < each.scores["spearman"].high
    assert report.choice in ("mean", "max"), "cuts take no part in the advice"
    written = json.loads(json.dumps(report.to_json()))
    assert [each["dim"] for each in written["strategies"]] == [DIM, DIM, 12, 6]
    assert [each["dimensions"] for each in written["data"][0]["by_dimensions"]] == [12, 6]
    assert "By leading dimensions" in page(report)


def test_more_dimensions_than_there_are(model):
    for asked in ([DIM + 1], [0, 3]):
        with pytest.raises(InvalidInput, match=f"mean has {DIM}; give numbers from 1 to {DIM}"):
            leading(choose(model, ["mean"], [], print), asked)

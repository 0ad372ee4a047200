"""A report without an evaluation."""

import pytest

from pooling.evaluation.changes import CHANGES
from pooling.evaluation.comparison import Difference
from pooling.evaluation.information import Information
from pooling.evaluation.report import DataSet, Described, Report, Row, Score, Speed, Spoiled


def row(strategy, value, difference, information=None):
    robustness = {}
    for change in CHANGES:
        robustness.setdefault(change.kind, []).append(Spoiled(change.level, value - 0.1, 0.1, 0.9))
    scores = {"spearman": Score(value, value - 0.02, value + 0.02), "pearson": Score(value, 0.0, 1.0)}
    return Row(strategy, scores, difference, robustness, 1e-7, information, 0.02)


@pytest.fixture
def report():
    data = DataSet(
        name="pairs <of mine>.csv",
        kind="similarity",
        items="pairs",
        size=100,
        texts=190,
        metrics=("spearman", "pearson"),
        reference="mean",
        rows=(
            row("max", 0.79, Difference(-0.03, -0.05, -0.01), Information(0.5, 0.1, 0.2)),
            row("mean", 0.82, None),
            row("fitted/<pooler>", 0.83, Difference(0.01, -0.01, 0.03)),
        ),
        speed=Speed(64, 4096, 2.0, 2.2),
        seconds={"embedding": 4.0, "scoring": 1.0},
        sample=100,
    )
    return Report(
        model="a & b",
        declared="mean",
        runtime="torch fp32",
        strategies=tuple(Described(each.strategy, each.strategy, 24, None) for each in data.rows),
        data=(data,),
        choice="mean",
        advice="Keep mean, which the checkpoint declares: no other pooling is better beyond noise.",
        yaml="pooling: mean",
        fit=False,
        notes=("3 texts are longer than 5 tokens.",),
    )

"""Small encoders, texts of words that they know, and a report without an evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pooling
from service.evaluation.comparison import Difference, Score
from service.evaluation.information import Information
from service.evaluation.perturbations import PERTURBATIONS
from service.evaluation.report import DataSet, Perturbed, Report, Row, Speed, StrategySummary
from tests.support.checkpoints import DIM, TEXTS, plain_bert, sentence_transformer, served

_WORDS = " ".join(TEXTS).replace(".", "").replace(",", "").split()


@pytest.fixture(scope="session")
def sentences():
    """Makes that many texts of 3 to 12 words, all different."""

    def make(count, seed=0):
        rng = np.random.default_rng(seed)
        return [f"{' '.join(rng.choice(_WORDS, rng.integers(3, 13)))} {place}" for place in range(count)]

    return make


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder that declares the mean."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return sentence_transformer(plain_bert(folder / "plain"), folder / "model")


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """The folder of a pooler that is far from the mean."""
    folder = tmp_path_factory.mktemp("poolers") / "fitted"
    pooler = pooling.build("attention", DIM)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in pooler.parameters():
            parameter.normal_(std=8.0)
    pooler.mark_trained()
    pooler.save(folder)
    return folder


@pytest.fixture(scope="session")
def model(bert):
    with served(bert) as models:
        yield models.get()


def row(strategy, value, difference, information=None):
    robustness = {}
    for each in PERTURBATIONS:
        robustness.setdefault(each.kind, []).append(Perturbed(each.level, value - 0.1, 0.1, 0.9))
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
        strategies=tuple(StrategySummary(each.strategy, each.strategy, 24, None) for each in data.rows),
        data=(data,),
        choice="mean",
        advice="Keep mean, which the checkpoint declares: no other pooling is better beyond noise.",
        yaml="pooling: mean",
        fit=False,
        notes=("3 texts are longer than 5 tokens.",),
    )

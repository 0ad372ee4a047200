"""Small encoders, and texts of words that they know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pooling
from tests.checkpoints import DIM, TEXTS, plain_bert, sentence_transformer, served

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

"""Encoders that give scores: the same logits as sentence-transformers, whatever shares a pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.checkpoint import read_checkpoint
from service.config import BatchingConfig, RuntimeConfig
from service.encoder import Encoder
from service.encoder.task import Scores
from service.errors import CheckpointError, ConfigError
from tests.support.checkpoints import plain_bert, plain_t5
from tests.support.classifiers import (
    PAIRS,
    bert_classifier,
    edit,
    modernbert_classifier,
    reference,
    roberta_classifier,
)


def scores_of(folder, tmp_path, backend):
    """The logits of all pairs in one request, (pairs, labels)."""
    runtime = RuntimeConfig(backend=backend, cache=tmp_path / "cache", threads=2)
    encoder = Encoder(read_checkpoint(str(folder)), runtime, BatchingConfig(max_batch_tokens=96), task=Scores())
    try:
        tokenizer = reference(folder).tokenizer
        ids = [np.array(tokenizer(*pair)["input_ids"]) for pair in PAIRS]
        found = encoder.batcher.submit(ids, lambda scores, *_: list(scores[:, 0].float())).result()
        assert encoder.batcher.passes < len(PAIRS)  # pairs share passes, padded
        assert encoder.runtime.precision == "fp32"
        return torch.stack(found).numpy()
    finally:
        encoder.close()


@pytest.mark.parametrize(
    ("classifier", "backend"),
    [
        (bert_classifier, "torch"),
        (roberta_classifier, "torch"),
        (modernbert_classifier, "torch"),
        (bert_classifier, "openvino"),
        pytest.param(modernbert_classifier, "openvino", marks=pytest.mark.slow),
    ],
)
def test_scores_are_the_logits_of_sentence_transformers(tmp_path, classifier, backend):
    folder = classifier(tmp_path / "model", num_labels=3)
    wanted = reference(folder).predict(PAIRS, activation_fn=torch.nn.Identity())
    assert wanted.std(0).min() > 1e-3
    np.testing.assert_allclose(scores_of(folder, tmp_path, backend), wanted, atol=1e-5, rtol=1e-5)


def test_token_types_count(tmp_path):
    folder = bert_classifier(tmp_path / "model")
    typed = scores_of(folder, tmp_path, "torch")
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert np.abs(scores_of(folder, tmp_path, "torch") - typed).max() > 1e-3


@pytest.mark.parametrize(
    ("model", "said"), [(plain_bert, "weights are missing"), (plain_t5, "an encoder with a decoder")]
)
def test_what_is_no_classifier_is_refused(tmp_path, model, said):
    checkpoint = read_checkpoint(str(model(tmp_path / "model")))
    with pytest.raises(CheckpointError, match=said):
        Encoder(checkpoint, RuntimeConfig(cache=tmp_path / "cache"), BatchingConfig(), task=Scores())


def test_int8_is_refused_for_scores(tmp_path):
    checkpoint = read_checkpoint(str(bert_classifier(tmp_path / "model")))
    runtime = RuntimeConfig(precision="int8", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="int8 is measured by vectors"):
        Encoder(checkpoint, runtime, BatchingConfig(), task=Scores())

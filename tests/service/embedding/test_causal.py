"""Causal encoders: what is beside a text, and on which side it is padded, changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from service.errors import ConfigError
from tests.support.checkpoints import TEXTS, byte_pairs, close, embed, plain_llama, served

SPECS = ["last", "weighted_mean", "mean", "max", "cls"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Llama whose tokenizer has no padding token and no special ones."""
    return plain_llama(tmp_path_factory.mktemp("llama"), byte_pairs("$A", pad=None))


@pytest.fixture(params=["tiny", "smollm2"])
def folder(request):
    return request.getfixturevalue(request.param)


def left_padded(folder, texts) -> dict[str, np.ndarray]:
    """Straight through transformers, padded at the left, with the positions of the tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    mask = inputs.attention_mask
    assert (mask[:, 0] == 0).any(), "some text must be padded at the left"
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        states = model(input_ids=inputs.input_ids, attention_mask=mask, position_ids=positions).last_hidden_state
    rank = (mask.cumsum(1) * mask).unsqueeze(2)
    kept = states * mask.unsqueeze(2)
    return {
        "last": states[:, -1].numpy(),
        "mean": (kept.sum(1) / mask.sum(1, keepdim=True)).numpy(),
        "weighted_mean": ((states * rank).sum(1) / rank.sum(1)).numpy(),
        "max": states.masked_fill(mask.unsqueeze(2) == 0, -torch.inf).amax(1).numpy(),
    }


@pytest.mark.slow
def test_company_and_padding_change_nothing(folder):
    texts = TEXTS[:4]
    expected = left_padded(folder, texts)
    with served(folder, pooling="last", max_tokens=64) as models:
        for spec, wanted in expected.items():
            together = embed(models, texts, spec, normalize=False)
            alone = np.concatenate([embed(models, [text], spec, normalize=False) for text in texts])
            # States of a large model are large in a few dimensions; the tolerance is relative to those.
            assert close(together, wanted), spec
            assert close(together, alone), spec


def test_poolings_differ(tiny):
    with served(tiny, pooling="last") as models:
        vectors = [embed(models, TEXTS, spec, normalize=True) for spec in SPECS]
    for i, left in enumerate(vectors):
        assert all(not close(left, right, 1e-2) for right in vectors[:i])


def test_the_first_token_saw_nothing(tiny):
    """Which is why cls is no choice for a causal model: texts that begin alike are alike."""
    with served(tiny, pooling="cls") as models:
        one, other = embed(models, ["The wheel turns", "The wheel stands still"])
    assert close(one, other)


def test_a_causal_model_is_told_so(tiny):
    with pytest.raises(ConfigError, match=r"This encoder is causal: 'last' .* else 'weighted_mean'"), served(tiny):
        pass

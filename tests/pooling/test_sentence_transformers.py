"""The strategies that sentence-transformers has too give its vectors."""

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.testing import assert_close

from pooling import build, masks

SHARED = {
    "cls": "cls",
    "mean": "mean",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weighted_mean": "weightedmean",
    "max": "max",
    "last": "lasttoken",
    "mean + max + cls": ("mean", "max", "cls"),
}


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("spec", SHARED)
def test_agrees(spec, padding):
    tokens = torch.randn(5, 9, 16, generator=torch.Generator().manual_seed(4))
    mask = masks.from_lengths([9, 1, 4, 7, 2], padding=padding)
    features = {"token_embeddings": tokens.clone(), "attention_mask": mask.long()}
    theirs = Pooling(16, SHARED[spec])(features)["sentence_embedding"]
    assert_close(build(spec, 16)(tokens, mask), theirs)

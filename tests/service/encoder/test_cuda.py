"""Vectors of a GPU, where there is one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.support.checkpoints import TEXTS, close, embed, plain_bert, plain_llama, plain_roberta, plain_t5, served

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

LONG = "the mill stands by the pond " * 40


def cuda(precision: str) -> dict[str, str]:
    return {"device": "cuda", "backend": "auto", "precision": precision}


@pytest.mark.parametrize("make", [plain_bert, plain_roberta, plain_llama, plain_t5])
def test_float32_gives_the_same_vectors_as_on_the_cpu(make, tmp_path):
    folder = make(tmp_path / "model")
    with (
        served(folder, pooling="mean") as wanted,
        served(folder, pooling="mean", runtime=cuda("fp32")) as found,
    ):
        assert found.get(None).encoder.runtime.backend == "torch"
        assert close(embed(found, TEXTS), embed(wanted, TEXTS))
        for text in TEXTS:
            assert close(embed(found, [text]), embed(wanted, [text]))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "last"])
def test_poolings_agree_with_the_cpu(pooling, tmp_path):
    folder = plain_bert(tmp_path / "model")
    with (
        served(folder, pooling=pooling) as wanted,
        served(folder, pooling=pooling, runtime=cuda("fp32")) as found,
    ):
        assert close(embed(found, TEXTS), embed(wanted, TEXTS))


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.9995), ("fp16", 0.9999)])
def test_the_bundled_model_agrees_with_sentence_transformers(precision, least, minilm):
    texts = [*TEXTS, LONG, "a", "Straße, naïve, 東京"]
    wanted = SentenceTransformer(str(minilm), device="cpu").encode(texts, normalize_embeddings=True)
    with served(minilm, runtime=cuda(precision)) as models:
        assert models.get(None).encoder.runtime.precision == precision
        found = embed(models, texts)
    assert np.isfinite(found).all()
    assert (found * wanted).sum(axis=1).min() >= least


def test_auto_is_a_half_precision(tmp_path):
    with served(plain_bert(tmp_path / "m"), pooling="mean", runtime=cuda("auto")) as models:
        assert models.get(None).encoder.runtime.precision in ("bf16", "fp16")
        assert models.get(None).encoder.runtime.streams == 1
        assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_neighbours_do_not_change_a_vector(minilm):
    texts = [*TEXTS, LONG, *(f"{word} stands by the mill" for word in ("a pond", "the miller", "nothing at all"))]
    with served(minilm, runtime=cuda("fp32")) as models, ThreadPoolExecutor(16) as pool:
        alone = [embed(models, [text]) for text in texts]
        together = list(pool.map(lambda text: embed(models, [text]), texts * 8))
    for found, wanted in zip(together, alone * 8, strict=True):
        assert close(found, wanted)

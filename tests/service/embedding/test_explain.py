"""What is explained where a model has a head, prompts, or a strategy that was fitted."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

import pooling
from service.embedding import explain as module
from service.embedding.explain import Explained, explain
from service.embedding.models import Models
from service.embedding.viewing import Viewing
from service.errors import InvalidInput, TooLarge, TooLong
from tests.support.checkpoints import DIM, TEXTS, embed, plain_bert, sentence_transformer, served


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("plain"))


def explained(models: Models, *texts: str, **options) -> Explained:
    return asyncio.run(explain(models, Viewing(**options), *texts))


def cosine(models: Models, spec=None) -> float:
    one, other = embed(models, TEXTS[:2], spec)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def dense(size: int, *, identity: bool = False) -> Dense:
    torch.manual_seed(9)
    layer = Dense(DIM, size, activation_function=torch.nn.Identity() if identity else torch.nn.Tanh())
    if identity:
        torch.nn.init.eye_(layer.linear.weight)
        torch.nn.init.zeros_(layer.linear.bias)
    return layer


def test_a_head_is_named_and_both_similarities_are_given(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", dense(12), Normalize())
    bare = sentence_transformer(bert, tmp_path / "bare", "mean", Normalize())
    with served(folder) as models, served(bare) as without:
        found = explained(models, *TEXTS[:2])
        assert found.head == "Dense"
        pair = found.explanations[0].pair
        assert pair.served_similarity == pytest.approx(cosine(models), abs=1e-5)
        assert pair.similarity == pytest.approx(cosine(without), abs=1e-5)
        assert abs(pair.similarity - pair.served_similarity) > 1e-3
        assert pair.contributions.sum() == pytest.approx(pair.similarity, abs=1e-5)
        assert explained(without, *TEXTS[:2]).head == ""


def test_an_identity_head_changes_nothing(bert, tmp_path):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", dense(DIM, identity=True), Normalize())
    with served(folder) as models:
        pair = explained(models, *TEXTS[:2]).explanations[0].pair
        assert pair.similarity == pytest.approx(pair.served_similarity, abs=1e-6)
        assert pair.matrix.sum() == pytest.approx(cosine(models), abs=1e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_prompt_that_is_not_pooled_has_no_share(bert, tmp_path, include_prompt):
    prompts = {"query": "represent the sentence: "}
    folder = sentence_transformer(
        bert, tmp_path / "model", "mean", Normalize(), include_prompt=include_prompt, prompts=prompts
    )
    with served(folder) as models:
        found = explained(models, *TEXTS[:2], asked=("query", None), poolings=["mean", "max", "gem"])
        plain = explained(models, TEXTS[0])
        front = len(found.text.tokens) - len(plain.text.tokens) + 1  # [CLS] goes with it
        assert front > 3 and found.text.offsets[:front] == (None,) * front
        for one in found.explanations:
            assert (one.shares[:front] == 0).all() != include_prompt
            assert one.shares.sum() == pytest.approx(1, abs=1e-6)
            assert (one.pair.matrix[:front] == 0).all() != include_prompt
        vectors = embed(models, TEXTS[:2], prompt_name="query")
        assert found.explanations[0].pair.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


@pytest.mark.parametrize(
    "spec", ["attention", "multihead_attention(heads=4, split_heads=True, projection=True)", "mean + gated"]
)
def test_a_fitted_strategy_is_explained_by_name_too(bert, tmp_path, spec):
    pooler = pooling.build(spec, DIM)
    for parameter in pooler.parameters():
        torch.nn.init.normal_(parameter)
    pooler.mark_trained()
    pooler.save(tmp_path / "pooler")
    with served(
        bert, pooling={"strategy": pooler.config()["strategy"], "weights": str(tmp_path / "pooler")}
    ) as models:
        own, named, mean = explained(models, *TEXTS[:2], poolings=[None, pooler.spec, "mean"]).explanations
        assert own.pooling == named.pooling == pooler.spec
        assert (own.shares == named.shares).all() and not np.allclose(own.shares, mean.shares)
        assert own.pair.exact and own.pair.matrix.sum() == pytest.approx(cosine(models), abs=1e-5)
        with pytest.raises(InvalidInput, match="learned"):
            explained(models, TEXTS[0], poolings=["gated"])


def test_more_than_one_request_may_ask(bert, monkeypatch):
    with served(bert, pooling="mean") as models:
        count = len(explained(models, TEXTS[1]).text.tokens)
        monkeypatch.setattr(module, "MOST_NUMBERS", count * DIM)
        explained(models, TEXTS[1])
        with pytest.raises(TooLarge, match=f"text has {count} tokens and pooling 'mean . max' {2 * DIM} dimensions"):
            explained(models, TEXTS[1], poolings=["mean + max"])
        monkeypatch.setattr(module, "MOST_TOKENS", count)
        with pytest.raises(TooLong, match="fewer or shorter"):
            explained(models, TEXTS[1], TEXTS[2])

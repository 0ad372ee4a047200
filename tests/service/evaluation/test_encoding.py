"""Vectors of every pooling from one pass."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from pooling.tasks import Part
from service.embedding.embedder import Embedder
from service.embedding.postprocessing import ToVectors
from service.evaluation.encoding import SPEED_PASSES, Encoding
from tests.support.checkpoints import TEXTS, plain_bert, plain_llama, sentence_transformer, served

SPECS = ["mean", "cls", "last", "max", "mean + max"]


def embedders(model):
    return [Embedder(model.encoder, model.recipe.with_pooling(spec)) for spec in SPECS]


def poolings(model):
    return [ToVectors(each.recipe) for each in embedders(model)]


@pytest.fixture(params=["bert", "llama", "prompted"])
def folder(request, tmp_path):
    if request.param == "llama":
        return plain_llama(tmp_path / "llama")
    settings = {} if request.param == "bert" else {"prompts": {"query": "query: ", "document": "passage: "}}
    return sentence_transformer(
        plain_bert(tmp_path / "plain"), tmp_path / "model", include_prompt=not settings, **settings
    )


@pytest.mark.parametrize("role", [None, "query", "document"])
def test_each_pooling_has_the_vectors_that_it_would_be_served_with(folder, role, sentences, tmp_path):
    texts = [*TEXTS, *sentences(150)]
    with served(folder, pooling="mean") as models:
        model = models.get()
        encoding = Encoding(model, poolings(model))
        done = []
        found = encoding.vectors(Part(texts, role), tmp_path / "vectors", done.append)
        few = encoding.few_vectors(Part(texts, role), done.append)
        assert sum(done) == 2 * len(texts)
        for one, vectors, again in zip(embedders(model), found, few, strict=True):
            wanted = asyncio.run(one.embed(texts, role=role, truncate="right")).vectors
            assert vectors.shape == wanted.shape
            np.testing.assert_allclose(vectors, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))
            np.testing.assert_allclose(again, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))


def test_padding_moves_nothing(folder, sentences):
    with served(folder, pooling="mean") as models:
        model = models.get()
        moved = Encoding(model, poolings(model)).padding(Part(sentences(20), "query"), lambda _: None)
        assert len(moved) == len(SPECS)
        assert max(moved) < 1e-5


def test_a_token_of_the_prompt_is_there_beside_padding(tmp_path, sentences):
    prompts = {"query": "the wheel means [MASK]: "}
    folder = sentence_transformer(plain_bert(tmp_path / "plain"), tmp_path / "model", prompts=prompts)
    with served(folder) as models:
        masked = [ToVectors(models.get(None, "token('[MASK]')").recipe)]
        (moved,) = Encoding(models.get(), masked).padding(Part(sentences(20), "query"), lambda _: None)
    assert 0 <= moved < 1e-5


def test_spans_are_the_characters_of_tokens_as_far_as_they_are_read(model):
    encoding = Encoding(model, [ToVectors(model.recipe)])
    text = "The wheel turns. " * 40
    [few, many] = encoding.spans(["a mill", text])
    words = ["a mill"[start:end] for start, end in few]
    assert words[0] == "a" and "".join(words) == "amill"
    assert len(many) == model.recipe.max_tokens - 2
    assert all(left[1] <= right[0] for left, right in pairwise(many))
    assert encoding.truncated(["a mill", text, text]) == 2


def test_what_poolings_cost_is_measured_over_all_texts(model, sentences):
    encoding = Encoding(model, poolings(model))
    done = []
    speed, shares = encoding.speed(Part(sentences(40)), done.append)
    assert (speed.texts, speed.tokens) == (40, sum(len(ids) for ids in encoding.ids(sentences(40))))
    assert sum(done) == SPEED_PASSES * 40
    assert len(shares) == len(SPECS) and min(shares) > 0
    assert speed.ratio == speed.together / speed.alone > 0

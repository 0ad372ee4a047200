"""Rerankers: the scores of sentence-transformers' CrossEncoder, for any pair, in any company, on both runtimes."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.config import make_config
from service.errors import CheckpointError, ConfigError, InvalidInput, Place, TooLong, UnsupportedTask
from service.ranking import Rerankers
from tests.support.checkpoints import edit, plain_bert, plain_llama, sentence_transformer
from tests.support.classifiers import (
    PAIRS,
    bert_classifier,
    cross_encoder,
    modernbert_classifier,
    reference,
    roberta_classifier,
)

QUERY = "What does a miller do in the evening, when the wheel stands still?"
DOCUMENTS = [second for _, second in PAIRS]
LONG = "the wheel turns when water flows over it " * 12
INPUTS = partial(Place, "inputs")


def config(folder, cache, *, backend="torch", precision="auto", **settings):
    values = {
        "models": {"default": {"encoder": "some/model"}},
        "rerankers": {"ranker": {"encoder": str(folder), **settings}},
        "runtime": {"backend": backend, "precision": precision, "threads": 2, "cache": str(cache)},
        "batching": {"max_batch_tokens": 160},
    }
    return make_config(values, "a test", env={})


@contextmanager
def loaded(folder, tmp_path, **settings):
    rerankers = Rerankers(config(folder, tmp_path / "cache", **settings))
    try:
        yield rerankers.get()
    finally:
        rerankers.close()


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("classifier", "backend"),
    [
        (bert_classifier, "torch"),
        (roberta_classifier, "torch"),
        (modernbert_classifier, "torch"),
        (bert_classifier, "openvino"),
        pytest.param(roberta_classifier, "openvino", marks=pytest.mark.slow),
    ],
)
def test_scores_are_those_of_sentence_transformers(tmp_path, classifier, backend):
    folder = cross_encoder(classifier(tmp_path / "plain"), tmp_path / "model")
    theirs = reference(folder)
    with loaded(folder, tmp_path, backend=backend) as reranker:
        found = asyncio.run(reranker.score(QUERY, DOCUMENTS))
        wanted = theirs.predict([(QUERY, text) for text in DOCUMENTS])
        assert wanted.std() > 1e-4
        close(found, wanted)
        alone = [asyncio.run(reranker.score(QUERY, [text]))[0] for text in DOCUMENTS]
        close(alone, wanted)  # whatever shares a pass, and however it is padded
        logits = asyncio.run(reranker.rank(QUERY, DOCUMENTS)).logits[:, 0]
        close(logits, theirs.predict([(QUERY, text) for text in DOCUMENTS], activation_fn=torch.nn.Identity()))
        ranked = [each["corpus_id"] for each in theirs.rank(QUERY, DOCUMENTS)]
        assert np.argsort(-found).tolist() == ranked


@pytest.mark.parametrize("classifier", [bert_classifier, roberta_classifier])
def test_several_labels_and_single_texts(tmp_path, classifier):
    folder = cross_encoder(classifier(tmp_path / "plain", num_labels=3), tmp_path / "model")
    theirs = reference(folder)
    with loaded(folder, tmp_path) as reranker:
        assert reranker.recipe.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        found = asyncio.run(reranker.predict(PAIRS, where=INPUTS))
        close(found.logits, theirs.predict(PAIRS))
        close(reranker.normalized(found.logits), theirs.predict(PAIRS, apply_softmax=True))
        with pytest.raises(UnsupportedTask, match="gives 3 scores"):
            asyncio.run(reranker.score(QUERY, DOCUMENTS))
        one = reranker.encoder.tokenizer.encode([QUERY])[0].ids
        ids = theirs.tokenizer(QUERY)["input_ids"]
        assert one.tolist() == ids
        with torch.inference_mode():
            wanted = theirs.model(torch.tensor([ids])).logits
        close(asyncio.run(reranker.predict([QUERY], where=INPUTS)).logits, wanted)


@pytest.mark.parametrize("name", ["Identity", "Sigmoid", "Tanh"])
def test_the_declared_activation(tmp_path, name):
    module = getattr(torch.nn, name)()
    folder = cross_encoder(bert_classifier(tmp_path / "plain"), tmp_path / "model", activation_fn=module)
    with loaded(folder, tmp_path) as reranker:
        found = asyncio.run(reranker.rank(QUERY, DOCUMENTS)).logits
        wanted = reference(folder).predict([(QUERY, text) for text in DOCUMENTS])
        close(reranker.activated(found)[:, 0], wanted)
        sigmoid = 1 / (1 + np.exp(-found))
        close(reranker.normalized(found), np.tanh(found) if name == "Tanh" else sigmoid)
    with loaded(folder, tmp_path, activation="Hardsigmoid") as reranker:
        close(reranker.activated(found), np.clip(found / 6 + 0.5, 0, 1))


@pytest.mark.parametrize(
    "keys",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "5.0.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
    ],
)
def test_a_folder_of_an_older_release(tmp_path, keys):
    folder = bert_classifier(tmp_path / "model")
    edit(folder / "config.json", **keys)
    with loaded(folder, tmp_path) as reranker:
        close(asyncio.run(reranker.score(*PAIRS[0][:1], [PAIRS[0][1]])), reference(folder).predict(PAIRS[:1]))
        assert type(reranker.recipe.activation) is torch.nn.Tanh


@pytest.mark.parametrize("classifier", [bert_classifier, roberta_classifier])
def test_what_is_too_long_is_refused_or_cut_as_sentence_transformers_does(tmp_path, classifier):
    folder = cross_encoder(classifier(tmp_path / "plain"), tmp_path / "model")
    texts = ["Grain", LONG, QUERY]
    with loaded(folder, tmp_path) as reranker:
        with pytest.raises(TooLong, match=r"texts\[1\] with the text it is paired with has \d+ tokens") as caught:
            asyncio.run(reranker.rank(QUERY, texts))
        assert caught.value.where == Place("texts", 1) and caught.value.extra["limit"] == reranker.recipe.max_tokens
        found = asyncio.run(reranker.rank(QUERY, texts, truncate="right"))
        assert found.truncated == [1]
        close(reranker.activated(found.logits)[:, 0], reference(folder).predict([(QUERY, text) for text in texts]))
        both = [(LONG, LONG), (LONG, "Grain")]
        found = asyncio.run(reranker.predict(both, truncate="right", where=INPUTS))
        close(reranker.activated(found.logits)[:, 0], reference(folder).predict(both))
        left = asyncio.run(reranker.predict(both, truncate="left", where=INPUTS))
        theirs = reference(folder, processor_kwargs={"truncation_side": "left"})
        close(reranker.activated(left.logits)[:, 0], theirs.predict(both))
        assert np.abs(left.logits - found.logits).max() > 1e-4
    with loaded(folder, tmp_path, max_tokens=24, truncate=True) as reranker:
        shorter = reference(folder, max_length=24)
        close(asyncio.run(reranker.score(QUERY, texts)), shorter.predict([(QUERY, text) for text in texts]))


def test_special_tokens_in_a_text_are_plain_characters(tmp_path):
    folder = bert_classifier(tmp_path / "model")
    with loaded(folder, tmp_path) as reranker:
        plain, spelled = asyncio.run(reranker.score("Grain", ["the wheel [SEP] turns", "the wheel turns"]))
        ended = reference(folder).predict([("Grain", "the wheel [SEP] turns")])
        assert abs(plain - ended[0]) > 1e-6 and plain != spelled


def test_many_requests_at_once(tmp_path):
    folder = bert_classifier(tmp_path / "model")
    wanted = reference(folder).predict([(first, second) for first, _ in PAIRS for second in DOCUMENTS])

    async def every(reranker):
        found = await asyncio.gather(*(reranker.score(first, DOCUMENTS) for first, _ in PAIRS))
        return np.concatenate(found)

    with loaded(folder, tmp_path) as reranker:
        close(asyncio.run(every(reranker)), wanted)
        assert reranker.scored == len(PAIRS) * len(DOCUMENTS)
        assert asyncio.run(reranker.score(QUERY, [])).shape == (0,)


@pytest.mark.parametrize(
    ("query", "texts", "where", "said"),
    [
        ("", ["a"], Place("query"), "query is empty"),
        (" ", ["a"], Place("query"), "nothing but white space"),
        ("a", ["Grain", ""], Place("texts", 1), r"texts\[1\] is empty"),
        ("a", ["Grain", "b\ud800"], Place("texts", 1), "not valid Unicode"),
        ("a\ud800", ["Grain"], Place("query"), "not valid Unicode"),
    ],
)
def test_texts_that_cannot_be_scored(tmp_path, query, texts, where, said):
    with loaded(bert_classifier(tmp_path / "model"), tmp_path) as reranker:
        with pytest.raises(InvalidInput, match=said) as caught:
            asyncio.run(reranker.rank(query, texts))
        assert caught.value.where == where


def of_embeddings(folder):
    return sentence_transformer(plain_bert(folder / "plain"), folder / "model")


def of_a_decoder(folder):
    edit(plain_llama(folder) / "config.json", architectures=["LlamaForCausalLM"])
    return folder


def with_wrong_labels(folder):
    edit(bert_classifier(folder) / "config.json", id2label={"1": "a"})
    return folder


def with_a_function(folder):
    edit(bert_classifier(folder) / "config.json", sentence_transformers={"activation_fn": "mine.Squash"})
    return folder


def with_weights(folder):
    edit(bert_classifier(folder) / "config.json", sentence_transformers={"activation_fn": "torch.nn.PReLU"})
    return folder


def with_softmax_of_one(folder):
    edit(bert_classifier(folder) / "config.json", sentence_transformers={"activation_fn": "torch.nn.Softmax"})
    return folder


def with_a_bias_that_is_no_number(folder):
    cross_encoder(bert_classifier(folder / "plain"), folder / "model")
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    return folder / "model"


def with_a_thousand_million_labels(folder):
    edit(bert_classifier(folder) / "config.json", id2label=None, label2id=None, num_labels=10**9)
    return folder


def with_other_types(folder):
    bert_classifier(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"type_id": 1', '"type_id": 2'))
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of_embeddings, "list it under `models` in the config, not under `rerankers`"),
        (plain_bert, "list it under `models`"),
        (of_a_decoder, "what a language model would answer, which is not done here"),
        (with_wrong_labels, "id2label must name each score by its number"),
        (with_a_function, 'mine.Squash" is not a module of torch.nn. Set rerankers.ranker.activation'),
        (with_weights, "has weights, and none are saved"),
        (with_softmax_of_one, "the same for every text, so it ranks none. Set rerankers.ranker.activation to one"),
        (with_a_thousand_million_labels, "num_labels is 1000000000, and the most that is followed is 65536"),
        (with_a_bias_that_is_no_number, "scores .* model.safetensors holds NaN or infinity in classifier.bias"),
        (with_other_types, "template of pairs gives"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, make, said):
    with pytest.raises(CheckpointError, match=said):
        Rerankers(config(make(tmp_path / "folder"), tmp_path / "cache"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": "Sigmoit"}, "rerankers.ranker.activation: .*Sigmoit"),
        ({"activation": "Linear"}, "rerankers.ranker.activation"),
        ({"activation": "Softmax"}, "rerankers.ranker.activation: .*is the same for every text"),
        ({"max_tokens": 1000}, "rerankers.ranker.max_tokens: 1000 is more than the 64 positions"),
        ({"max_tokens": 3}, "leaves no room beside the 3 special tokens"),
        ({"precision": "int8"}, "int8 is measured by vectors"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        Rerankers(config(bert_classifier(tmp_path / "model"), tmp_path / "cache", **settings))
